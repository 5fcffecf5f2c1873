"""How often each value of one column occurs, exactly. Memory grows with the distinct values, never with the rows.

A column with few distinct values is counted in one pass by a hash table. A column with more is counted in two passes:
the first marks the values that occur in a bitmap of 2^32 bits, which then numbers them; the second counts by number.
"""

from collections.abc import Iterable

import numpy as np

from criteo_prep.preprocess.columns import hash_table
from criteo_prep.preprocess.columns.rank_bitmap import RankBitmap

_FIRST_BITS = 10
_MAX_ROWS = 1 << 31  # rows counted in one hash table, whose counts have 32 bits


class SmallCounts:
    """Counts of the values added so far: a hash table that doubles when it is half full.

    It takes 16 to 32 bytes per distinct value, and half as much again while it grows.
    """

    def __init__(self) -> None:
        self._slots = np.zeros(1 << _FIRST_BITS, np.uint64)  # see hash_table.py; the number is the count
        self._num_rows = 0
        self._full_tables: list[tuple[np.ndarray, np.ndarray]] = []  # (values, counts) of tables that were emptied
        self.num_distinct = 0

    @property
    def num_slots(self) -> int:
        return len(self._slots)

    def add(self, values: np.ndarray) -> None:
        """Counts more values: uint32 [n]."""
        if self._num_rows + len(values) > _MAX_ROWS:
            self._full_tables.append(self._used_slots())
            self._slots[:] = 0
            self.num_distinct = self._num_rows = 0
        self._num_rows += len(values)
        done = 0
        while True:
            done, self.num_distinct = hash_table.count_values(values, done, self._slots, self.num_distinct)
            if done == len(values):
                return
            slots = np.zeros(2 * len(self._slots), np.uint64)
            hash_table.move(self._slots, slots)
            self._slots = slots

    def result(self) -> tuple[np.ndarray, np.ndarray]:
        """(values uint32 [distinct] ascending, counts int64 [distinct])."""
        tables = [*self._full_tables, self._used_slots()]
        values, place = np.unique(np.concatenate([values for values, _ in tables]), return_inverse=True)
        counts = np.zeros(len(values), np.int64)
        np.add.at(counts, place, np.concatenate([counts for _, counts in tables]))
        return values, counts

    def _used_slots(self) -> tuple[np.ndarray, np.ndarray]:
        used = self._slots[self._slots != 0]
        return used.astype(np.uint32), (used >> hash_table.NUMBER_SHIFT).astype(np.int64)


class LargeCounts:
    """Counts by a bitmap: `mark` every value, `index`, `allocate`, then `count` every value again.

    The counts take rank_bitmap.BITMAP_BYTES and 4 bytes per distinct value.
    """

    def __init__(self) -> None:
        self.members = RankBitmap()
        self.counts = np.empty(0, np.uint32)  # by rank, which is by ascending value
        self.num_wraps: dict[int, int] = {}  # rank -> how often the count passed 32 bits

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
        """Sets the count of the value 0, whose rank is 0; `count` counted the missing values, which are 0 too."""
        if self.members.words[0] & np.uint64(1):
            self.num_wraps.pop(0, None)
            self.counts[0] = num_zeros & 0xFFFFFFFF
            if num_zeros >> 32:
                self.num_wraps[0] = num_zeros >> 32


def count_small(blocks: Iterable[np.ndarray], num_zeros: int) -> tuple[np.ndarray, np.ndarray] | None:
    """Counts a column in one pass.

    Args:
      blocks: the column's values, uint32 [n] each; a 0 may stand for a missing value.
      num_zeros: how often the value 0 occurs without being missing.

    Returns:
      (values uint32 [distinct] ascending, counts int64 [distinct]), or None as soon as more than
      hash_table.MAX_VALUES distinct values are found.
    """
    table = SmallCounts()
    for values in blocks:
        table.add(values)
        if table.num_distinct > hash_table.MAX_VALUES:
            return None
    values, counts = table.result()
    if len(values) and values[0] == 0:
        counts[0] = num_zeros
    seen = counts > 0
    return values[seen], counts[seen]
