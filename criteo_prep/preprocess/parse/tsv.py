"""Rows of Criteo's logs: text -> columns of numbers. The rule for a good row stands here, once.

A row is 40 fields with a tab between two: the label (0 or 1), 13 integers (nothing, or an optional minus and 1 to 18
digits), 26 values (nothing, or 1 to 8 hexadecimal digits of either case). It ends in LF, CR LF, or the end of the file.
An empty field is missing. Any other text makes the whole row bad. Rows without labels have 39 fields.
"""

from dataclasses import dataclass

import numpy as np

from criteo_prep.compiled import compiled
from criteo_prep.intrinsics import bytes_equal, count_ones
from criteo_prep.preprocess.parse import fields
from criteo_prep.preprocess.parse.fields import CR, LF, MINUS, TAB, ZERO, read_number, read_value
from criteo_prep.preprocess.parse.text_blocks import MAX_LINE_BYTES
from criteo_prep.schema import CATEGORICAL, LABEL, NUM_CATEGORICAL, NUM_NUMERICAL, NUMERICAL

FIELDS = (LABEL, *NUMERICAL, *CATEGORICAL)
NUM_FIELDS = len(FIELDS)
FIRST_VALUE = 1 + NUM_NUMERICAL  # the first categorical field, label included

# Why a row is bad; the first reason that applies is given. Kernels use the position in this tuple as the code.
REASONS = ("blank_line", "line_too_long", "too_few_fields", "too_many_fields", "bad_label", "bad_number", "bad_value")
_BLANK, _LONG_LINE, _FEW, _MANY, _LABEL, _NUMBER, _VALUE = range(len(REASONS))


class BadRowError(ValueError):
    """A row of an input file is bad."""


@dataclass(frozen=True)
class BadRow:
    """A bad row.

    Attributes:
      line: number of its line within the block, from 0.
      reason: code of the reason, a position in REASONS.
      found: the fault in words.
    """

    line: int
    reason: int
    found: str


@dataclass(frozen=True)
class Rows:
    """The n good rows of a block, and the number of bad rows.

    Attributes:
      label: bool [n]; all False for rows without labels.
      numbers: int64 [n, 13], 0 where a number is missing.
      values: uint32 [26, n], one line per column, 0 where a value is missing.
      missing: uint64 [n]; bit f says whether field f, counted with the label, is missing.
      num_zeros: number of values that are 0 without being missing.
      num_lines: lines of the block, good and bad.
      num_bad: int64 [number of reasons], bad rows by reason.
      first_bad: the first bad row of each reason that occurs.
    """

    label: np.ndarray
    numbers: np.ndarray
    values: np.ndarray
    missing: np.ndarray
    num_zeros: int
    num_lines: int
    num_bad: np.ndarray
    first_bad: tuple[BadRow, ...]

    def __len__(self) -> int:
        return len(self.label)

    def is_missing(self, field: int) -> np.ndarray:
        """bool [n], whether the field is missing; fields count from 0, the label included."""
        return (self.missing >> np.uint64(field)) & np.uint64(1) != 0

    def zero_rows(self, column: int) -> np.ndarray:
        """int64 [k], the rows whose value in a categorical column is 0 and not missing."""
        if not self.num_zeros:
            return np.empty(0, np.int64)
        return np.flatnonzero((self.values[column] == 0) & ~self.is_missing(FIRST_VALUE + column))


