"""How often each value of one column occurs, exactly. Memory follows the distinct values, never the rows."""

import numpy as np

from criteo_prep.compiled import compiled

_SPREAD = np.uint64(0x9E3779B97F4A7C15)  # see encode.py
_FIRST_BITS = 10


class ValueCounts:
    """Counts of the values added so far: a hash table with open addressing that doubles when it is half full.

    It takes 24 to 48 bytes per distinct value, and half as much again while it grows.
    """

    def __init__(self) -> None:
        self._bits = _FIRST_BITS
        self._values = np.zeros(1 << self._bits, np.uint32)
        self._counts = np.zeros(1 << self._bits, np.int64)  # 0: the slot is free
        self._distinct = 0

    @property
    def num_slots(self) -> int:
        return len(self._values)

    def add(self, values: np.ndarray, missing: np.ndarray) -> None:
        """Counts the values of some rows.

        Args:
          values: uint32 [n].
          missing: bool [n]; a row with a missing mark is not counted.
        """
        done = 0
        while True:
            done, self._distinct = _add(values, missing, done, self._bits, self._values, self._counts, self._distinct)
            if done == len(values):
                return
            self._grow()

    def result(self) -> tuple[np.ndarray, np.ndarray]:
        """(values uint32 [distinct], counts int64 [distinct]), in no particular order."""
        used = self._counts > 0
        return self._values[used], self._counts[used]

    def _grow(self) -> None:
        old_values, old_counts = self._values, self._counts
        self._bits += 1
        self._values = np.zeros(1 << self._bits, np.uint32)
        self._counts = np.zeros(1 << self._bits, np.int64)
        _move(old_values, old_counts, self._bits, self._values, self._counts)


@compiled
def _add(values, missing, start, bits, slot_values, slot_counts, distinct):
    """Counts values[start:] in the 2^bits slots until half of them are used. Returns (rows done, distinct values)."""
    shift = np.uint64(64 - bits)
    last = slot_values.size - 1
    limit = slot_values.size // 2
    for i in range(start, values.size):
        if missing[i]:
            continue
        value = values[i]
        slot = np.int64((np.uint64(value) * _SPREAD) >> shift)
        while slot_counts[slot] != 0 and slot_values[slot] != value:
            slot = (slot + 1) & last
        if slot_counts[slot] == 0:
            if distinct == limit:
                return i, distinct
            distinct += 1
            slot_values[slot] = value
        slot_counts[slot] += 1
    return values.size, distinct


@compiled
def _move(values, counts, bits, slot_values, slot_counts):
    """Puts the used slots of one table into another, empty one of 2^bits slots."""
    shift = np.uint64(64 - bits)
    last = slot_values.size - 1
    for i in range(values.size):
        if counts[i] == 0:
            continue
        slot = np.int64((np.uint64(values[i]) * _SPREAD) >> shift)
        while slot_counts[slot] != 0:
            slot = (slot + 1) & last
        slot_values[slot] = values[i]
        slot_counts[slot] = counts[i]
