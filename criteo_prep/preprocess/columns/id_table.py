"""Values of one column -> ids, by the column's vocabulary."""

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from criteo_prep.feature_spec import minimal_dtype
from criteo_prep.preprocess.columns import hash_table, vocabulary
from criteo_prep.preprocess.columns.rank_bitmap import RankBitmap


class IdTable:
    """A vocabulary in a form that finds the id of a value; many threads may use it at once.

    It is a hash table of 16 to 32 bytes per value; or, for many values, a bitmap that numbers the values, and an id of
    4 bytes for each.

    Args:
      chunks: called twice at most; returns the vocabulary's values, uint32 [n] each, in the order of their ids.
      num_values: number of values in the vocabulary.
      cap: largest cardinality, or None; see vocabulary.CAP_RULE.
    """

    def __init__(self, chunks: Callable[[], Iterable[np.ndarray]], num_values: int, cap: int | None = None):
        self.cardinality = vocabulary.capped_cardinality(num_values, cap)
        self.dtype = np.dtype(minimal_dtype(self.cardinality))
        self._id_of_zero = 0  # kept apart, because a 0 in the columns nearly always means missing
        self._members = RankBitmap() if num_values > hash_table.MAX_VALUES else None
        if self._members:
            for values in chunks():
                self._members.add(values[values != 0])
            self._members.index()
            self._table = np.zeros(self._members.num_values, np.int32)  # the id by rank
        else:
            bits = max(1, int(2 * num_values).bit_length())
            self._table = np.zeros(1 << bits, np.uint64)  # see hash_table.py; the number is the id
        first = 1
        for values in chunks():
            self._put(values, vocabulary.capped(np.arange(first, first + len(values)), cap).astype(np.int32))
            first += len(values)

    @classmethod
    def load(cls, path: str | Path, cap: int | None = None) -> "IdTable":
        """The table of a vocabulary file; raises what vocabulary.read_vocabulary raises."""
        chunks = lambda: (values for values, _ in vocabulary.read_vocabulary(path, cap))  # noqa: E731
        return cls(chunks, vocabulary.num_kept(path), cap)

    def encode(self, values: np.ndarray, zero_rows: np.ndarray) -> np.ndarray:
        """The ids of a block of rows: 0 for a missing value and for a value that has no id.

        Args:
          values: uint32 [n], 0 for a missing value.
          zero_rows: int64 [k], rows of the block whose value is 0 and not missing.

        Returns:
          Ids [n], of the smallest dtype that the vocabulary's cardinality allows.
        """
        ids = np.empty(len(values), self.dtype)
        if self._members:
            self._members.look_up(values, self._table, ids)
        else:
            hash_table.look_up(values, self._table, ids)
        ids[zero_rows] = self._id_of_zero
        return ids

    def _put(self, values: np.ndarray, ids: np.ndarray) -> None:
        used = values != 0
        self._id_of_zero = int(ids[~used][0]) if not used.all() else self._id_of_zero
        if self._members:
            self._members.put(values[used], ids[used], self._table)
        else:
            hash_table.insert(values[used], ids[used], self._table)
