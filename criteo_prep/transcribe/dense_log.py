"""The numerical rule (schema.log_numerical) for raw numbers of any type, with a table for the small integers."""

import functools

import numpy as np

from criteo_prep.schema import log_numerical

_SIZE = 1 << 15
_FIRST = -3  # its logarithm, 0, is what all integers below have, too


def log_of(numerical: np.ndarray) -> np.ndarray:
    """float16 logarithms of integers or floats of any shape, none of which is missing."""
    if numerical.dtype.kind not in "iu":
        return _rule(numerical)
    logs = _table().take(np.subtract(numerical, _FIRST, dtype=np.int64), mode="clip")
    large = numerical >= _FIRST + _SIZE
    if large.any():
        logs[large] = _rule(numerical[large])
    return logs


@functools.cache
def _table() -> np.ndarray:
    return _rule(np.arange(_FIRST, _FIRST + _SIZE))


def _rule(numbers: np.ndarray) -> np.ndarray:
    return log_numerical(numbers, np.zeros(numbers.shape, np.bool_))
