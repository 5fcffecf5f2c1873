"""A file of plain numbers, read where one wants.

pread into fresh arrays: a file that shrinks under a reader is an error message here, where a mapped one would kill the
process.
"""

import os
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
                    "make the dataset again."
                )
            buffer, offset = buffer[got:], offset + got
        return values

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1
