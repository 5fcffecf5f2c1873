"""The numerical rule (schema.log_numerical) by table look-up: the same bits, faster.

The results are float16, which has few values, so the rule is a staircase. A table holds the result for every small
integer; for larger integers, a list holds the integers where the result changes. The rule itself makes both.
"""

import functools

import numpy as np

from criteo_prep.compiled import compiled
from criteo_prep.preprocess.parse.fields import MAX_DIGITS
from criteo_prep.schema import NUM_NUMERICAL, log_numerical

_TABLE_SIZE = 1 << 15
_OFFSET = 3  # table[x + 3] is the result for x; the result for a smaller x is 0.0
_LARGEST = 10**MAX_DIGITS


def log_numbers(numbers: np.ndarray, missing: np.ndarray) -> np.ndarray:
    """The numerical rule on parsed rows.

    Args:
      numbers: int64 [n, 13], 0 where the number is missing.
      missing: uint64 [n], bit 1 + column says whether the number is missing; see tsv.Rows.

    Returns:
      float16 [n, 13].
    """
    table, starts, steps = _staircase()
    out = np.empty(numbers.shape, np.uint16)
    _look_up(numbers, missing, table, starts, steps, out)
    return out.view(np.float16)


@functools.cache
def _staircase() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(result for each small integer, larger integers where the result changes, the results from there on).

    Results are uint16, the bits of a float16.
    """
    small = np.arange(-_OFFSET, _TABLE_SIZE - _OFFSET)
    table = _rule(small)
    first, last = _rule(np.array([small[-1], _LARGEST]))
    steps = np.arange(first, last + 1, dtype=np.uint16)  # positive float16 in ascending order have ascending bits
    low, high = np.full(len(steps), small[-1]), np.full(len(steps), _LARGEST)
    while np.any(low < high):  # bisection: the least x with rule(x) >= step
        middle = (low + high) // 2
        enough = _rule(middle) >= steps
        high = np.where(enough, middle, high)
        low = np.where(enough, low, middle + 1)
    return table, low, steps


def _rule(numbers: np.ndarray) -> np.ndarray:
    return log_numerical(numbers, np.zeros(numbers.shape, bool)).view(np.uint16)


@compiled
def _look_up(numbers, missing, table, starts, steps, out):
    """Fills out, uint16 [n, 13]: the bits of the result for each number, 0 where the number is missing."""
    for row in range(numbers.shape[0]):
        absent = missing[row] >> np.uint64(1)
        for column in range(NUM_NUMERICAL):
            place = numbers[row, column] + _OFFSET
            if place < 0:
                value = np.uint16(0)
            elif place < _TABLE_SIZE:
                value = table[place]
            else:
                value = steps[np.searchsorted(starts, place - _OFFSET, side="right") - 1]
            out[row, column] = np.uint16(0) if (absent >> np.uint64(column)) & np.uint64(1) else value
