"""The numerical rule (schema.log_numerical) for raw numbers of any type, with a table for small integers."""

import functools

import numpy as np

from criteo_prep.compiled import compiled
from criteo_prep.schema import log_numerical

_TABLE_SIZE = 1 << 15
_FIRST = -3  # the rule gives 0 for this integer and for every smaller one


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