def parse(text: bytes | np.ndarray, labelled: bool = True) -> Rows:
    """Parses whole lines.

    Args:
      text: bytes or uint8 [bytes]; every line ends in LF, as text_blocks yields them.
      labelled: whether rows have 40 fields; else they have 39 fields, without the label.
    """
    characters = np.frombuffer(text, np.uint8)
    assert not len(characters) or characters[-1] == LF, "a block ends in a newline"
    capacity = num_lines(characters)
    label = np.zeros(capacity, np.bool_)
    numbers = np.empty((capacity, NUM_NUMERICAL), np.int64)
    values = np.empty((NUM_CATEGORICAL, capacity), np.uint32)
    missing = np.empty(capacity, np.uint64)
    num_bad = np.zeros(len(REASONS), np.int64)
    first_bad = np.full((len(REASONS), 4), -1, np.int64)
    num_rows, lines, num_zeros = _parse_lines(
        characters, fields.HEX, labelled, label, numbers, values, missing, num_bad, first_bad
    )
    return Rows(
        label=label[:num_rows],
        numbers=numbers[:num_rows],
        values=values[:, :num_rows],
        missing=missing[:num_rows],
        num_zeros=num_zeros,
        num_lines=lines,
        num_bad=num_bad,
        first_bad=tuple(
            _describe(characters, labelled, reason=reason, place=first_bad[reason])
            for reason in np.flatnonzero(num_bad)
        ),
    )


def num_lines(text: np.ndarray) -> int:
    """Number of newlines in text, uint8 [bytes]."""
    return int(_count_lines(text))


def _describe(text: np.ndarray, labelled: bool, *, reason: int, place: np.ndarray) -> BadRow:
    """Says in words why a line is bad.

    Args:
      text: uint8 [bytes], the block.
      labelled: whether rows have labels.
      reason: code of the reason.
      place: int64 [4], number of the line, its start and end in the text, and the number of the wrong field.
    """
    line, start, end, field = place.tolist()
    found_fields = text[start:end].tobytes().rstrip(b"\n").removesuffix(b"\r").split(b"\t")
    label = f"{LABEL}, " if labelled else ""
    num_fields = NUM_FIELDS if labelled else NUM_FIELDS - 1
    whole = f"{num_fields} fields with a tab between two: {label}{NUM_NUMERICAL} integers, {NUM_CATEGORICAL} values"
    if reason == _BLANK:
        found = f"the line is empty; expected {whole}"
    elif reason == _LONG_LINE:
        found = f"the line has more than {MAX_LINE_BYTES} bytes; expected {whole}"
    elif reason in (_FEW, _MANY):
        found = f"found {len(found_fields)} fields; expected {whole}"
    else:
        expected = {
            _LABEL: "0 or 1",
            _NUMBER: f"nothing, or an integer of at most {fields.MAX_DIGITS} digits",
            _VALUE: "nothing, or 1 to 8 hexadecimal digits",
        }[reason]
        number = field if labelled else field - 1
        content = found_fields[number]
        shown = repr(content[:32])[1:] + ("..." if len(content) > 32 else "")
        found = f"field {number + 1} ({FIELDS[field]}) is {shown}; expected {expected}"
    return BadRow(line, reason, found)


def reason_of_field(field: int) -> int:
    """The code of the reason for a wrong field; fields count from 0, the label included."""
    return _LABEL if field == 0 else _NUMBER if field < FIRST_VALUE else _VALUE


@compiled
def _count_lines(text):
    """See num_lines."""
    lines = 0
    whole = text.size // 64 * 64
    for position in range(0, whole, 64):
        lines += np.int64(count_ones(bytes_equal(text, position, np.uint8(LF))))
    for position in range(whole, text.size):
        lines += text[position] == LF
    return lines


