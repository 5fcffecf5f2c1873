"""Files of plain numbers, read at any position.

pread into new arrays: where a file shrinks while it is read, that is an error message. A memory-mapped file that
shrinks would kill the process.
"""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from criteo_prep.feature_spec import FeatureSpecError


class ArrayFile:
    """An open file of numbers.

    Args:
      path: path of the file.
      dtype: type of a number.
      base: bytes before the first number.

    Raises:
      OSError: the file cannot be opened.
    """

    def __init__(self, path: Path, dtype: str | np.dtype, base: int = 0):
        self.path, self.dtype, self.base = path, np.dtype(dtype), base
        self._descriptor = os.open(path, os.O_RDONLY)

    def read(self, first: int, count: int, stop: int) -> np.ndarray:
        """Numbers [first, first + count).

        Args:
          first: position of the first number.
          count: how many numbers to read.
          stop: number of the sample after the last one, for the message.

        Raises:
          FeatureSpecError: the file ends before the last number.
        """
        values = np.empty(count, self.dtype)
        buffer, offset = memoryview(values).cast("B"), self.base + first * self.dtype.itemsize
        while buffer:
            num_read = os.preadv(self._descriptor, [buffer], offset)
            if num_read == 0:
                raise FeatureSpecError(
                    f"{self.path}: ends at byte {offset}, before sample {stop}. It shrank while it was read; "
                    "wait until it is complete, or make it again."
                )
            buffer, offset = buffer[num_read:], offset + num_read
        return values

    @property
    def descriptor(self) -> int:
        return self._descriptor

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1


def read_rows(
    files: Sequence[ArrayFile], num_rows: Sequence[int], *, num_columns: int, start: int, stop: int
) -> np.ndarray:
    """Rows [start, stop) of several files, counted over all files.

    Args:
      files: files in the order of their rows, all of the same dtype.
      num_rows: rows of each file.
      num_columns: numbers in a row.

    Returns:
      array [stop - start, num_columns].
    """
    parts, first = [], 0
    for file, count in zip(files, num_rows, strict=True):
        begin, end = max(start - first, 0), min(stop - first, count)
        if begin < end:
            parts.append(file.read(begin * num_columns, (end - begin) * num_columns, first + end))
        first += count
    whole = parts[0] if len(parts) == 1 else np.concatenate([np.empty(0, files[0].dtype), *parts])
    return whole.reshape(stop - start, num_columns)
