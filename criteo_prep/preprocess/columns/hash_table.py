"""A hash table with open addressing, for columns with few distinct values: value -> count, or value -> id.

    slots      uint64 [2^n]    number << 32 | value; 0: the slot is free

The table is at most half full, so it takes 16 to 32 bytes per value. The search for a value begins at slot_of(value)
and continues in the next slot while another value is found. The value 0 without a number looks like a free slot.
Loops ask for the cache lines of later values beforehand, because each access would wait for memory.
"""

import numpy as np

from criteo_prep.compiled import compiled
from criteo_prep.intrinsics import prefetch

MAX_VALUES = 1 << 21  # distinct values up to which a hash table is used; rank_bitmap.py serves larger columns
NUMBER_SHIFT = np.uint64(32)
_AHEAD = 16  # values between asking for a cache line and using it
# A multiplicative hash: the top bits of value * 2^64 / golden ratio spread both hashes and small integers.
_SPREAD = np.uint64(0x9E3779B97F4A7C15)


@compiled
def slot_of(value, shift):
    """The slot where the search for a value begins; shift: shift_of(number of slots)."""
    return np.int64((np.uint64(value) * _SPREAD) >> shift)


@compiled
def shift_of(num_slots):
    """64 - log2(num_slots)."""
    shift = 64
    while num_slots > 1:
        num_slots >>= 1
        shift -= 1
    return np.uint64(shift)


@compiled
def count_values(values, start, slots, distinct):
    """Counts values[start:] in the slots until half of the slots are used. Returns (values done, distinct values)."""
    shift = shift_of(slots.size)
    last = slots.size - 1
    limit = slots.size // 2
    one = np.uint64(1) << NUMBER_SHIFT
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
def move(old_slots, slots):
    """Puts the used slots of one table into another table, which is empty."""
    shift = shift_of(slots.size)
    last = slots.size - 1
    for i in range(old_slots.size):
        if old_slots[i] == 0:
            continue
        slot = slot_of(np.uint32(old_slots[i]), shift)
        while slots[slot] != 0:
            slot = (slot + 1) & last
        slots[slot] = old_slots[i]


@compiled
def insert(values, ids, slots):
    """Puts values[i] -> ids[i] into the table; no value may be in the table already."""
    shift = shift_of(slots.size)
    last = slots.size - 1
    for i in range(values.size):
        slot = slot_of(values[i], shift)
        while slots[slot] != 0:
            slot = (slot + 1) & last
        slots[slot] = np.uint64(ids[i]) << NUMBER_SHIFT | np.uint64(values[i])


@compiled
def look_up(values, slots, ids):
    """Fills ids [n] from the table; a value that is not in the table has id 0."""
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
        ids[i] = np.int32(word >> NUMBER_SHIFT)
