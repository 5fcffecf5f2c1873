"""What the card says about a numerical feature: quantiles, histogram, missing values, drift."""

from dataclasses import dataclass

import numpy as np
import polars as pl

from criteo_prep.pages.coverage import base_split
from criteo_prep.pages.dataset import Dataset

QUANTILES = (0.01, 0.25, 0.5, 0.75, 0.99)
NUM_BINS = 40
_ENDS = (0.001, 0.999)  # quantiles between which the bins lie; the outer bins also have the values beyond
_ROUNDED_BITS = 12  # of a float32's 23 bits; no float16 has so many bits that one is lost


@dataclass(frozen=True)
class NumericalFacts:
    """A numerical feature. Numbers are of the train split, or of the only split.

    Attributes:
      name: name of the feature.
      smallest, largest, mean: of all values.
      quantiles: share of values -> the value, one of the stored values, that so many are below or equal to.
      zeros: share of the values that are exactly 0, as missing values are stored.
      edges: ends of the histogram's bins, NUM_BINS + 1 of them.
      shares: split -> share of its values in each bin, for train and test.
      drift: the largest difference of the distribution functions of train and test (Kolmogorov-Smirnov): 0 to 1; None
        for a dataset without both.
    """

    name: str
    smallest: float
    largest: float
    mean: float
    quantiles: dict[float, float]
    zeros: float
    edges: list[float]
    shares: dict[str, list[float]]
    drift: float | None


def numerical_facts(dataset: Dataset) -> list[NumericalFacts]:
    """Reads the numericals of all splits. Raises FeatureSpecError or OSError for a damaged file."""
    features = dataset.spec.numerical
    splits = [split for split, rows in dataset.rows.items() if rows]
    base = base_split(dataset)
    if not features or base not in splits:
        return []
    counted = {split: _counted(dataset, split) for split in splits}
    facts = []
    for number, feature in enumerate(features):
        of_splits = {split: counted[split][number] for split in splits if split in (base, "test")}
        facts.append(_facts(feature.name, of_splits, base=base))
    return facts


def _counted(dataset: Dataset, split: str) -> list[pl.DataFrame]:
    """For each numerical, how often each value occurs: "value" (float32, ascending) and "count" (int64).

    Float16 values are exact. Others are rounded to 12 significant bits, so that there are never too many.
    """
    features = dataset.spec.numerical
    empty = pl.DataFrame(schema={"value": pl.Float32, "count": pl.Int64})
    counts = [empty for _ in features]
    for batch in dataset.batches(split, features):
        assert batch.numerical is not None
        for number in range(len(features)):
            values = _rounded(batch.numerical[:, number])
            new = pl.DataFrame({"value": values}).group_by("value").agg(pl.len().cast(pl.Int64).alias("count"))
            both = pl.concat([counts[number], new])
            counts[number] = both.group_by("value").agg(pl.col("count").sum())
    return [frame.sort("value") for frame in counts]


def _rounded(values: np.ndarray) -> np.ndarray:
    """float32 [n], the values rounded to 12 significant bits; 0.0 for -0.0."""
    exact = values.astype(np.float32) + np.float32(0)
    if values.dtype == np.float16:
        return exact
    dropped = np.uint32(23 - _ROUNDED_BITS + 1)
    half = np.uint32(1) << (dropped - np.uint32(1))
    return (((exact.view(np.uint32) + half) >> dropped) << dropped).view(np.float32)


def _facts(name: str, counted: dict[str, pl.DataFrame], *, base: str) -> NumericalFacts:
    values = counted[base]["value"].to_numpy().astype(np.float64)
    counts = counted[base]["count"].to_numpy()
    total = counts.sum()
    low, high = (_quantile(values, counts, share) for share in _ENDS)
    if low == high:
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, NUM_BINS + 1)
    return NumericalFacts(
        name=name,
        smallest=float(values[0]),
        largest=float(values[-1]),
        mean=float((values * counts).sum() / total),
        quantiles={share: _quantile(values, counts, share) for share in QUANTILES},
        zeros=float(counts[values == 0].sum() / total),
        edges=edges.tolist(),
        shares={split: _shares(frame, edges) for split, frame in counted.items()},
        drift=_largest_difference(counted["train"], counted["test"]) if {"train", "test"} <= set(counted) else None,
    )


def _quantile(values: np.ndarray, counts: np.ndarray, share: float) -> float:
    """The value at place floor(share * (n - 1)) of all n values in ascending order."""
    place = int(share * (int(counts.sum()) - 1))
    return float(values[np.searchsorted(np.cumsum(counts), place, side="right")])


def _shares(frame: pl.DataFrame, edges: np.ndarray) -> list[float]:
    """The share of the values in each bin; a value that is an end belongs to the bin that it begins."""
    values, counts = frame["value"].to_numpy().astype(np.float64), frame["count"].to_numpy()
    bins = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, len(edges) - 2)
    return (np.bincount(bins, weights=counts, minlength=len(edges) - 1) / counts.sum()).tolist()


def _largest_difference(one: pl.DataFrame, other: pl.DataFrame) -> float:
    """The largest difference of two distribution functions, between 0 and 1."""
    values = np.union1d(one["value"].to_numpy(), other["value"].to_numpy())

    def shares_up_to(frame: pl.DataFrame) -> np.ndarray:
        sums = np.concatenate([[0], np.cumsum(frame["count"].to_numpy())])
        return sums[np.searchsorted(frame["value"].to_numpy(), values, side="right")] / sums[-1]

    return float(np.abs(shares_up_to(one) - shares_up_to(other)).max())
