"""The categorical columns on disk, after parsing and before encoding: the only scratch files of the work.

    <folder>/cat_<i>.raw     uint32 [rows], 0 for a missing value
    <folder>/cat_<i>.zeros   int64 [k], ascending: the rows whose value is 0 and not missing

All 2^32 values are legal, so the value 00000000 is not the same as a missing value. Hardly any row has that value, so
a list of such rows is smaller than a mark for every row. The bytes do not depend on the size of the blocks.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from criteo_prep.preprocess.parse.text_stream import InputError
from criteo_prep.schema import CATEGORICAL

BLOCK_ROWS = 1 << 18
_ZERO_ROW_BYTES, _VALUE_BYTES = 8, 4


class RawColumns:
    """The raw columns: written once, block by block; then read column by column.

    Args:
      folder: an existing folder.
      num_rows: rows that earlier writing has completed; anything behind them is cut off.
      num_zeros: for each column, the zero rows among these rows.
      writable: whether the files are opened to append.

    Raises:
      InputError: a file is shorter than num_rows or num_zeros say.
    """

    def __init__(self, folder: Path, num_rows: int, *, num_zeros: Sequence[int], writable: bool = False):
        self.num_rows, self.num_zeros = num_rows, list(num_zeros)
        self._paths = [(folder / f"{name}.raw", folder / f"{name}.zeros") for name in CATEGORICAL]
        self._files = []
        if writable:
            sizes = [(_VALUE_BYTES * num_rows, _ZERO_ROW_BYTES * zeros) for zeros in num_zeros]
            for paths, bytes_ in zip(self._paths, sizes, strict=True):
                self._files.append([open_to_append(path, size) for path, size in zip(paths, bytes_, strict=True)])

    def write(self, values: np.ndarray, zero_rows: Sequence[np.ndarray], *, row: int, zeros: Sequence[int]) -> None:
        """Writes a block of rows of every column to its place. Blocks may be written in any order, and by many threads.

        Args:
          values: uint32 [26, n].
          zero_rows: for every column int64 [k], rows of the block whose value is 0 and not missing.
          row: the rows before the block.
          zeros: for every column, the zero rows before the block.

        Raises:
          OSError: the disk is full, for example. The error has the path.
        """
        for column, (raw_file, zeros_file) in enumerate(self._files):
            write_at(raw_file, _VALUE_BYTES * row, values[column])
            if len(zero_rows[column]):
                write_at(zeros_file, _ZERO_ROW_BYTES * zeros[column], zero_rows[column] + row)

    def close(self) -> None:
        """Ends the writing; after it the columns can be read."""
        for file in (file for files in self._files for file in files):
            file.close()

    def blocks(self, column: int, rows: range) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yields consecutive blocks of one column.

        Args:
          column: number of the column.
          rows: the rows to read.

        Yields:
          (values uint32 [n], zero rows int64 [k]): the zero rows count from the start of the block. The next block
          overwrites the values.

        Raises:
          InputError: the file is shorter than what was written.
        """
        raw, _ = self._paths[column]
        zeros = self._zeros(column)
        buffer = np.empty(min(BLOCK_ROWS, len(rows)), np.uint32)
        with open(raw, "rb", buffering=0) as file:
            file.seek(_VALUE_BYTES * rows.start)
            for start in range(rows.start, rows.stop, BLOCK_ROWS):
                values = buffer[: rows.stop - start]
                if file.readinto(values.data) != values.nbytes:
                    raise InputError(
                        f"{raw}: ends early. Another program cut this work file; run the command with --overwrite."
                    )
                yield values, self._in_range(zeros, start, start + len(values)) - start

    def num_zeros_in(self, column: int, rows: range) -> int:
        """Number of the given rows whose value is 0 and not missing."""
        return len(self._in_range(self._zeros(column), rows.start, rows.stop))

    def delete(self, column: int) -> None:
        for path in self._paths[column]:
            path.unlink(missing_ok=True)

    def _zeros(self, column: int) -> np.ndarray:
        """The zero rows of a column, int64 [k]; a memory map unless k is 0."""
        if not self.num_zeros[column]:
            return np.empty(0, np.int64)
        return np.memmap(self._paths[column][1], np.int64, "r", shape=(self.num_zeros[column],))

    def _in_range(self, zeros: np.ndarray, start: int, stop: int) -> np.ndarray:
        """The zero rows from `start` to `stop` - 1."""
        first, last = np.searchsorted(zeros, (start, stop))
        return np.array(zeros[first:last])

    def __enter__(self) -> "RawColumns":
        return self

    def __exit__(self, exception_type, exception, traceback) -> None:
        self.close()


def open_to_append(path: Path, size: int):
    """Opens a file to write behind its first `size` bytes, which an earlier run completed; creates it for size 0."""
    file = open(path, "r+b" if size else "wb", buffering=0)
    if size:
        found = file.seek(0, 2)
        if found < size:
            file.close()
            raise InputError(
                f"{path}: has {found} bytes of the {size} that an earlier run wrote. "
                "Run the command with --overwrite to start again."
            )
        file.truncate(size)
        file.seek(size)
    return file


def append(file, data: np.ndarray) -> None:
    """Writes a whole contiguous array. An OSError, such as for a full disk, names the path."""
    _write_all(file, data, file.write)


def write_at(file, position: int, data: np.ndarray) -> None:
    """Writes a whole contiguous array to a position in bytes, as `append` writes behind the last bytes."""
    end = position + data.nbytes
    _write_all(file, data, lambda rest: os.pwrite(file.fileno(), rest, end - len(rest)))


def _write_all(file, data: np.ndarray, write: Callable[[memoryview], int]) -> None:
    rest = memoryview(data).cast("B") if data.size else b""
    try:
        while rest:
            rest = rest[write(rest) :]
    except OSError as error:
        error.filename = str(file.name)
        raise
