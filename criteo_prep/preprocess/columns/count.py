"""How often each value of one column occurs, exactly. Memory follows the distinct values, never the rows.

A column with few distinct values is counted in one pass by a hash table. One with more is counted in two: the first
marks the values that occur in a bitmap of 2^32 bits, which then numbers them, and the second counts by those numbers.
"""

from collections.abc import Iterable

import numpy as np

from criteo_prep.compiled import compiled
from criteo_prep.intrinsics import prefetch
from criteo_prep.preprocess.columns.hash_slots import shift_of, slot_of
from criteo_prep.preprocess.columns.rank_bitmap import RankBitmap

MAX_SMALL = 1 << 21  # distinct values up to which the hash table is used
_FIRST_BITS = 10
_AHEAD = 16  # values between asking for a cache line and using it
_MAX_ROWS = 1 << 31  # rows in a hash table, whose counts have 32 bits
_COUNT_BITS = np.uint64(32)


class SmallCounts:
    """Counts of the values added so far: a hash table with open addressing that doubles when it is half full.

    It takes 16 to 32 bytes per distinct value, and half as much again while it grows.
    """

    def __init__(self) -> None:
        self._slots = np.zeros(1 << _FIRST_BITS, np.uint64)  # count << 32 | value; 0: the slot is free
        self._num_rows = 0
        self._earlier: list[tuple[np.ndarray, np.ndarray]] = []  # emptied tables
        self.num_distinct = 0

    @property
    def num_slots(self) -> int:
        return len(self._slots)

    def add(self, values: np.ndarray) -> None:
        """Counts some values: uint32 [n]."""
        if self._num_rows + len(values) > _MAX_ROWS:
            self._earlier.append(self._table())
            self._slots[:] = 0
            self.num_distinct = self._num_rows = 0
        self._num_rows += len(values)
        done = 0
        while True:
            done, self.num_distinct = _add(values, done, self._slots, self.num_distinct)
            if done == len(values):
                return
            slots = np.zeros(2 * len(self._slots), np.uint64)
            _move(self._slots, slots)
            self._slots = slots

    def result(self) -> tuple[np.ndarray, np.ndarray]:
        """(values uint32 [distinct] ascending, counts int64 [distinct])."""
        tables = [*self._earlier, self._table()]
        values, place = np.unique(np.concatenate([values for values, _ in tables]), return_inverse=True)
        counts = np.zeros(len(values), np.int64)
        np.add.at(counts, place, np.concatenate([counts for _, counts in tables]))
        return values, counts

    def _table(self) -> tuple[np.ndarray, np.ndarray]:
        used = self._slots[self._slots != 0]
        return used.astype(np.uint32), (used >> _COUNT_BITS).astype(np.int64)


class LargeCounts:
    """Counts by a bitmap: `mark` every value, `index`, `allocate`, then `count` every value.

    It takes rank_bitmap.BITMAP_BYTES and 4 bytes per distinct value.
    """

    def __init__(self) -> None:
        self.members = RankBitmap()
        self.counts = np.empty(0, np.uint32)  # by rank, that is by ascending value
        self.num_wraps: dict[int, int] = {}  # rank -> how often its count went past 32 bits

    def mark(self, values: np.ndarray) -> None:
        self.members.add(values)

    def index(self) -> None:
        self.members.index()

    def allocate(self) -> None:
        self.counts = np.zeros(self.members.num_values, np.uint32)

    def count(self, values: np.ndarray) -> None:
        for rank in self.members.count(values, self.counts).tolist():
            self.num_wraps[rank] = self.num_wraps.get(rank, 0) + 1

    def set_zeros(self, num_zeros: int) -> None:
        """Says how often the value 0 occurs, for it also stands for missing values. Its rank is 0."""
        if self.members.words[0] & np.uint64(1):
            self.num_wraps.pop(0, None)
            self.counts[0] = num_zeros & 0xFFFFFFFF
            if num_zeros >> 32:
                self.num_wraps[0] = num_zeros >> 32


def count_small(blocks: Iterable[np.ndarray], num_zeros: int) -> tuple[np.ndarray, np.ndarray] | None:
    """Counts a column in one pass.

    Args:
      blocks: its values, uint32 [n] each; a 0 may stand for a missing value.
      num_zeros: how often the value 0 occurs, not missing.

    Returns:
      (values uint32 [distinct] ascending, counts int64 [distinct]), or None as soon as there are more than MAX_SMALL.
    """
    table = SmallCounts()
    for values in blocks:
        table.add(values)
        if table.num_distinct > MAX_SMALL:
            return None
    values, counts = table.result()
    if len(values) and values[0] == 0:
        counts[0] = num_zeros
    seen = counts > 0
    return values[seen], counts[seen]


@compiled
def _add(values, start, slots, distinct):
    """Counts values[start:] in the slots until half of them are used. Returns (values done, distinct values)."""
    shift = shift_of(slots.size)
    last = slots.size - 1
    limit = slots.size // 2
    one = np.uint64(1) << _COUNT_BITS
    for i in range(start, values.size):
        if i + _AHEAD < values.size:
            prefetch(slots, slot_of(values[i + _AHEAD], shift))
        value = values[i]
        slot = slot_of(value, shift)
        word = slots[slot]
        while word != 0 and np.uint32(word) != value:
            slot = (slot + 1) & last
            word = slots[slot]
        if word == 0:
            if distinct == limit:
                return i, distinct
            distinct += 1
            word = np.uint64(value)
        slots[slot] = word + one
    return values.size, distinct


@compiled
def _move(old, slots):
    """Puts the used slots of one table into another, empty one."""
    shift = shift_of(slots.size)
    last = slots.size - 1
    for i in range(old.size):
        if old[i] == 0:
            continue
        slot = slot_of(np.uint32(old[i]), shift)
        while slots[slot] != 0:
            slot = (slot + 1) & last
        slots[slot] = old[i]
