"""Rows of Criteo's logs: text in, columns of numbers out. The rule of what a good row is stands here, once.

A row is 40 fields with a tab between two: the label (0 or 1), 13 integers (nothing, or an optional minus and 1 to 18
digits), 26 values (nothing, or 1 to 8 hexadecimal digits of either case). It ends in LF, CR LF, or the end of the file.
A field with nothing in it is missing. Whatever else is found makes the whole row bad.
"""

from dataclasses import dataclass

import numpy as np

from criteo_prep.compiled import compiled
from criteo_prep.preprocess.blocks import MAX_LINE_BYTES
from criteo_prep.schema import CATEGORICAL, LABEL, NUM_CATEGORICAL, NUM_NUMERICAL, NUMERICAL

FIELDS = (LABEL, *NUMERICAL, *CATEGORICAL)
NUM_FIELDS = len(FIELDS)
MAX_DIGITS = 18  # every such integer fits int64

# Why a row is bad; the first that holds is the reason. The order is that of the codes in the kernels.
REASONS = ("blank_line", "line_too_long", "too_few_fields", "too_many_fields", "bad_label", "bad_number", "bad_value")
_BLANK, _LONG_LINE, _FEW, _MANY, _LABEL, _NUMBER, _VALUE = range(len(REASONS))

_TAB, _LF, _CR, _MINUS, _ZERO = 9, 10, 13, 45, 48
_NOT_HEX = 255
_HEX = np.full(256, _NOT_HEX, np.uint8)  # byte -> what the hexadecimal digit stands for
for _digit in range(16):
    _HEX[ord(f"{_digit:x}")] = _HEX[ord(f"{_digit:X}")] = _digit


class BadRowError(ValueError):
    """A row of an input file is not what a row must be."""


@dataclass(frozen=True)
class BadRow:
    """A bad row: its line within the block (from 0), the reason's code, and what is wrong with it in words."""

    line: int
    reason: int
    found: str


@dataclass(frozen=True)
class Rows:
    """The good rows of a block, n of them, and what is known of the bad ones.

    Attributes:
      label: bool [n].
      numbers: int64 [n, 13]; numbers_missing: bool [n, 13].
      values: uint32 [26, n], a row per column; values_missing: bool [26, n]. Under a missing mark the value is 0, which
        is also a value that may be there.
      num_lines: lines of the block, good and bad.
      num_bad: int64 [number of reasons].
      first_bad: the first bad row of each reason that occurs.
    """

    label: np.ndarray
    numbers: np.ndarray
    numbers_missing: np.ndarray
    values: np.ndarray
    values_missing: np.ndarray
    num_lines: int
    num_bad: np.ndarray
    first_bad: tuple[BadRow, ...]

    def __len__(self) -> int:
        return len(self.label)


def parse(text: bytes) -> Rows:
    """The rows of `text`, whole lines that all end in LF (see blocks.text_blocks)."""
    assert text.endswith(b"\n") or not text, "a block ends in a newline"
    characters = np.frombuffer(text, np.uint8)
    capacity = int(np.count_nonzero(characters == _LF))
    label = np.empty(capacity, np.bool_)
    numbers = np.empty((capacity, NUM_NUMERICAL), np.int64)
    numbers_missing = np.empty((capacity, NUM_NUMERICAL), np.bool_)
    values = np.empty((NUM_CATEGORICAL, capacity), np.uint32)
    values_missing = np.empty((NUM_CATEGORICAL, capacity), np.bool_)
    num_bad = np.zeros(len(REASONS), np.int64)
    first_bad = np.full((len(REASONS), 4), -1, np.int64)
    rows, lines = _parse_lines(
        characters, _HEX, label, numbers, numbers_missing, values, values_missing, num_bad, first_bad
    )
    return Rows(
        label=label[:rows],
        numbers=numbers[:rows],
        numbers_missing=numbers_missing[:rows],
        values=values[:, :rows],
        values_missing=values_missing[:, :rows],
        num_lines=lines,
        num_bad=num_bad,
        first_bad=tuple(_described(text, code, *first_bad[code].tolist()) for code in np.flatnonzero(num_bad)),
    )


