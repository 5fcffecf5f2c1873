"""The 26 categorical columns on disk, between the one parse and their encoding.

    <folder>/cat_<i>.raw    frames: uint32 values [n], then their missing marks, one bit a row (numpy.packbits)

A frame holds the rows of one parsed block, so n differs from frame to frame; it is the same in all 26 files. The marks
stand apart because all 2^32 values are legal: 00000000 is not the same as missing.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from criteo_prep.preprocess.blocks import InputError
from criteo_prep.schema import CATEGORICAL


class RawColumns:
    """Written once, block by block; then read column by column. A context manager that closes its files.

    Args:
      folder: an existing folder.
    """

    def __init__(self, folder: Path):
        self._paths = [folder / f"{name}.raw" for name in CATEGORICAL]
        self._files = [open(path, "wb") for path in self._paths]
        self._frames: list[int] = []

    @property
    def num_rows(self) -> int:
        return sum(self._frames)

    def append(self, values: np.ndarray, packed_missing: np.ndarray) -> None:
        """Writes one frame of every column.

        Args:
          values: uint32 [26, n].
          packed_missing: uint8 [26, ceil(n / 8)], numpy.packbits of bool [26, n] along its rows.

        Raises:
          OSError: with the path, as when the disk is full.
        """
        for file, column, marks in zip(self._files, values, packed_missing, strict=True):
            try:
                file.write(np.ascontiguousarray(column).data)
                file.write(np.ascontiguousarray(marks).data)
            except OSError as error:
                error.filename = str(file.name)
                raise
        self._frames.append(values.shape[1])

    def close(self) -> None:
        """Ends the writing; the columns can be read after it."""
        for file in self._files:
            file.close()

    def frames(self, column: int, rows: range) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yields (values uint32 [n], missing bool [n]) of a run of rows of one column, in order, by frames.

        Raises:
          InputError: the file is shorter than what was written.
        """
        first = 0
        with open(self._paths[column], "rb") as file:
            for size in self._frames:
                start, stop = max(0, rows.start - first), min(size, rows.stop - first)
                if start < stop:
                    values, missing = self._read_frame(file, size)
                    yield values[start:stop], missing[start:stop]
                else:
                    file.seek(4 * size + (size + 7) // 8, os.SEEK_CUR)
                first += size

    def _read_frame(self, file: BinaryIO, size: int) -> tuple[np.ndarray, np.ndarray]:
        values, marks = np.empty(size, np.uint32), np.empty((size + 7) // 8, np.uint8)
        if file.readinto(values.data) != values.nbytes or file.readinto(marks.data) != marks.nbytes:
            raise InputError(f"{file.name}: ends early. Something else cut this work file; run the command again.")
        return values, np.unpackbits(marks, count=size).view(np.bool_)

    def delete(self, column: int) -> None:
        self._paths[column].unlink()

    def __enter__(self) -> "RawColumns":
        return self

    def __exit__(self, exception_type, exception, traceback) -> None:
        self.close()
