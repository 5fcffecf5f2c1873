"""A field of a row: text in, number out. What is a number, and what a value, stands here.

A field of the usual form (an integer of up to 7 digits, 8 hexadecimal digits, nothing) is read as one 64-bit word,
without a loop over its characters; the loop takes all others. Beyond the words, no bounds are checked: every loop stops
at a byte that is no digit, and the text ends in LF.
"""

import numpy as np

from criteo_prep.compiled import compiled
from criteo_prep.preprocess.machine_words import load_word, trailing_zeros

MAX_DIGITS = 18  # every such integer fits int64
TAB, LF, CR, MINUS, ZERO = 9, 10, 13, 45, 48
NOT_HEX = 255
HEX = np.full(256, NOT_HEX, np.uint8)  # byte -> what the hexadecimal digit stands for
for _digit in range(16):
    HEX[ord(f"{_digit:x}")] = HEX[ord(f"{_digit:X}")] = _digit

# Constants for eight bytes at a time.
_EACH = 0x0101010101010101
_HIGH, _LOW7, _CASE = (np.uint64(_EACH * byte) for byte in (0x80, 0x7F, 0x20))
_NIBBLE, _ONE = np.uint64(_EACH * 0x0F), np.uint64(_EACH)
_FROM_0, _AFTER_9 = np.uint64(_EACH * (0x80 - 0x30)), np.uint64(_EACH * (0x80 - 0x3A))
_FROM_A, _AFTER_F = np.uint64(_EACH * (0x80 - 0x61)), np.uint64(_EACH * (0x80 - 0x67))
_BYTES02, _BYTES0 = np.uint64(0x00FF00FF00FF00FF), np.uint64(0x000000FF000000FF)
_LOW16 = np.uint64(0x0000FFFF0000FFFF)
_MUL_HIGH, _MUL_LOW = np.uint64(100 + (1000000 << 32)), np.uint64(1 + (10000 << 32))


@compiled
def short_number(text, position):
    """Reads 0 to 7 digits and a tab, as one word. Returns (number, position of the tab), or end -1 for all else."""
    if position + 8 > text.size:
        return np.int64(0), np.int64(-1)
    word = load_word(text, position)
    low = word & _LOW7
    other = ~((low + _FROM_0) & ~(low + _AFTER_9) & ~word) & _HIGH
    if other == 0:
        return np.int64(0), np.int64(-1)
    bits = trailing_zeros(other) & np.uint64(56)  # 8 x number of digits
    if (word >> bits) & np.uint64(255) != TAB:
        return np.int64(0), np.int64(-1)
    digits = ((word & _NIBBLE) << (np.uint64(56) - bits)) << np.uint64(8)  # right-aligned, zeros before them
    digits = digits * np.uint64(10) + (digits >> np.uint64(8))
    number = ((digits & _BYTES0) * _MUL_HIGH + ((digits >> np.uint64(16)) & _BYTES0) * _MUL_LOW) >> np.uint64(32)
    return np.int64(number), position + np.int64(bits >> np.uint64(3))


@compiled
def any_number(text, position):
    """Reads 0 to MAX_DIGITS digits and a tab. Returns (number, position of the tab), or end -1 for all else."""
    start = position
    number = np.int64(0)
    digit = np.int64(text[position]) - ZERO
    while 0 <= digit <= 9:
        number = number * 10 + digit
        position += 1
        digit = np.int64(text[position]) - ZERO
    good = text[position] == TAB and position - start <= MAX_DIGITS
    return number, position if good else np.int64(-1)


@compiled
def full_value(text, position, last):
    """Reads 8 hexadecimal digits and the byte `last`, as one word. Returns (value, its position), or end -1."""
    if position + 9 > text.size or text[position + 8] != last:
        return np.uint32(0), np.int64(-1)
    word = load_word(text, position)
    low, letter = word & _LOW7, (word | _CASE) & _LOW7
    good = ((low + _FROM_0) & ~(low + _AFTER_9)) | ((letter + _FROM_A) & ~(letter + _AFTER_F))
    if good & ~word & _HIGH != _HIGH:
        return np.uint32(0), np.int64(-1)
    digits = (word & _NIBBLE) + np.uint64(9) * ((word >> np.uint64(6)) & _ONE)
    pairs = ((digits & _BYTES02) << np.uint64(4)) | ((digits >> np.uint64(8)) & _BYTES02)
    fours = ((pairs & _LOW16) << np.uint64(8)) | ((pairs >> np.uint64(16)) & _LOW16)
    return np.uint32(((fours & np.uint64(0xFFFF)) << np.uint64(16)) | (fours >> np.uint64(32))), position + 8


@compiled
def any_value(text, position, hex_digits, last):
    """Reads 0 to 8 hexadecimal digits and the byte `last`, or CR LF where that is LF. Returns (value, position after
    the digits), or end -1 for all else."""
    start = position
    value = np.uint32(0)
    digit = hex_digits[text[position]]
    while digit != NOT_HEX:
        value = np.uint32((value << np.uint32(4)) | np.uint32(digit))
        position += 1
        digit = hex_digits[text[position]]
    ends = text[position] == last or (last == LF and text[position] == CR and text[position + 1] == LF)
    return value, position if ends and position - start <= 8 else np.int64(-1)
