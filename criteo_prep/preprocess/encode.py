"""Values of one column to ids, by a vocabulary. (The numericals' rule is schema.log_numerical.)"""

import numpy as np

from criteo_prep.compiled import compiled
from criteo_prep.feature_spec import minimal_dtype
from criteo_prep.preprocess.threshold import Vocabulary

# A multiplicative hash: the top bits of value * 2^64 / golden ratio spread both hashes and small integers.
_SPREAD = np.uint64(0x9E3779B97F4A7C15)


class IdTable:
    """A vocabulary made ready for looking up: a hash table with open addressing, at most half full.

    It takes 16 to 32 bytes per value of the vocabulary, and may be used from many threads.
    """

    def __init__(self, vocabulary: Vocabulary):
        self.dtype = np.dtype(minimal_dtype(vocabulary.cardinality))
        self._bits = max(1, int(2 * len(vocabulary.values)).bit_length())
        self._values = np.zeros(1 << self._bits, np.uint32)
        self._ids = np.zeros(1 << self._bits, np.int32)  # 0: the slot is free
        _insert(vocabulary.values, self._bits, self._values, self._ids)

    def encode(self, values: np.ndarray, missing: np.ndarray) -> np.ndarray:
        """The ids of some rows: 0 for a missing value and for one that has no id.

        Args:
          values: uint32 [n].
          missing: bool [n]; the value under a missing mark does not count.

        Returns:
          [n] of the smallest dtype that the vocabulary's cardinality allows.
        """
        ids = np.empty(len(values), self.dtype)
        _look_up(values, missing, self._bits, self._values, self._ids, ids)
        return ids


@compiled
def _insert(values, bits, slot_values, slot_ids):
    """Puts values[i] -> id i + 1 into the table of 2^bits slots."""
    shift = np.uint64(64 - bits)
    last = slot_values.size - 1
    for i in range(values.size):
        slot = np.int64((np.uint64(values[i]) * _SPREAD) >> shift)
        while slot_ids[slot] != 0:
            slot = (slot + 1) & last
        slot_values[slot] = values[i]
        slot_ids[slot] = i + 1


@compiled
def _look_up(values, missing, bits, slot_values, slot_ids, ids):
    """Fills ids from the table of 2^bits slots."""
    shift = np.uint64(64 - bits)
    last = slot_values.size - 1
    for i in range(values.size):
        found = np.int32(0)
        if not missing[i]:
            value = values[i]
            slot = np.int64((np.uint64(value) * _SPREAD) >> shift)
            found = slot_ids[slot]
            while found != 0 and slot_values[slot] != value:
                slot = (slot + 1) & last
                found = slot_ids[slot]
        ids[i] = found
