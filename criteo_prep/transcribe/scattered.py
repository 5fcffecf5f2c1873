"""Rows of a file from all over it, in one call: what a shuffled pass reads."""

import numpy as np
from numba import types

from criteo_prep.compiled import compiled
from criteo_prep.feature_spec import FeatureSpecError
from criteo_prep.transcribe.array_file import ArrayFile

_NEAR = 4096  # bytes; reading on across a gap of this size takes less time than another system call
_SCRATCH = 1 << 16  # bytes

_pread = types.ExternalFunction("pread", types.intp(types.intc, types.voidptr, types.uintp, types.int64))


def take_rows(file: ArrayFile, rows: np.ndarray, columns: int) -> np.ndarray:
    """Rows of `columns` numbers each.

    Args:
      rows: int64 [n], in any order.

    Returns:
      array [n, columns], in the order of `rows`.

    Raises:
      FeatureSpecError: the file ends before one of the rows does.
    """
    order = np.argsort(rows, kind="stable")
    size = columns * file.dtype.itemsize
    out = np.empty((len(rows), columns), file.dtype)
    scratch = np.empty(max(_SCRATCH, size), np.uint8)
    done = _take(file.descriptor, rows[order], order, file.base, size, scratch, out.view(np.uint8).reshape(-1))
    if done < len(rows):
        row = int(rows[order[done]])
        raise FeatureSpecError(
            f"{file.path}: ends before row {row} does. It shrank while it was read; make the dataset again."
        )
    return out


@compiled
def _take(descriptor, rows, places, base, size, scratch, out):
    """Reads row rows[i] (ascending) of `size` bytes to place places[i] of out. Returns how many it read.

    Rows that are near each other are read at once into scratch.
    """
    begin = 0
    while begin < rows.size:
        end = begin + 1
        while (
            end < rows.size
            and (rows[end] - rows[end - 1]) * size <= _NEAR
            and (rows[end] - rows[begin] + 1) * size <= scratch.size
        ):
            end += 1
        count = (rows[end - 1] - rows[begin] + 1) * size
        got = _pread(descriptor, scratch.ctypes.data, count, base + rows[begin] * size)
        for i in range(begin, end):
            at = (rows[i] - rows[begin]) * size
            if at + size > got:
                return i
            to = places[i] * size
            for byte in range(size):
                out[to + byte] = scratch[at + byte]
        begin = end
    return rows.size
