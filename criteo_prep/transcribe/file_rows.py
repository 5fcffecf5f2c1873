"""Rows of numbers in several files, one file after the other: a range of rows, or any rows in any order."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numba import types

from criteo_prep.compiled import compiled
from criteo_prep.feature_spec import FeatureSpecError
from criteo_prep.transcribe.array_file import ArrayFile
from criteo_prep.transcribe.layout_spec import LayoutError

_LARGEST_GAP = 4096  # bytes; reading a gap of this size takes less time than another system call
_SCRATCH = 1 << 16  # bytes

_pread = types.ExternalFunction("pread", types.intp(types.intc, types.voidptr, types.uintp, types.int64))


@dataclass(frozen=True)
class FileArray:
    """A two-dimensional array in a file: [num_rows, num_columns] of `dtype` in C order, from byte `base`."""

    path: Path
    base: int
    dtype: np.dtype
    num_rows: int
    num_columns: int


class FileRows:
    """The arrays of several files as one array [rows, num_columns].

    Attributes:
      arrays: array of each file; where their types differ, the result has a type that holds all of them.
      num_rows: rows of each file.
      num_columns: numbers in a row.
      files: open file of each array.

    Raises:
      LayoutError: an array has another number of columns.
      OSError: a file cannot be opened.
    """

    def __init__(self, arrays: list[FileArray], num_columns: int):
        self.arrays, self.num_rows, self.num_columns = arrays, [array.num_rows for array in arrays], num_columns
        for array in arrays:
            if array.num_columns != num_columns:
                raise LayoutError(
                    f"{array.path}: has {array.num_columns} columns, but the feature spec has {num_columns}. Correct "
                    "the features of the spec, or a hotness."
                )
        self.files: list[ArrayFile] = []
        try:
            for array in arrays:
                self.files.append(ArrayFile(array.path, array.dtype, array.base))
        except BaseException:
            self.close()
            raise

    @property
    def where(self) -> Path | str:
        """The files, for messages whose rows are counted over all files."""
        path = self.arrays[0].path
        return path if len(self.arrays) == 1 else f"{path.parent}, {path.name} and the next {len(self.arrays) - 1}"

    def read(self, start: int, stop: int) -> np.ndarray:
        """Rows [start, stop), counted over all files: array [stop - start, num_columns].

        Raises:
          FeatureSpecError: a file ends before one of the rows does.
        """
        parts, first, width = [], 0, self.num_columns
        for file, count in zip(self.files, self.num_rows, strict=True):
            begin, end = max(start - first, 0), min(stop - first, count)
            if begin < end:
                parts.append(file.read(begin * width, (end - begin) * width, first + end))
            first += count
        whole = parts[0] if len(parts) == 1 else np.concatenate([np.empty(0, self.files[0].dtype), *parts])
        return whole.reshape(stop - start, width)

    def take(self, rows: np.ndarray) -> np.ndarray:
        """These rows, int64 [n] in any order: array [n, num_columns]. Raises as `read`."""
        if len(self.files) == 1:
            return take_rows(self.files[0], rows, self.num_columns)
        dtype = np.result_type(*(file.dtype for file in self.files))
        out, firsts = np.empty((len(rows), self.num_columns), dtype), np.cumsum([0, *self.num_rows])
        file_of = np.searchsorted(firsts, rows, side="right") - 1
        for number in np.unique(file_of):
            chosen = file_of == number
            out[chosen] = take_rows(self.files[number], rows[chosen] - firsts[number], self.num_columns)
        return out

    def close(self) -> None:
        for file in self.files:
            file.close()


def take_rows(file: ArrayFile, rows: np.ndarray, num_columns: int) -> np.ndarray:
    """Rows of one file.

    Args:
      file: file of numbers, row after row.
      rows: int64 [n], in any order.
      num_columns: numbers in a row.

    Returns:
      array [n, num_columns], in the order of `rows`.

    Raises:
      FeatureSpecError: the file ends before one of the rows does.
    """
    order = np.argsort(rows, kind="stable")
    row_bytes = num_columns * file.dtype.itemsize
    out = np.empty((len(rows), num_columns), file.dtype)
    scratch = np.empty(max(_SCRATCH, row_bytes), np.uint8)
    num_read = _take(file.descriptor, rows[order], order, file.base, row_bytes, scratch, out.view(np.uint8).reshape(-1))
    if num_read < len(rows):
        raise FeatureSpecError(
            f"{file.path}: ends before row {rows[order[num_read]]} does. It shrank while it was read; make the dataset "
            "again."
        )
    return out


@compiled
def _take(descriptor, rows, places, base, row_bytes, scratch, out):
    """Reads row rows[i] (ascending) into row places[i] of `out`. One system call reads rows that are close together.

    Returns:
      How many rows it read; fewer than all where the file ends.
    """
    begin = 0
    while begin < rows.size:
        end = begin + 1
        while (
            end < rows.size
            and (rows[end] - rows[end - 1]) * row_bytes <= _LARGEST_GAP
            and (rows[end] - rows[begin] + 1) * row_bytes <= scratch.size
        ):
            end += 1
        count = (rows[end - 1] - rows[begin] + 1) * row_bytes
        num_bytes = _pread(descriptor, scratch.ctypes.data, count, base + rows[begin] * row_bytes)
        for i in range(begin, end):
            source = (rows[i] - rows[begin]) * row_bytes
            if source + row_bytes > num_bytes:
                return i
            target = places[i] * row_bytes
            for byte in range(row_bytes):
                out[target + byte] = scratch[source + byte]
        begin = end
    return rows.size
