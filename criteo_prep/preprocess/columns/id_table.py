"""Values of one column to ids, by a vocabulary. (The numericals' rule is schema.log_numerical.)"""

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from criteo_prep.compiled import compiled
from criteo_prep.feature_spec import minimal_dtype
from criteo_prep.intrinsics import prefetch
from criteo_prep.preprocess.columns import vocabulary
from criteo_prep.preprocess.columns.hash_slots import shift_of, slot_of
from criteo_prep.preprocess.columns.rank_bitmap import RankBitmap

MAX_SMALL = 1 << 21  # values up to which a hash table is used
_AHEAD = 16  # values between asking for a cache line and using it


class IdTable:
    """A vocabulary made ready for looking up; it may be used from many threads.

    A hash table with open addressing, at most half full, of 16 to 32 bytes per value; or, for many values, a bitmap
    that numbers them and 4 bytes per value.

    Args:
      chunks: called twice at most; gives the vocabulary's values, uint32 [n] each, in the order of their ids.
      num_values: how many there are.
      cap: --max_cardinality; see threshold.CAP_RULE.
    """

    def __init__(self, chunks: Callable[[], Iterable[np.ndarray]], num_values: int, cap: int | None = None):
        self.cardinality = vocabulary.capped_cardinality(num_values, cap)
        self.dtype = np.dtype(minimal_dtype(self.cardinality))
        self._id_of_zero = 0  # apart: in the columns 0 stands for missing nearly always
        self._members = RankBitmap() if num_values > MAX_SMALL else None
        if self._members:
            for values in chunks():
                self._members.add(values[values != 0])
            self._members.index()
            self._table = np.zeros(self._members.num_values, np.int32)  # by rank
        else:
            bits = max(1, int(2 * num_values).bit_length())
            self._table = np.zeros(1 << bits, np.uint64)  # id << 32 | value; 0: the slot is free
        first = 1
        for values in chunks():
            self._put(values, vocabulary.capped(np.arange(first, first + len(values)), cap).astype(np.int32))
            first += len(values)

    @classmethod
    def load(cls, path: str | Path, cap: int | None = None) -> "IdTable":
        """Of a vocabulary file; see threshold.read_vocabulary for what it raises."""
        chunks = lambda: (values for values, _ in vocabulary.read_vocabulary(path, cap))  # noqa: E731
        return cls(chunks, vocabulary.num_kept(path), cap)

    def encode(self, values: np.ndarray, zero_rows: np.ndarray) -> np.ndarray:
        """The ids of some rows: 0 for a missing value and for one that has no id.

        Args:
          values: uint32 [n], 0 for a missing value.
          zero_rows: int64 [k]: the rows whose value is 0 and not missing.

        Returns:
          [n] of the smallest dtype that the vocabulary's cardinality allows.
        """
        ids = np.empty(len(values), self.dtype)
        if self._members:
            self._members.look_up(values, self._table, ids)
        else:
            _look_up(values, self._table, ids)
        ids[zero_rows] = self._id_of_zero
        return ids

    def _put(self, values: np.ndarray, ids: np.ndarray) -> None:
        used = values != 0
        self._id_of_zero = int(ids[~used][0]) if not used.all() else self._id_of_zero
        if self._members:
            self._members.put(values[used], ids[used], self._table)
        else:
            _insert(values[used], ids[used], self._table)


@compiled
def _insert(values, ids, slots):
    """Puts values[i] -> ids[i] into the table."""
    shift = shift_of(slots.size)
    last = slots.size - 1
    for i in range(values.size):
        slot = slot_of(values[i], shift)
        while slots[slot] != 0:
            slot = (slot + 1) & last
        slots[slot] = np.uint64(ids[i]) << np.uint64(32) | np.uint64(values[i])


@compiled
def _look_up(values, slots, ids):
    """Fills ids from the table; a value that is not there has id 0."""
    shift = shift_of(slots.size)
    last = slots.size - 1
    for i in range(values.size):
        if i + _AHEAD < values.size:
            prefetch(slots, slot_of(values[i + _AHEAD], shift))
        value = values[i]
        slot = slot_of(value, shift)
        word = slots[slot]
        while word != 0 and np.uint32(word) != value:
            slot = (slot + 1) & last
            word = slots[slot]
        ids[i] = np.int32(word >> np.uint64(32))
