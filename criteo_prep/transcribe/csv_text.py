"""Text of a csv file: blocks of whole lines, parsed strictly, and the fault of a bad line.

pyarrow parses fast, but it also accepts text that other programs read as another number or not at all: `0x1f`, ` 1`, a
byte order mark, a carriage return alone. And it reads numbers that are too small as 0. So one compiled pass looks for
every byte that plain numbers do not have, and a block with such a byte is checked line by line.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv

from criteo_prep.compiled import compiled
from criteo_prep.transcribe.layout_spec import LayoutError

_BLOCK_BYTES = 4 << 20  # bytes of text that are parsed at a time, and so the longest line
# Without either of these, no number is too large or too small for float32.
_MANY_ZEROS = b"0" * 30
_LARGE_EXPONENT = re.compile(rb"[eE][+-]?0*(?:[3-9][0-9]|[1-9][0-9]{2})")
_PYARROW_ERRORS = (pa.ArrowException, OverflowError, MemoryError)
_BYTE_ORDER_MARKS = (b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")
_LONE_RETURN = re.compile(rb"\r(?!\n)")
_INTEGER = re.compile(rb"-?[0-9]+")
_FLOAT = re.compile(rb"-?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_NOT_FINITE = re.compile(rb"[+-]?(?:nan|inf|infinity)", re.IGNORECASE)


@dataclass(frozen=True)
class TextBlock:
    """Whole lines of a file, at least one, and the row of the first line."""

    first_row: int
    text: bytes


def count_lines(path: Path) -> tuple[int, bool]:
    """The number of lines in a file, and whether the last line has a line end.

    Raises:
      LayoutError: the file begins with a byte order mark, or has a carriage return without a line feed.
    """
    count, last = 0, b"\n"
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            if block.endswith(b"\r"):
                block += file.read(1)
            if count == 0 and block.startswith(_BYTE_ORDER_MARKS):
                raise LayoutError(f"{path}: row 0: begins with a byte order mark. Save the file as UTF-8 without it.")
            if odd := _LONE_RETURN.search(block):
                row = count + block.count(b"\n", 0, odd.start())
                raise LayoutError(
                    f"{path}: row {row}: has a carriage return without a line feed. Save the file with lines that end "
                    "in LF or in CR LF."
                )
            count += block.count(b"\n")
            last = block[-1:]
    return count + (last != b"\n"), last == b"\n"


def text_blocks(path: Path) -> Iterator[TextBlock]:
    """A file in blocks of whole lines. Raises LayoutError for a line that is longer than a block."""
    row, rest = 0, b""
    with open(path, "rb") as file:
        while read := file.read(_BLOCK_BYTES):
            end = read.rfind(b"\n") + 1
            if end:
                text, rest = rest + read[:end], read[end:]
                yield TextBlock(row, text)
                row += text.count(b"\n")
            else:
                rest += read
            if len(rest) > _BLOCK_BYTES:
                raise LayoutError(
                    f"{path}: row {row}: has more than {_BLOCK_BYTES} bytes without a line feed. A line is a sample; "
                    "save the file as text with one sample in each line."
                )
    if rest:
        yield TextBlock(row, rest)


def parse_block(block: TextBlock, types: dict[str, pa.DataType], path: Path) -> dict[str, np.ndarray]:
    """The columns of a block: name -> numbers [lines].

    Args:
      block: lines to parse.
      types: type of each column, in the order of the columns.
      path: file of the block, for messages.

    Raises:
      LayoutError: a line has a wrong number of columns, or a cell is not a number that its type holds.
    """
    if _is_odd(block.text):
        _check_lines(block, types, path)
    options = (
        pa_csv.ReadOptions(use_threads=False, block_size=len(block.text) + 1, column_names=list(types)),
        pa_csv.ParseOptions(quote_char=False, ignore_empty_lines=False),
        pa_csv.ConvertOptions(column_types=types, null_values=[], strings_can_be_null=False),
    )
    try:
        table = pa_csv.read_csv(pa.BufferReader(block.text), *options)
    except _PYARROW_ERRORS as error:
        _check_lines(block, types, path)
        reason = str(error).splitlines()[0][:200]
        raise LayoutError(f"{path}: after row {block.first_row}: cannot be read as csv: {reason}") from None
    return {name: table.column(name).to_numpy() for name in types}


def _is_odd(text: bytes) -> bool:
    """Whether text has a byte that plain numbers do not have, or a number that may be too small for its type."""
    num_bytes, num_exponents = _count_plain(np.frombuffer(text, np.uint8))
    if num_bytes < len(text) or _MANY_ZEROS in text:
        return True
    return num_exponents > 0 and _LARGE_EXPONENT.search(text) is not None


@compiled
def _count_plain(text):
    """(how many bytes of uint8 text may stand in plain numbers and line ends, how many of them begin an exponent)."""
    num_bytes = num_exponents = 0
    for i in range(text.size):
        byte = text[i]
        is_exponent = (byte | 0x20) == 0x65  # e or E
        is_number = (byte >= 0x2B) & (byte <= 0x39) & (byte != 0x2F)  # digits and + , - .
        num_exponents += is_exponent
        num_bytes += is_number | is_exponent | (byte == 0x0A) | (byte == 0x0D)
    return num_bytes, num_exponents


def _check_lines(block: TextBlock, types: dict[str, pa.DataType], path: Path) -> None:
    """Raises LayoutError for the first bad line."""
    for place, line in enumerate(block.text.removesuffix(b"\n").split(b"\n")):
        cells = line.removesuffix(b"\r").split(b",")
        where = f"{path}: row {block.first_row + place}:"
        if len(cells) != len(types):
            raise LayoutError(
                f"{where} has {len(cells)} columns, the feature spec names {len(types)}. Correct the row or the spec; "
                "columns are separated by commas."
            )
        for (name, kind), cell in zip(types.items(), cells, strict=True):
            if fault := _fault_of(cell, kind):
                raise LayoutError(f"{where} {name!r} is {fault}")


def _fault_of(cell: bytes, kind: pa.DataType) -> str | None:
    """Why a cell is not a number that its type holds; None where it is one."""
    text = repr(cell[:40].decode("utf-8", "replace"))
    dtype = np.dtype(kind.to_pandas_dtype())
    if dtype.kind == "f" and _NOT_FINITE.fullmatch(cell):
        return f"{cell.decode()}, which no model can be trained on. Write 0.0 where a number is missing."
    if not (_FLOAT if dtype.kind == "f" else _INTEGER).fullmatch(cell):
        return f"{text}, which is not {kind}. Correct the row."
    if dtype.kind != "f":
        limits = np.iinfo(dtype)
        digits = cell.lstrip(b"-0") or b"0"
        sign = -1 if cell.startswith(b"-") else 1
        fits = len(digits) < 20 and limits.min <= sign * int(digits) <= limits.max  # Python refuses thousands of digits
        return None if fits else f"{text}, which {kind} cannot hold. Correct the row."
    with np.errstate(over="ignore", under="ignore"):
        number = dtype.type(float(cell))
    if np.isinf(number):
        return f"{text}, which is too large for {kind}. Correct the row, or write a wider dtype into the feature spec."
    if number == 0 and re.split(b"[eE]", cell)[0].strip(b"-0."):
        return f"{text}, which is too small for {kind}: it would be read as 0. Write 0, or a wider dtype into the spec."
    return None
