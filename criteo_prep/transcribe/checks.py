"""What holds for every sample of every layout, source and destination; messages with file and row.

Labels are 0 or 1, numericals are finite, ids are in [0, cardinality), and a sample has as many ids as its feature's
hotness says. Any int64 is a key.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from criteo_prep.batch import Batch, Ids
from criteo_prep.feature_spec import Feature, FeatureSpec, FeatureSpecError
from criteo_prep.transcribe.half import narrow, widen

UNKNOWN_CARDINALITY = 2**31 - 1  # stands for a cardinality that is not yet known; ids are below it

# The bits of the exponent, by bytes of a number: infinities and NaN have all of them set.
_EXPONENT = {2: np.uint16(0x7C00), 4: np.uint32(0x7F800000), 8: np.uint64(0x7FF0000000000000)}


def check_ids(ids: Ids, feature: Feature, *, path: Path | str, first_row: int) -> None:
    """Raises FeatureSpecError naming the first id that is not in [0, cardinality); a key is never wrong.

    Args:
      ids: ids of any integer type.
      feature: the feature that has these ids.
      path: file of the ids, for the message.
      first_row: row of the first sample.
    """
    if feature.key:
        return
    values = ids.values
    # Read as unsigned, a negative id is larger than every id that its type can hold.
    limit = min(feature.cardinality, np.iinfo(values.dtype).max + 1)
    if len(values) == 0 or values.view(f"u{values.itemsize}").max() < limit:
        return
    place = int(np.argmax((values < 0) | (values >= feature.cardinality)))
    row = first_row + ids.sample_of(place)
    if values[place] < 0:
        fault = "is negative; ids start at 0"
    elif feature.cardinality == UNKNOWN_CARDINALITY:
        fault = f"is too large; ids are below {UNKNOWN_CARDINALITY}"
    else:
        fault = f"is not below its cardinality {feature.cardinality}"
    raise FeatureSpecError(
        f"{path}: row {row}: id {values[place]} of {feature.name!r} {fault}. The file is corrupt, its dtype is wrong, "
        "or it belongs to another feature spec."
    )


def check_finite(numerical: np.ndarray, names: list[str], *, path: Path | str, first_row: int) -> None:
    """Raises FeatureSpecError naming the first numerical that is NaN or infinite.

    Args:
      numerical: [n, len(names)] of any number type, contiguous.
      names: names of the columns.
      path: file of the numericals, for the message.
      first_row: row of the first sample.
    """
    if numerical.dtype.kind != "f" or numerical.size == 0:
        return
    exponent = _EXPONENT[numerical.dtype.itemsize]
    if (np.ascontiguousarray(numerical).view(exponent.dtype) & exponent).max() != exponent:
        return
    row, column = np.argwhere(~np.isfinite(numerical))[0]
    raise FeatureSpecError(
        f"{path}: row {first_row + row}: {names[column]!r} is {numerical[row, column]}, which no model can be trained "
        "on. Write 0.0 where a number is missing."
    )


def number_type_doubt(numerical: np.ndarray) -> str | None:
    """Why numbers read as int32 look like float32, or the other way round; None where they look right.

    As int32, every float32 but 0 and the smallest ones is beyond 2**24. As float32, every int32 up to 2**23 is below
    2**-126. Most numbers of a click log are neither.

    Args:
      numerical: numbers of any type; types other than int32 and float32 are never in doubt.
    """
    if numerical.dtype == np.int32:
        odd, limit, other = np.abs(numerical.astype(np.int64)) > 1 << 24, "beyond 2**24", "float32"
    elif numerical.dtype == np.float32:
        odd, limit, other = (numerical != 0) & (np.abs(numerical) < np.float32(2.0**-126)), "below 2**-126", "int32"
    else:
        return None
    if 2 * np.count_nonzero(odd) <= np.count_nonzero(numerical):
        return None
    number = numerical[odd][:1]
    return (
        f"most numericals, read as {numerical.dtype}, are {limit}, such as {number[0]}, which is "
        f"{number.view(other)[0]} in {other}"
    )


def checked_labels(label: np.ndarray, path: Path | str, first_row: int) -> np.ndarray:
    """Labels [n] of any number type as bool [n]. Raises FeatureSpecError for the first label other than 0 and 1."""
    if label.dtype == np.bool_:
        return label
    good = (label == 0) | (label == 1)
    if not good.all():
        row = int(np.argmin(good))
        raise FeatureSpecError(
            f"{path}: row {first_row + row}: {label[row]}, but a label is 0 or 1. Correct it; if "
            "this column is not the label, correct the feature spec."
        )
    return label.astype(np.bool_)


def cast_numericals(
    numerical: np.ndarray, features: list[Feature], *, where: str, first_row: int
) -> tuple[np.ndarray, int]:
    """Numericals in the dtype of their features.

    Args:
      numerical: [n, numericals] of any number type.
      features: the numericals' features, which have one dtype.
      where: split or file, for the message.
      first_row: row of the first sample.

    Returns:
      (numericals [n, numericals], how many of them were rounded).

    Raises:
      FeatureSpecError: a number is too large for the dtype, or is not an integer where the dtype is one.
    """
    dtype = np.dtype(features[0].dtype)
    if (numerical.dtype, dtype) == (np.float16, np.float32):
        return widen(numerical), 0
    if np.can_cast(numerical.dtype, dtype):
        return numerical.astype(dtype, copy=False), 0
    if (numerical.dtype, dtype) == (np.float32, np.float16):
        halves, num_rounded = narrow(numerical)
        if num_rounded >= 0:
            return halves, num_rounded
    limits = np.finfo(dtype) if dtype.kind == "f" else np.iinfo(dtype)
    bad = (numerical > limits.max) | (numerical < limits.min)
    if dtype.kind != "f":
        bad |= numerical != np.floor(numerical)
    if bad.any():
        row, column = np.argwhere(bad)[0]
        raise FeatureSpecError(
            f"{where}: row {first_row + row}: {features[column].name!r} is {numerical[row, column]}, but {dtype.name} "
            f"has numbers up to {limits.max}. Take logarithms (--dense_log), or choose a layout with wider numbers."
        )
    rounded = numerical.astype(dtype)
    return rounded, int(np.count_nonzero(rounded != numerical))


def checked_batch(
    batch: Batch, spec: FeatureSpec, *, split: str, first_row: int, path: Callable[[Feature], Path]
) -> tuple[Batch, int]:
    """A batch that a writer can write: every feature of the spec, in shape and in range.

    Args:
      batch: parts of any number type.
      spec: spec of the destination.
      split: name of the split, for messages.
      first_row: row of the first sample.
      path: function that returns the file of a feature, for messages.

    Returns:
      (batch, how many numericals were rounded). The batch has label bool [n], numerical [n, numericals] in the spec's
      dtype, and the ids of every categorical feature in the spec's order, with row_lengths for multi-hot features only.

    Raises:
      FeatureSpecError: a part is missing, has another number of samples or ids, or holds a number that is not allowed.
    """
    rows, where = batch.num_samples, f"{split}: row {first_row}"
    label = checked_labels(_shaped(where, "label", values=batch.label, shape=(rows,)), split, first_row)
    numerical, num_rounded = None, 0
    if spec.numerical:
        numerical = _shaped(where, "numerical", values=batch.numerical, shape=(rows, len(spec.numerical)))
        check_finite(numerical, [feature.name for feature in spec.numerical], path=split, first_row=first_row)
        numerical, num_rounded = cast_numericals(numerical, spec.numerical, where=split, first_row=first_row)
    categorical = {}
    for feature in spec.categorical:
        ids = batch.categorical.get(feature.name)
        if ids is None:
            _shaped(where, feature.name, values=None, shape=())
        ids = _with_hotness(ids, feature, rows=rows, split=split, first_row=first_row)
        check_ids(ids, feature, path=path(feature), first_row=first_row)
        categorical[feature.name] = ids
    return Batch(label, numerical, categorical), num_rounded


def _shaped(where: str, name: str, *, values: np.ndarray | None, shape: tuple[int, ...]) -> np.ndarray:
    if values is None:
        raise FeatureSpecError(f"{where}: the source has no {name!r}, which the spec asks for.")
    if values.shape != shape:
        raise FeatureSpecError(f"{where}: {name!r} has shape {values.shape}, expected {shape}.")
    return values


def _with_hotness(ids: Ids, feature: Feature, *, rows: int, split: str, first_row: int) -> Ids:
    """The ids, with row lengths if and only if the feature is multi-hot. Checks the number of ids of each sample."""
    where, lengths = f"{split}: row {first_row}", ids.row_lengths
    if feature.ragged:
        lengths = np.ones(len(ids.values), np.int32) if lengths is None else lengths
        _shaped(where, feature.name, values=lengths, shape=(rows,))
        if (lengths < 0).any():
            raise FeatureSpecError(f"{where}: {feature.name!r} has a sample with {lengths.min()} ids.")
        _shaped(where, feature.name, values=ids.values, shape=(int(lengths.sum()),))
        return Ids(ids.values, lengths)
    if lengths is None and feature.hotness != 1:
        lengths = np.ones(rows, np.int32)
    if lengths is not None and not (good := lengths == feature.hotness).all():
        row = int(np.argmin(good))
        raise FeatureSpecError(
            f"{split}: row {first_row + row}: {lengths[row]}, but {feature.name!r} has {feature.hotness} "
            f"id{'s' * (feature.hotness > 1)} a sample. Declare it ragged if samples differ."
        )
    _shaped(where, feature.name, values=ids.values, shape=(rows * feature.hotness,))
    return Ids(ids.values, lengths if feature.hotness > 1 else None)
