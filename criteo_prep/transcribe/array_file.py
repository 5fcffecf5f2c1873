"""A file of plain numbers, read where one wants.

pread into fresh arrays: a file that shrinks under a reader is an error message here, where a mapped one would kill the
process.
"""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from criteo_prep.feature_spec import FeatureSpecError


class ArrayFile:
    """An open file of numbers.

    Args:
      path: the file.
      dtype: of a number.
      base: bytes before the first number.

    Raises:
      OSError: the file cannot be opened.
    """

    def __init__(self, path: Path, dtype: str | np.dtype, base: int = 0):
        self.path, self.dtype, self.base = path, np.dtype(dtype), base
        self._descriptor = os.open(path, os.O_RDONLY)

    def read(self, first: int, count: int, stop: int) -> np.ndarray:
        """Numbers [first, first + count); `stop` is the sample after the last one asked for, for the message.

        Raises:
          FeatureSpecError: the file ends before.
        """
        values = np.empty(count, self.dtype)
        buffer, offset = memoryview(values).cast("B"), self.base + first * self.dtype.itemsize
        while buffer:
            got = os.preadv(self._descriptor, [buffer], offset)
            if got == 0:
                raise FeatureSpecError(
                    f"{self.path}: ends at byte {offset}, before sample {stop}. It shrank while it was read; "
                    "wait until it is complete, or make it again."
                )
            buffer, offset = buffer[got:], offset + got
        return values

    @property
    def descriptor(self) -> int:
        return self._descriptor

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1


def read_rows(files: Sequence[ArrayFile], rows: Sequence[int], *, columns: int, start: int, stop: int) -> np.ndarray:
    """Rows [start, stop) of files that follow one another.

    Args:
      files: of the same dtype.
      rows: the number of rows of each file.
      columns: numbers in a row.

    Returns:
      array [stop - start, columns].
    """
    parts, first = [], 0
    for file, count in zip(files, rows, strict=True):
        begin, end = max(start - first, 0), min(stop - first, count)
        if begin < end:
            parts.append(file.read(begin * columns, (end - begin) * columns, first + end))
        first += count
    whole = parts[0] if len(parts) == 1 else np.concatenate([np.empty(0, files[0].dtype), *parts])
    return whole.reshape(stop - start, columns)
