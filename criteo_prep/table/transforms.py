"""Numericals: the value of the log -> the number of the dataset. Statistics come from train rows only.

    log_shift     log(x + 3); 0.0 for x <= -3 (the rule of Criteo's logs, schema.NUMERICAL_RULE)
    log1p         log(1 + x); 0.0 for x <= -1
    standardize   (x - mean) / standard deviation
    quantile      the share of train rows with a smaller value, and half of those with the same value: 0 to 1
    none          x

`clip` comes first, then `missing` takes the place of a missing value. Without `missing`, a missing value is 0.0 in the
dataset. Numbers of the dataset are float16.
"""

from collections.abc import Callable, Iterator

import numpy as np

from criteo_prep.schema import log_numerical
from criteo_prep.table.schema import Numerical

NUM_QUANTILES = 1000
MOST_VALUES = 1 << 22  # train values that the quantiles of a column are computed from
_LARGEST = 65504.0  # of float16

TrainBlocks = Callable[[], Iterator[np.ndarray]]


def statistics(columns: tuple[Numerical, ...], train_blocks: TrainBlocks, *, num_rows: int) -> dict[str, dict]:
    """The statistics of the train rows that the transforms need, by name of the feature; for the manifest.

    Args:
      columns: the numericals.
      train_blocks: called several times; returns the numbers of the train rows, block after block: float64
        [n, numericals], NaN where missing.
      num_rows: number of train rows.
    """
    found: dict[str, dict] = {each.feature: {} for each in columns}
    wanted = [number for number, each in enumerate(columns) if each.transform == "standardize"]
    if wanted:
        for number, moments in zip(wanted, _moments(columns, train_blocks, wanted=wanted), strict=True):
            found[columns[number].feature] = moments
    for number, each in enumerate(columns):
        if each.transform == "quantile":
            found[each.feature] = _quantiles(each, train_blocks, number=number, num_rows=num_rows)
    return {feature: values for feature, values in found.items() if values}


def transformed(values: np.ndarray, column: Numerical, known: dict) -> np.ndarray:
    """The numbers of the dataset, float16 [n].

    Args:
      values: float64 [n], NaN where missing.
      column: the transform.
      known: the statistics of the feature.
    """
    values = _clipped(values, column)
    if column.missing is not None:
        values = np.where(np.isnan(values), column.missing, values)
    missing = np.isnan(values)
    if column.transform == "log_shift":
        return log_numerical(values, missing)
    if column.transform == "log1p":
        defined = ~missing & (values > -1)
        result = np.log1p(np.where(defined, values, 0.0))
    elif column.transform == "standardize":
        result = (values - known["mean"]) / (known["standard_deviation"] or 1.0)
    elif column.transform == "quantile":
        limits = np.array(known["limits"])
        below = np.searchsorted(limits, values, side="left") + np.searchsorted(limits, values, side="right")
        result = below / (2 * max(1, len(limits)))
    else:
        result = values
    return np.clip(np.where(missing, 0.0, result), -_LARGEST, _LARGEST).astype(np.float16)


def _clipped(values: np.ndarray, column: Numerical) -> np.ndarray:
    return values if column.clip is None else np.clip(values, *column.clip)


def _moments(columns: tuple[Numerical, ...], train_blocks: TrainBlocks, *, wanted: list[int]) -> list[dict]:
    """Mean and standard deviation of the present values; in two passes, so that no digit is lost."""
    sums, counts, squares = np.zeros(len(wanted)), np.zeros(len(wanted), np.int64), np.zeros(len(wanted))
    for block in train_blocks():
        for place, number in enumerate(wanted):
            values = _clipped(block[:, number], columns[number])
            sums[place] += np.nansum(values)
            counts[place] += np.count_nonzero(~np.isnan(values))
    means = sums / np.maximum(counts, 1)
    for block in train_blocks():
        for place, number in enumerate(wanted):
            squares[place] += np.nansum((_clipped(block[:, number], columns[number]) - means[place]) ** 2)
    deviations = np.sqrt(squares / np.maximum(counts, 1))
    return [
        {"num_values": int(count), "mean": float(mean), "standard_deviation": float(deviation)}
        for count, mean, deviation in zip(counts, means, deviations, strict=True)
    ]


def _quantiles(column: Numerical, train_blocks: TrainBlocks, *, number: int, num_rows: int) -> dict:
    """The limits between NUM_QUANTILES + 1 equal parts of the present values; of every k-th row of very many rows."""
    step = max(1, -(-num_rows // MOST_VALUES))
    parts, seen = [np.empty(0)], 0
    for block in train_blocks():
        values = block[-seen % step :: step, number]
        seen += len(block)
        parts.append(values[~np.isnan(values)])
    values = np.sort(_clipped(np.concatenate(parts), column))
    if len(values) > NUM_QUANTILES:
        shares = (np.arange(NUM_QUANTILES) + 0.5) / NUM_QUANTILES
        values = values[np.floor(shares * len(values)).astype(np.int64)]
    sampled = {"every_row": step} if step > 1 else {}
    return {"num_values": int(sum(map(len, parts))), **sampled, "limits": values.tolist()}
