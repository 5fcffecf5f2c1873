"""The fields of a row: text -> numbers. The rules for a number and for a value stand here.

The usual row has at most 8 characters in each field and is read without branches: its tabs are found 64 bytes at a
time, each field is one 64-bit word, and several words are converted at a time. Loops over the characters read all
other rows. These loops check no bounds: each stops at a byte that is not a digit, and the text ends in LF.
"""

import numpy as np

from criteo_prep.compiled import compiled
from criteo_prep.intrinsics import bytes_equal, count_ones, load_word, trailing_zeros

MAX_DIGITS = 18  # every such integer fits int64
TAB, LF, CR, MINUS, ZERO = 9, 10, 13, 45, 48
NOT_HEX = 255
HEX = np.full(256, NOT_HEX, np.uint8)  # byte -> value of the hexadecimal digit
for _digit in range(16):
    HEX[ord(f"{_digit:x}")] = HEX[ord(f"{_digit:X}")] = _digit

_TABS_AT_A_TIME = 16
ENDS_ROOM = 64 + _TABS_AT_A_TIME  # elements that find_ends may write behind the last end

# Constants for eight bytes at a time.
_EACH = 0x0101010101010101
_HIGH, _LOW7, _CASE = (np.uint64(_EACH * byte) for byte in (0x80, 0x7F, 0x20))
_NIBBLE, _ONE, _ZEROS = (np.uint64(_EACH * byte) for byte in (0x0F, 0x01, ZERO))
_FROM_0, _AFTER_9 = np.uint64(_EACH * (0x80 - 0x30)), np.uint64(_EACH * (0x80 - 0x3A))
_FROM_A, _AFTER_F = np.uint64(_EACH * (0x80 - 0x61)), np.uint64(_EACH * (0x80 - 0x67))
_BYTES02 = np.uint64(0x00FF00FF00FF00FF)
_LOW16, _LOW32 = np.uint64(0x0000FFFF0000FFFF), np.uint64(0xFFFFFFFF)
_ALL = np.uint64(0xFFFFFFFFFFFFFFFF)


@compiled
def find_ends(text, start, num_fields, first, ends):
    """Finds the fields of the row at `start`: field f is text[ends[f] + 1 : ends[f + 1]].

    Args:
      text: uint8 [bytes], ends in LF.
      start: position of the row in the text.
      num_fields: number of fields, the label included.
      first: 0, or 1 for rows without a label, whose field 0 is then empty.
      ends: int64 [1 + num_fields + ENDS_ROOM], filled.

    Returns:
      The start of the next line; 0 where the row has another number of fields, or lies too near to the start or the end
      of the text to be read in words.
    """
    if start < 16:
        return 0
    ends[0] = start - 2
    ends[first] = start - 1
    found = np.uint64(first + 1)
    base = start
    while base + 64 <= text.size and found <= num_fields:
        tabs, newlines = bytes_equal(text, base, np.uint8(TAB)), bytes_equal(text, base, np.uint8(LF))
        tabs &= newlines ^ (newlines - np.uint64(1))  # the tabs before the first newline
        stop = found + count_ones(tabs)
        while found < stop:
            for i in range(np.uint64(_TABS_AT_A_TIME)):
                ends[found + i] = base + np.int64(trailing_zeros(tabs))
                tabs &= tabs - np.uint64(1)
            found += np.uint64(_TABS_AT_A_TIME)
        found = stop
        if newlines:
            newline = base + np.int64(trailing_zeros(newlines))
            ends[num_fields] = newline - (text[newline - 1] == CR)
            return newline + 1 if found == num_fields else 0
        base += 64
    return 0


@compiled
def split_fields(text, ends, words, lengths):
    """Fills words, uint64 [fields], with the 8 characters before the end of each field, and lengths, int64 [fields].

    Returns:
      uint64: bit f says whether field f is empty.
    """
    empty = np.uint64(0)
    for field in range(lengths.size):
        words[field] = load_word(text, ends[field + 1] - 8)
    for field in range(lengths.size):
        lengths[field] = ends[field + 1] - ends[field] - 1
        empty |= np.uint64(lengths[field] == 0) << np.uint64(field)
    return empty


