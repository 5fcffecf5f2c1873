"""The numerical rule (schema.log_numerical) for raw numbers of any type, with a table for the small integers."""

import functools

import numpy as np

from criteo_prep.compiled import compiled
from criteo_prep.schema import log_numerical

_SIZE = 1 << 15
_FIRST = -3  # its logarithm, 0, is what all integers below have, too


def log_of(numerical: np.ndarray) -> np.ndarray:
    """float16 logarithms of integers or floats of any shape, none of which is missing."""
    if numerical.dtype.kind not in "iu":
        return _rule(numerical)
    numerical = np.ascontiguousarray(numerical)
    logs = np.empty(numerical.shape, np.float16)
    if _look_up(numerical.reshape(-1), _table().view(np.uint16), _FIRST, logs.view(np.uint16).reshape(-1)):
        large = numerical >= _FIRST + _SIZE
        logs[large] = _rule(numerical[large])
    return logs


@functools.cache
def _table() -> np.ndarray:
    return _rule(np.arange(_FIRST, _FIRST + _SIZE))


@compiled
def _look_up(numbers, table, first, logs):
    """logs[i] = table[numbers[i] - first], integers [n]; table[0] below. Returns how many are beyond the table."""
    beyond = 0
    last = first + table.size - 1
    for i in range(numbers.size):
        beyond += numbers[i] > last
        logs[i] = table[min(max(numbers[i], first), last) - first]
    return beyond


def _rule(numbers: np.ndarray) -> np.ndarray:
    return log_numerical(numbers, np.zeros(numbers.shape, np.bool_))