@compiled
def _parse_lines(text, hex_digits, labelled, label, numbers, values, missing, num_bad, first_bad):
    """Parses the lines of text, uint8 [bytes], which ends in LF.

    Fills the arrays after `labelled`, see Rows. first_bad is int64 [reasons, 4]: (line, start, end, field) of the first
    bad row of each reason.

    Returns:
      (good rows, lines, values that are 0 without being missing).
    """
    position = row = line = num_zeros = 0
    ends = np.empty(1 + NUM_FIELDS + fields.ENDS_ROOM, np.int64)
    words, lengths = np.empty(NUM_FIELDS, np.uint64), np.empty(NUM_FIELDS, np.int64)
    row_numbers, row_values = np.empty(FIRST_VALUE, np.int64), np.empty(NUM_CATEGORICAL, np.uint32)
    while position < text.size:
        field, zeros = -1, 0
        end = fields.find_ends(text, position, NUM_FIELDS, 0 if labelled else 1, ends)
        if end:
            absent = fields.split_fields(text, ends, words, lengths)
            good = fields.read_short_numbers(words, lengths, row_numbers)  # the label too
            good &= fields.read_short_values(words[FIRST_VALUE:], lengths[FIRST_VALUE:], row_values)
            if good and lengths[0] == labelled and 0 <= row_numbers[0] <= 1:
                label[row], missing[row] = row_numbers[0], absent & ~np.uint64(1)
                zeros = -np.int64(count_ones(absent >> np.uint64(FIRST_VALUE)))
                for column in range(NUM_NUMERICAL):
                    numbers[row, column] = row_numbers[1 + column]
                for column in range(NUM_CATEGORICAL):
                    zeros += row_values[column] == 0
                    values[column, row] = row_values[column]
            else:
                end = 0
        if not end:
            field, end, zeros = _parse_row(text, position, hex_digits, labelled, row, label, numbers, values, missing)
        if field < 0:
            row += 1
            num_zeros += zeros
        else:
            reason, end = _why_bad(text, position, field, NUM_FIELDS - 1 if labelled else NUM_FIELDS - 2)
            if num_bad[reason] == 0:
                first_bad[reason, 0], first_bad[reason, 1] = line, position
                first_bad[reason, 2], first_bad[reason, 3] = end, field
            num_bad[reason] += 1
        line += 1
        position = end
    return row, line, num_zeros


@compiled
def _parse_row(text, position, hex_digits, labelled, row, label, numbers, values, missing):
    """Parses any line, and fills row `row` of the arrays if the line is good.

    No bounds are checked: every loop stops at a byte that is not a digit, and the text ends in LF.

    Returns:
      (-1, start of the next line, values that are 0 without being missing) for a good line; else (number of the first
      wrong field, undefined, undefined).
    """
    absent = np.uint64(0)
    zeros = 0
    if labelled:
        digit = np.int64(text[position]) - ZERO
        if digit < 0 or digit > 1 or text[position + 1] != TAB:
            return 0, position, 0
        label[row] = digit == 1
        position += 2
    for column in range(NUM_NUMERICAL):
        negative = text[position] == MINUS
        if negative:
            position += 1
        number, end = read_number(text, position)
        if end < 0 or (negative and end == position):
            return 1 + column, position, 0
        if end == position:
            absent |= np.uint64(1) << np.uint64(1 + column)
        numbers[row, column] = -number if negative else number
        position = end + 1
    for column in range(NUM_CATEGORICAL):
        value, end = read_value(text, position, hex_digits, LF if column == NUM_CATEGORICAL - 1 else TAB)
        if end < 0:
            return FIRST_VALUE + column, position, 0
        if end == position:
            absent |= np.uint64(1) << np.uint64(FIRST_VALUE + column)
        zeros += value == 0 and end > position
        values[column, row] = value
        position = end + 1 + (text[end] == CR)
    missing[row] = absent
    return -1, position, zeros


@compiled
def _why_bad(text, start, field, expected_tabs):
    """Finds the reason why the line at `start` is bad; `field` is its first wrong field.

    Returns:
      (code of the reason, start of the next line).
    """
    end = start
    num_tabs = 0
    while text[end] != LF:
        num_tabs += text[end] == TAB
        end += 1
    if end == start or (end == start + 1 and text[start] == CR):
        reason = _BLANK
    elif end - start > MAX_LINE_BYTES:
        reason = _LONG_LINE
    elif num_tabs < expected_tabs:
        reason = _FEW
    elif num_tabs > expected_tabs:
        reason = _MANY
    elif field == 0:
        reason = _LABEL
    elif field <= NUM_NUMERICAL:
        reason = _NUMBER
    else:
        reason = _VALUE
    return reason, end + 1