def _described(text: bytes, reason: int, line: int, start: int, end: int, field: int) -> BadRow:
    """Puts into words what is wrong with the line text[start:end]."""
    fields = text[start:end].rstrip(b"\n").removesuffix(b"\r").split(b"\t")
    whole = f"{NUM_FIELDS} fields with a tab between two: {LABEL}, {NUM_NUMERICAL} integers, {NUM_CATEGORICAL} values"
    if reason == _BLANK:
        found = f"the line is empty; expected {whole}"
    elif reason == _LONG_LINE:
        found = f"the line has more than {MAX_LINE_BYTES} bytes; expected {whole}"
    elif reason in (_FEW, _MANY):
        found = f"found {len(fields)} fields; expected {whole}"
    else:
        expected = {
            _LABEL: "0 or 1",
            _NUMBER: f"nothing, or an integer of at most {MAX_DIGITS} digits",
            _VALUE: "nothing, or 1 to 8 hexadecimal digits",
        }[reason]
        content = fields[field]
        shown = repr(content[:32])[1:] + ("..." if len(content) > 32 else "")
        found = f"field {field + 1} ({FIELDS[field]}) is {shown}; expected {expected}"
    return BadRow(line, reason, found)


@compiled
def _parse_lines(text, hex_digits, label, numbers, numbers_missing, values, values_missing, num_bad, first_bad):
    """text: uint8 [bytes], ends in LF. The arrays after it are filled; see Rows. first_bad: int64 [reasons, 4] takes
    (line, start, end, field) of each reason's first row. Returns (good rows, lines)."""
    position = row = line = 0
    while position < text.size:
        field, end = _parse_row(
            text, position, hex_digits, row, label, numbers, numbers_missing, values, values_missing
        )
        if field < 0:
            row += 1
        else:
            reason, end = _why_bad(text, position, field)
            if num_bad[reason] == 0:
                first_bad[reason, 0], first_bad[reason, 1] = line, position
                first_bad[reason, 2], first_bad[reason, 3] = end, field
            num_bad[reason] += 1
        line += 1
        position = end
    return row, line


@compiled
def _parse_row(text, position, hex_digits, row, label, numbers, numbers_missing, values, values_missing):
    """Fills row `row` of the arrays. Returns (-1, start of the next line), or (first field that is wrong, anything).

    No bounds are checked: every loop stops at a byte that is no digit, and the text ends in LF, which is none."""
    digit = np.int64(text[position]) - _ZERO
    if digit < 0 or digit > 1 or text[position + 1] != _TAB:
        return 0, position
    label[row] = digit == 1
    position += 2
    for column in range(NUM_NUMERICAL):
        negative = text[position] == _MINUS
        if negative:
            position += 1
        start = position
        number = np.int64(0)
        digit = np.int64(text[position]) - _ZERO
        while 0 <= digit <= 9:
            number = number * 10 + digit
            position += 1
            digit = np.int64(text[position]) - _ZERO
        num_digits = position - start
        if text[position] != _TAB or num_digits > MAX_DIGITS or (negative and num_digits == 0):
            return 1 + column, position
        numbers[row, column] = -number if negative else number
        numbers_missing[row, column] = num_digits == 0
        position += 1
    for column in range(NUM_CATEGORICAL):
        start = position
        value = np.uint32(0)
        digit = hex_digits[text[position]]
        while digit != _NOT_HEX:
            value = np.uint32((value << np.uint32(4)) | np.uint32(digit))
            position += 1
            digit = hex_digits[text[position]]
        if column == NUM_CATEGORICAL - 1 and text[position] == _CR and text[position + 1] == _LF:
            num_digits = position - start
            position += 1
        else:
            num_digits = position - start
        if text[position] != (_TAB if column < NUM_CATEGORICAL - 1 else _LF) or num_digits > 8:
            return 1 + NUM_NUMERICAL + column, position
        values[column, row] = value
        values_missing[column, row] = num_digits == 0
        position += 1
    return -1, position


@compiled
def _why_bad(text, start, field):
    """The reason why the line at `start` is bad, its first wrong field being `field`. Returns (reason, next line)."""
    end = start
    num_tabs = 0
    while text[end] != _LF:
        num_tabs += text[end] == _TAB
        end += 1
    if end == start or (end == start + 1 and text[start] == _CR):
        reason = _BLANK
    elif end - start > MAX_LINE_BYTES:
        reason = _LONG_LINE
    elif num_tabs < NUM_FIELDS - 1:
        reason = _FEW
    elif num_tabs > NUM_FIELDS - 1:
        reason = _MANY
    elif field == 0:
        reason = _LABEL
    elif field <= NUM_NUMERICAL:
        reason = _NUMBER
    else:
        reason = _VALUE
    return reason, end + 1
