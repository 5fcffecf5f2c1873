"""Files of plain numbers, read at any position.

pread into new arrays: where a file shrinks while it is read, that is an error message. A memory-mapped file that
shrinks would kill the process.
"""

import os
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
