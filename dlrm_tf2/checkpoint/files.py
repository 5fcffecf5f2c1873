"""The .npy files of a checkpoint: written and read a block at a time, with size and checksum. No TensorFlow.

Every file is a plain .npy file, which numpy opens and maps; a table's rectangle never is in memory as a whole.
"""

import io
import itertools
import math
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from zlib import crc32

import numpy as np

from dlrm_tf2.runtime import activity

_BLOCK_BYTES = 8 << 20


class CheckpointError(ValueError):
    """A checkpoint cannot be saved, is damaged, or is not the model's."""


@dataclass(frozen=True)
class StoredFile:
    """One .npy file: path relative to the checkpoint, what it holds, and how to tell that it is whole."""

    path: str
    shape: tuple[int, ...]
    dtype: str
    num_bytes: int
    crc32: str


def rows_per_block(num_columns: int) -> int:
    """Rows of float32 that are read or written at a time."""
    return max(1, _BLOCK_BYTES // (4 * max(1, num_columns)))


def write_npy(folder: Path, path: str, *, shape: tuple[int, ...], dtype: np.dtype, blocks: Iterable) -> StoredFile:
    """Writes an array, given as consecutive blocks of it, to the disk itself (fsync).

    Args:
      folder: the checkpoint; `path` is relative to it and must not exist.
      shape, dtype: of the whole array.
      blocks: arrays whose elements, one block after the other, are those of the array in row-major order.

    Raises:
      CheckpointError: naming the file and what the system said, such as a full disk.
    """
    dtype = np.dtype(dtype)
    header = io.BytesIO()
    layout = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": tuple(shape)}
    np.lib.format.write_array_header_1_0(header, layout)
    checksum, num_bytes = 0, 0
    try:
        with open(folder / path, "xb") as file:
            for block in itertools.chain([header.getvalue()], blocks):
                data = block if isinstance(block, bytes) else _bytes_of(np.ascontiguousarray(block, dtype))
                file.write(data)
                checksum = crc32(data, checksum)
                num_bytes += len(data)
                activity.goes_on()
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise CheckpointError(f"{folder / path}: cannot be written: {error.strerror or error}.") from error
    assert num_bytes == len(header.getvalue()) + math.prod(shape) * dtype.itemsize, "the blocks are not the array"
    return StoredFile(path, tuple(shape), dtype=dtype.str, num_bytes=num_bytes, crc32=f"{checksum:08x}")


def _bytes_of(array: np.ndarray) -> memoryview:
    """The memory of a contiguous array, writable if the array is."""
    return memoryview(array.reshape(-1).view(np.uint8))


def read_array(folder: Path, file: StoredFile) -> np.ndarray:
    """The whole array, its checksum compared. Raises CheckpointError."""
    path = folder / file.path
    try:
        content = path.read_bytes()
    except OSError as error:
        raise unreadable(path, error) from None
    check_size(path, len(content), file)
    _check_sum(path, crc32(content), file)
    _check_header(path, content, file)
    return np.load(io.BytesIO(content), allow_pickle=False)


def stream_rows(folder: Path, file: StoredFile, rows: tuple[int, int] | None) -> Iterator[tuple[int, np.ndarray]]:
    """Reads a two-dimensional file a block of rows at a time.

    Args:
      rows: (start, stop), counted in the file; None reads all of it and compares the checksum at the end.

    Yields:
      (first row, float32 [n, columns]).

    Raises:
      CheckpointError: the file is missing, truncated, something else, or (with rows None) damaged.
    """
    path = folder / file.path
    num_rows, columns = file.shape
    start, stop = rows or (0, num_rows)
    try:
        with open(path, "rb", buffering=0) as source:
            check_size(path, os.fstat(source.fileno()).st_size, file)
            header = source.read(file.num_bytes - num_rows * columns * 4)
            _check_header(path, header, file)
            checksum = crc32(header)
            source.seek(len(header) + start * columns * 4)
            step = rows_per_block(columns)
            for first in range(start, stop, step):
                # A new array each time: whoever takes it may keep it.
                block = np.empty((min(step, stop - first), columns), np.dtype(file.dtype))
                _read_into(path, source, block)
                if rows is None:
                    checksum = crc32(block, checksum)
                activity.goes_on()
                yield first, block
    except OSError as error:
        raise unreadable(path, error) from None
    if rows is None:
        _check_sum(path, checksum, file)


def _read_into(path: Path, source: io.RawIOBase, block: np.ndarray) -> None:
    rest = _bytes_of(block)
    while rest:
        count = source.readinto(rest)
        if not count:
            raise CheckpointError(f"{path}: ended while it was read. Restore another checkpoint.")
        rest = rest[count:]


def unreadable(path: Path, error: OSError) -> CheckpointError:
    return CheckpointError(
        f"{path}: cannot be read: {error.strerror or error}. The checkpoint is incomplete, or this machine does not "
        "see the file system that it lies on."
    )


def check_size(path: Path, found: int, file: StoredFile) -> None:
    if found != file.num_bytes:
        raise CheckpointError(
            f"{path}: has {found} bytes, the manifest says {file.num_bytes}. The file is truncated or belongs to "
            "another checkpoint; restore another one."
        )


def _check_sum(path: Path, found: int, file: StoredFile) -> None:
    if f"{found:08x}" != file.crc32:
        raise CheckpointError(
            f"{path}: its bytes have the checksum {found:08x}, the manifest says {file.crc32}. The file is damaged; "
            "restore another checkpoint."
        )


def _check_header(path: Path, content: bytes, file: StoredFile) -> None:
    stream = io.BytesIO(content)
    try:
        version = np.lib.format.read_magic(stream)
        shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(stream)
    except Exception as error:  # numpy parses the header as Python, and damaged Python fails in many ways
        raise CheckpointError(f"{path}: is not a .npy file: {error}. The file is damaged.") from None
    if version != (1, 0) or fortran_order or shape != file.shape or dtype != np.dtype(file.dtype):
        raise CheckpointError(
            f"{path}: holds {dtype.str} {shape}, the manifest says {file.dtype} {file.shape}. The file is damaged or "
            "belongs to another checkpoint."
        )
