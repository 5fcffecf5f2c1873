"""Where a value stands in a hash table of 2**n slots: shared by counting and encoding."""

import numpy as np

from criteo_prep.compiled import compiled

# A multiplicative hash: the top bits of value * 2^64 / golden ratio spread both hashes and small integers.
_SPREAD = np.uint64(0x9E3779B97F4A7C15)


@compiled
def slot_of(value, shift):
    """Where the search for a value begins; shift_of the table's size says how many slots there are."""
    return np.int64((np.uint64(value) * _SPREAD) >> shift)


@compiled
def shift_of(num_slots):
    """64 - log2(num_slots)."""
    shift = 64
    while num_slots > 1:
        num_slots >>= 1
        shift -= 1
    return np.uint64(shift)