@compiled
def read_short_numbers(words, lengths, numbers):
    """Reads n integers of at most 8 characters: nothing, or an optional minus and digits.

    Args:
      words: uint64 [n or more], see split_fields.
      lengths: int64 [n or more], characters of each field.
      numbers: int64 [n], filled.

    Returns:
      Whether all n fields are such integers; if not, the numbers are not valid.
    """
    wrong = np.uint64(0)
    for i in range(numbers.size):
        half = np.uint64(32 - 4 * lengths[i]) & np.uint64(63)  # shifts are in two steps: one by 64 is undefined
        outside = ~((_ALL << half) << half)
        word = (words[i] & ~outside) | (_ZEROS & outside)
        negative = np.uint64(((word >> half) >> half) & np.uint64(0xFF) == MINUS)
        word ^= ((negative * np.uint64(MINUS ^ ZERO)) << half) << half
        low = word & _LOW7
        wrong |= ~((low + _FROM_0) & ~(low + _AFTER_9) & ~word) & _HIGH
        wrong |= np.uint64(lengths[i] > 8) | np.uint64(np.uint64(lengths[i]) == negative) & negative
        digits = word & _NIBBLE
        pairs = ((digits << np.uint64(3)) + (digits << np.uint64(1)) + (digits >> np.uint64(8))) & _BYTES02
        fours = (pairs << np.uint64(6)) + (pairs << np.uint64(5)) + (pairs << np.uint64(2)) + (pairs >> np.uint64(16))
        fours &= _LOW16
        number = (fours & _LOW32) * np.uint64(10000) + (fours >> np.uint64(32))
        numbers[i] = np.int64((number ^ (np.uint64(0) - negative)) + negative)
    return wrong == 0


@compiled
def read_short_values(words, lengths, values):
    """Reads n values of at most 8 hexadecimal digits into values, uint32 [n]; else as read_short_numbers."""
    wrong = np.uint64(0)
    for i in range(values.size):
        half = np.uint64(32 - 4 * lengths[i]) & np.uint64(63)
        outside = ~((_ALL << half) << half)
        word = (words[i] & ~outside) | (_ZEROS & outside)
        low, letter = word & _LOW7, (word | _CASE) & _LOW7
        good = ((low + _FROM_0) & ~(low + _AFTER_9)) | ((letter + _FROM_A) & ~(letter + _AFTER_F))
        wrong |= ~(good & ~word) & _HIGH | np.uint64(lengths[i] > 8)
        alpha = (word >> np.uint64(6)) & _ONE
        digits = (word & _NIBBLE) + (alpha << np.uint64(3)) + alpha
        pairs = ((digits & _BYTES02) << np.uint64(4)) | ((digits >> np.uint64(8)) & _BYTES02)
        fours = ((pairs & _LOW16) << np.uint64(8)) | ((pairs >> np.uint64(16)) & _LOW16)
        values[i] = np.uint32((fours << np.uint64(16)) | (fours >> np.uint64(32)))
    return wrong == 0


@compiled
def read_number(text, position):
    """Reads 0 to MAX_DIGITS digits and a tab. Returns (number, position of the tab); position -1 for other text."""
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
def read_value(text, position, hex_digits, last):
    """Reads 0 to 8 hexadecimal digits and the byte `last`; CR LF is allowed where `last` is LF.

    Returns:
      (value, position after the digits); position -1 for other text.
    """
    start = position
    value = np.uint32(0)
    digit = hex_digits[text[position]]
    while digit != NOT_HEX:
        value = np.uint32((value << np.uint32(4)) | np.uint32(digit))
        position += 1
        digit = hex_digits[text[position]]
    ends = text[position] == last or (last == LF and text[position] == CR and text[position + 1] == LF)
    return value, position if ends and position - start <= 8 else np.int64(-1)
