"""Values of one column (or of columns with one vocabulary) -> codes: small numbers in the order of first occurrence.

    code 0        missing
    code c > 0    the c-th different value

Codes take the place of values between the two passes over a column: the first pass counts codes, the second turns each
code into an id by one look-up in an array. So every value is hashed once.

Text is coded by polars (a Categorical with categories of its own), integers by an open hash table.
"""

import numpy as np

from criteo_prep.compiled import compiled

_FIRST_SLOTS = 1 << 12
TEXT_BYTES = 220  # memory of a distinct text next to its bytes: code, count, sorting, id; measured with 3 M values
INTEGER_BYTES = 90  # the same of an integer
_SPREAD = np.uint64(0x9E3779B97F4A7C15)


class TextCodes:
    """The codes of text values.

    Args:
      values: polars Series of the values that have the first codes, in order.
    """

    def __init__(self, values=None):
        import polars

        self._type = polars.Categorical(polars.Categories.random())
        self._anchor = polars.Series([], dtype=polars.String).cast(self._type)  # polars forgets categories without user
        self.num_values = self._text_bytes = 0
        if values is not None:
            for start in range(0, len(values), 1 << 16):
                self.codes(values[start : start + (1 << 16)])

    def codes(self, values) -> np.ndarray:
        """uint32 [n], the codes of a polars Series of text; null has code 0."""
        known = self.num_values
        coded = values.cast(self._type)
        codes = coded.to_physical().fill_null(0xFFFFFFFF).to_numpy() + np.uint32(1)  # the code of null wraps to 0
        self.num_values = max(known, int(codes.max(initial=0)))
        if self.num_values > known:
            self._text_bytes += values.filter(codes > known).str.len_bytes().sum() or 0
        return codes

    def values(self):
        """polars Series of all values, in the order of their codes."""
        import polars

        codes = polars.Series(np.arange(self.num_values, dtype=np.uint32))
        return codes.cat.to(self._type).cast(polars.String)

    @property
    def memory_bytes(self) -> int:
        return self.num_values * TEXT_BYTES + self._text_bytes


class IntegerCodes:
    """The codes of integers of 64 bits. The arguments are the same as of TextCodes."""

    def __init__(self, values=None):
        self._keys, self._codes = np.zeros(_FIRST_SLOTS, np.int64), np.zeros(_FIRST_SLOTS, np.uint32)
        self.num_values = 0
        if values is not None:
            self.codes(values)

    def codes(self, values) -> np.ndarray:
        """uint32 [n], the codes of a polars Series of Int64; null has code 0."""
        missing = values.is_null().to_numpy() if values.null_count() else np.zeros(len(values), bool)
        numbers = np.ascontiguousarray(values.fill_null(0).to_numpy())
        codes, done = np.empty(len(numbers), np.uint32), 0
        while True:
            done, self.num_values = _code(numbers, missing, done, self._keys, self._codes, self.num_values, codes)
            if done == len(numbers):
                return codes
            keys, old_codes = np.zeros(2 * len(self._keys), np.int64), np.zeros(2 * len(self._keys), np.uint32)
            _move(self._keys, self._codes, keys, old_codes)
            self._keys, self._codes = keys, old_codes

    def values(self):
        """polars Series of all values, in the order of their codes."""
        import polars

        used = np.flatnonzero(self._codes)
        values = np.empty(self.num_values, np.int64)
        values[self._codes[used] - 1] = self._keys[used]
        return polars.Series(values)

    @property
    def memory_bytes(self) -> int:
        return self.num_values * INTEGER_BYTES


@compiled
def _slot(value, bits_away):
    """The slot where the search for a value begins; bits_away: 64 - log2(number of slots)."""
    mixed = np.uint64(value) ^ (np.uint64(value) >> np.uint64(32))
    return np.int64((mixed * _SPREAD) >> bits_away)


@compiled
def _bits_away(num_slots):
    bits = 64
    while num_slots > 1:
        num_slots >>= 1
        bits -= 1
    return np.uint64(bits)


@compiled
def _code(values, missing, start, keys, codes, num_values, out):
    """Codes values[start:] until half of the slots are used. Returns (values done, number of different values)."""
    bits, last = _bits_away(keys.size), keys.size - 1
    for i in range(start, values.size):
        if missing[i]:
            out[i] = 0
            continue
        slot = _slot(values[i], bits)
        while codes[slot] != 0 and keys[slot] != values[i]:
            slot = (slot + 1) & last
        if codes[slot] == 0:
            if num_values >= keys.size // 2:
                return i, num_values
            num_values += 1
            keys[slot], codes[slot] = values[i], np.uint32(num_values)
        out[i] = codes[slot]
    return values.size, num_values


@compiled
def _move(old_keys, old_codes, keys, codes):
    """Puts the used slots of one table into another table, which is empty."""
    bits, last = _bits_away(keys.size), keys.size - 1
    for i in range(old_keys.size):
        if old_codes[i] != 0:
            slot = _slot(old_keys[i], bits)
            while codes[slot] != 0:
                slot = (slot + 1) & last
            keys[slot], codes[slot] = old_keys[i], old_codes[i]
