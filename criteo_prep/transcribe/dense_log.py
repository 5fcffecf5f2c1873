"""The numerical rule (schema.log_numerical) for raw numbers of any type, with a table for small integers."""

import functools

import numpy as np

from criteo_prep.compiled import compiled
from criteo_prep.feature_spec import FeatureSpec, FeatureSpecError
from criteo_prep.schema import log_numerical

_TABLE_SIZE = 1 << 15
_FIRST = -3  # the rule gives 0 for this integer and for every smaller one
DENSE_LOG = "dense_log"  # key of a feature spec's metadata


def takes_log(spec: FeatureSpec) -> bool:
    """Whether a trainer takes log(x + 3) of the numericals of a dataset: `metadata: {dense_log: true}` says so.

    Raises:
      FeatureSpecError: the numericals are integers, and the metadata does not say whether they are raw numbers.
    """
    stated = spec.metadata.get(DENSE_LOG) if isinstance(spec.metadata, dict) else None
    integers = [feature for feature in spec.numerical if np.dtype(feature.dtype).kind in "iu"]
    if type(stated) is not bool and (stated is not None or integers):
        found = f"metadata: {DENSE_LOG} is {stated!r}" if stated is not None else f"{integers[0].name!r} is an integer"
        raise FeatureSpecError(
            f"{spec.path}: {found}. Write `{DENSE_LOG}: true` into the metadata to train on log(x + 3), or false to "
            "train on the numbers as they are."
        )
    return bool(stated)


def log_of(numerical: np.ndarray) -> np.ndarray:
    """float16 logarithms of integers or floats of any shape; no number is missing."""
    if numerical.dtype.kind not in "iu":
        return _rule(numerical)
    numerical = np.ascontiguousarray(numerical)
    logs = np.empty(numerical.shape, np.float16)
    if _look_up(numerical.reshape(-1), _table().view(np.uint16), _FIRST, logs.view(np.uint16).reshape(-1)):
        large = numerical >= _FIRST + _TABLE_SIZE
        logs[large] = _rule(numerical[large])
    return logs


@functools.cache
def _table() -> np.ndarray:
    return _rule(np.arange(_FIRST, _FIRST + _TABLE_SIZE))


@compiled
def _look_up(numbers, table, first, logs):
    """logs[i] = table[numbers[i] - first] for integers [n]; table[0] for numbers below `first`.

    Returns:
      How many numbers are beyond the table; their logs are not right.
    """
    num_beyond = 0
    last = first + table.size - 1
    for i in range(numbers.size):
        num_beyond += numbers[i] > last
        logs[i] = table[min(max(numbers[i], first), last) - first]
    return num_beyond


def _rule(numbers: np.ndarray) -> np.ndarray:
    return log_numerical(numbers, np.zeros(numbers.shape, np.bool_))
