"""The categorical columns on disk, between the one parse and their encoding: the only scratch of the work.

    <folder>/cat_<i>.raw     uint32 [rows], 0 for a missing value
    <folder>/cat_<i>.zeros   int64 [k], ascending: the rows whose value is 0 and not missing

All 2^32 values are legal, so 00000000 is not the same as missing; but hardly a row has it, and a list of those is
smaller than a mark for every row. The bytes do not depend on how the rows were cut into blocks.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from criteo_prep.preprocess.parse.text_blocks import InputError
from criteo_prep.schema import CATEGORICAL

BLOCK_ROWS = 1 << 18
_ZERO_ROW_BYTES, _VALUE_BYTES = 8, 4


class RawColumns:
    """Written once, block by block; then read column by column.

    Args:
      folder: an existing folder.
      num_rows, num_zeros: what is known to be good of earlier writing: rows, and zeros per column. The rest is cut off.
      writable: open the files to append.

    Raises:
      InputError: a file is shorter than that.
    """

    def __init__(self, folder: Path, num_rows: int, *, num_zeros: Sequence[int], writable: bool = False):
        self.num_rows, self.num_zeros = num_rows, list(num_zeros)
        self._paths = [(folder / f"{name}.raw", folder / f"{name}.zeros") for name in CATEGORICAL]
        self._files = []
        if writable:
            sizes = [(_VALUE_BYTES * num_rows, _ZERO_ROW_BYTES * zeros) for zeros in num_zeros]
            for paths, bytes_ in zip(self._paths, sizes, strict=True):
                self._files.append([open_to_append(path, size) for path, size in zip(paths, bytes_, strict=True)])

    def append(self, values: np.ndarray, zero_rows: Sequence[np.ndarray]) -> None:
        """Writes some rows of every column.

        Args:
          values: uint32 [26, n].
          zero_rows: for every column int64 [k], rows (from 0) whose value is 0 and not missing.

        Raises:
          OSError: with the path, as when the disk is full.
        """
        for column, (raw, zeros) in enumerate(self._files):
            append(raw, np.ascontiguousarray(values[column]))
            if len(zero_rows[column]):
                append(zeros, zero_rows[column] + self.num_rows)
                self.num_zeros[column] += len(zero_rows[column])
        self.num_rows += values.shape[1]

    def close(self) -> None:
        """Ends the writing; the columns can be read after it."""
        for file in (file for files in self._files for file in files):
            file.close()

    def blocks(self, column: int, rows: range) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yields (values uint32 [n], rows within the block whose value is 0 and not missing int64 [k]) of a run of rows
        of one column, in order. The next values overwrite these.

        Raises:
          InputError: the file is shorter than what was written.
        """
        raw, _ = self._paths[column]
        zeros = self._zeros(column)
        room = np.empty(min(BLOCK_ROWS, len(rows)), np.uint32)
        with open(raw, "rb", buffering=0) as file:
            file.seek(_VALUE_BYTES * rows.start)
            for start in range(rows.start, rows.stop, BLOCK_ROWS):
                values = room[: rows.stop - start]
                if file.readinto(values.data) != values.nbytes:
                    raise InputError(
                        f"{raw}: ends early. Something else cut this work file; run the command with --overwrite."
                    )
                yield values, self._between(zeros, start, start + len(values)) - start

    def num_zeros_in(self, column: int, rows: range) -> int:
        """How many of the rows have the value 0, not missing."""
        return len(self._between(self._zeros(column), rows.start, rows.stop))

    def delete(self, column: int) -> None:
        for path in self._paths[column]:
            path.unlink(missing_ok=True)

    def _zeros(self, column: int) -> np.ndarray:
        """int64 [k], mapped where there are any."""
        if not self.num_zeros[column]:
            return np.empty(0, np.int64)
        return np.memmap(self._paths[column][1], np.int64, "r", shape=(self.num_zeros[column],))

    def _between(self, zeros: np.ndarray, start: int, stop: int) -> np.ndarray:
        first, last = np.searchsorted(zeros, (start, stop))
        return np.array(zeros[first:last])

    def __enter__(self) -> "RawColumns":
        return self

    def __exit__(self, exception_type, exception, traceback) -> None:
        self.close()


def open_to_append(path: Path, size: int):
    """Opens a file whose first `size` bytes are good, to go on behind them; creates it where `size` is 0."""
    file = open(path, "r+b" if size else "wb", buffering=0)
    if size:
        there = file.seek(0, 2)
        if there < size:
            file.close()
            raise InputError(
                f"{path}: has {there} bytes of the {size} that an earlier run wrote. "
                "Run the command with --overwrite to start again."
            )
        file.truncate(size)
        file.seek(size)
    return file


def append(file, data: np.ndarray) -> None:
    """Writes all of a contiguous array. OSError names the path: a full disk, say."""
    rest = memoryview(data).cast("B") if data.size else b""
    try:
        while rest:
            rest = rest[file.write(rest) :]
    except OSError as error:
        error.filename = str(file.name)
        raise
