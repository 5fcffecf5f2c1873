"""How many numbers each column of a parquet file has, read from the footer of the file.

pyarrow knows these numbers too (RowGroupMetaData.column), but for a damaged footer that call ends the whole process:
its C++ exception is caught nowhere. Of pyarrow 26, no other call on metadata was seen to do so.

A footer is a struct of Thrift's compact protocol: fields, each with a number and a type.
Source: https://github.com/apache/parquet-format (parquet.thrift), https://github.com/apache/thrift (compact protocol).
"""

from pathlib import Path

import pyarrow.parquet as pq

from criteo_prep.plain_file import open_plain

_TRUE, _FALSE, _BYTE, _DOUBLE, _BINARY, _LIST, _SET, _STRUCT = 1, 2, 3, 7, 8, 9, 10, 12
_INTEGERS = (4, 5, 6)  # of 16, 32 and 64 bits
# Fields of the structs in parquet.thrift.
_ROW_GROUPS = 4  # of FileMetaData
_COLUMNS = 1  # of RowGroup
_METADATA = 3  # of ColumnChunk
_NUM_VALUES = 5  # of ColumnMetaData


def numbers_of_lists(path: Path, names: list[str], metadata: pq.FileMetaData) -> list[dict[str, int]]:
    """For each row group: list column -> how many numbers it has.

    Args:
      path: the file.
      names: the list columns; for none, nothing is read.
      metadata: the file's metadata.

    Raises:
      ValueError: the footer is damaged.
    """
    if not names:
        return []
    leaves = [metadata.schema.column(number).path for number in range(metadata.num_columns)]
    name_of = [next((name for name in names if leaf.startswith(f"{name}.")), None) for leaf in leaves]
    groups = numbers_of_columns(path)
    if len(groups) != metadata.num_row_groups or {*map(len, groups)} - {len(leaves)}:
        raise ValueError("its footer has not every column in every row group")
    counts = [dict.fromkeys(names, 0) for _ in groups]
    for count, numbers in zip(counts, groups, strict=True):
        for name, number in zip(name_of, numbers, strict=True):
            if name is not None:
                count[name] += number
    return counts


def numbers_of_columns(path: Path) -> list[list[int]]:
    """How many numbers each column has in each row group: [row groups][columns of the file's schema].

    Raises:
      ValueError: the footer is damaged.
    """
    content = _Struct(_footer_of(path))
    try:
        groups = content.read()[_ROW_GROUPS]
        numbers = [[column[_METADATA][_NUM_VALUES] for column in group[_COLUMNS]] for group in groups]
    except (LookupError, TypeError, RecursionError):  # a field is missing, or has another type
        numbers = [[None]]
    if not all(type(number) is int for group in numbers for number in group):
        raise ValueError(f"its footer is no struct of Thrift near byte {content.place}")
    return numbers


def _footer_of(path: Path) -> bytes:
    """The footer, which stands before its own length (4 bytes) and the four bytes that end every parquet file."""
    with open_plain(path) as file:
        end = file.seek(0, 2) - 8
        file.seek(max(0, end))
        length = int.from_bytes(file.read(4), "little")
        file.seek(max(0, end - length))
        return file.read(length)


class _Struct:
    """Reads a Thrift struct from bytes, as field number -> value. Bytes that are no struct raise LookupError."""

    def __init__(self, content: bytes):
        self._content, self.place = content, 0

    def read(self) -> dict[int, object]:
        fields, number = {}, 0
        while head := self._byte():
            number = number + (head >> 4) if head >> 4 else self._integer()
            kind = head & 15
            fields[number] = kind == _TRUE if kind in (_TRUE, _FALSE) else self._value(kind)
        return fields

    def _value(self, kind: int) -> object:
        if kind in _INTEGERS:
            return self._integer()
        if kind == _BINARY:
            return self._bytes(self._unsigned())
        if kind in (_LIST, _SET):
            head = self._byte()
            count = head >> 4 if head >> 4 < 15 else self._unsigned()
            return [self._value(head & 15) for _ in range(count)]
        if kind == _STRUCT:
            return self.read()
        if kind == _DOUBLE:
            return self._bytes(8)
        if kind in (_BYTE, _TRUE, _FALSE):  # in a list, a truth value takes a byte
            return self._byte()
        raise LookupError(kind)  # a map, which no footer has, or no type at all

    def _byte(self) -> int:
        self.place += 1
        return self._content[self.place - 1]

    def _bytes(self, count: int) -> bytes:
        start, self.place = self.place, self.place + count
        if self.place > len(self._content):
            raise LookupError(count)
        return self._content[start : self.place]

    def _unsigned(self) -> int:
        value = shift = 0
        while shift < 64:
            byte = self._byte()
            value |= (byte & 127) << shift
            if byte < 128:
                return value
            shift += 7
        raise LookupError(value)

    def _integer(self) -> int:
        value = self._unsigned()
        return value >> 1 ^ -(value & 1)
