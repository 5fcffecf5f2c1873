"""The .npy files of a checkpoint: written and read a block at a time, with size and checksum. No TensorFlow.

Every file is a plain .npy file, which numpy opens and maps. A shard is never in memory as a whole.
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

from dlrm_tf2.checkpoint.bfloat16 import BFLOAT16, bits_of, stored_as, weights_of
from dlrm_tf2.checkpoint.folder import Folder, as_folder
from dlrm_tf2.runtime import activity

_BLOCK_BYTES = 8 << 20


class CheckpointError(ValueError):
    """A checkpoint cannot be saved, is damaged, or holds another model."""


@dataclass(frozen=True)
class StoredFile:
    """One .npy file of a checkpoint.

    Attributes:
      path: relative to the checkpoint.
      shape: shape of the array.
      dtype: numpy type of the array, such as "<f4"; or "bfloat16", whose bits the file holds as uint16.
      num_bytes, crc32: size and checksum of the whole file, header included.
    """

    path: str
    shape: tuple[int, ...]
    dtype: str
    num_bytes: int
    crc32: str


def rows_per_block(num_columns: int) -> int:
    """Rows of a float32 array that are read or written at a time."""
    return max(1, _BLOCK_BYTES // (4 * max(1, num_columns)))


def write_npy(folder: Path | Folder, path: str, *, shape: tuple[int, ...], dtype: str, blocks: Iterable) -> StoredFile:
    """Writes an array, block by block, to the disk itself (fsync).

    Args:
      folder: the checkpoint; a path is on a disk that this process sees.
      path: file to create, relative to the folder; it must not exist.
      shape: shape of the whole array.
      dtype: as in StoredFile.
      blocks: arrays; their elements, one block after the other, are the whole array in row-major order.

    Raises:
      CheckpointError: the file cannot be written, for example on a full disk; names the file and the reason.
    """
    stored = stored_as(dtype)
    header = _header(shape, stored)
    folder, checksum, num_bytes = as_folder(folder), 0, 0
    blocks = map(bits_of, blocks) if dtype == BFLOAT16 else blocks
    try:
        with folder.create(path) as file:
            for block in itertools.chain([header], blocks):
                data = block if isinstance(block, bytes) else _bytes_of(np.ascontiguousarray(block, stored))
                file.write(data)
                checksum = crc32(data, checksum)
                num_bytes += len(data)
                activity.report_progress()
    except OSError as error:
        raise unwritable(folder.path / path, error) from error
    assert num_bytes == len(header) + math.prod(shape) * stored.itemsize, "the blocks are not the array"
    return StoredFile(path, tuple(shape), dtype=dtype, num_bytes=num_bytes, crc32=f"{checksum:08x}")


def _bytes_of(array: np.ndarray) -> memoryview:
    """The memory of a contiguous array; writable if the array is writable."""
    return memoryview(array.reshape(-1).view(np.uint8))


def read_array(folder: Path | Folder, file: StoredFile) -> np.ndarray:
    """The whole array, after its checksum was compared. Raises CheckpointError."""
    folder = as_folder(folder)
    path = folder.path / file.path
    try:
        with folder.open(file.path) as source:
            content = source.read()
    except OSError as error:
        raise unreadable(path, error) from None
    check_size(path, len(content), file)
    _check_sum(path, crc32(content), file)
    stored = stored_as(file.dtype)
    start = max(0, file.num_bytes - math.prod(file.shape) * stored.itemsize)
    _check_header(path, content[:start], file)
    return np.frombuffer(content, stored, offset=start).reshape(file.shape).copy()


def stream_rows(
    folder: Path | Folder, file: StoredFile, rows: tuple[int, int] | None
) -> Iterator[tuple[int, np.ndarray]]:
    """Reads a two-dimensional file a block of rows at a time.

    Args:
      folder: the checkpoint; a path is on a disk that this process sees.
      file: the file to read.
      rows: (start, stop), counted in the file; None reads the whole file and compares its checksum at the end.

    Yields:
      (first row of the block, float32 [rows of the block, columns]).

    Raises:
      CheckpointError: the file is missing, truncated, of another form, or (with rows None) damaged.
    """
    folder = as_folder(folder)
    path = folder.path / file.path
    num_rows, columns = file.shape
    stored = stored_as(file.dtype)
    row_bytes = columns * stored.itemsize
    start, stop = rows or (0, num_rows)
    try:
        with folder.open(file.path) as source:
            check_size(path, source.seek(0, os.SEEK_END), file)
            source.seek(0)
            header = source.read(file.num_bytes - num_rows * row_bytes)
            _check_header(path, header, file)
            checksum = crc32(header)
            source.seek(len(header) + start * row_bytes)
            step = rows_per_block(columns)
            for first in range(start, stop, step):
                # A new array for every block, which the caller may keep.
                block = np.empty((min(step, stop - first), columns), stored)
                _read_into(path, source, block)
                if rows is None:
                    checksum = crc32(block, checksum)
                activity.report_progress()
                yield first, weights_of(block) if file.dtype == BFLOAT16 else block
    except OSError as error:
        raise unreadable(path, error) from None
    if rows is None:
        _check_sum(path, checksum, file)


def _read_into(path: Path, source: io.RawIOBase, block: np.ndarray) -> None:
    unread = _bytes_of(block)
    while unread:
        count = source.readinto(unread)
        if not count:
            raise CheckpointError(f"{path}: ended while it was read. Restore another checkpoint.")
        unread = unread[count:]


def unwritable(path: str | Path, error: OSError) -> CheckpointError:
    """The error of a file that cannot be written."""
    return CheckpointError(f"{path}: cannot be written: {error.strerror or error}.")


def unreadable(path: Path, error: OSError) -> CheckpointError:
    """The error of a file that cannot be read."""
    return CheckpointError(
        f"{path}: cannot be read: {error.strerror or error}. The checkpoint is incomplete, or this machine does not "
        "see its file system."
    )


def check_size(path: Path, found: int, file: StoredFile) -> None:
    """Raises CheckpointError unless the file has the size that the manifest says."""
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


def _header(shape: tuple[int, ...], stored: np.dtype) -> bytes:
    """The header of a .npy file."""
    header = io.BytesIO()
    layout = {"descr": np.lib.format.dtype_to_descr(stored), "fortran_order": False, "shape": tuple(shape)}
    np.lib.format.write_array_header_1_0(header, layout)
    return header.getvalue()


def _check_header(path: Path, header: bytes, file: StoredFile) -> None:
    """Raises CheckpointError unless `header`, all bytes before the array's, says what the manifest says."""
    if header == _header(file.shape, stored_as(file.dtype)):
        return  # numpy need not parse it as Python, which is not safe in several threads (Python 3.11.2)
    stream = io.BytesIO(header)
    try:
        version = np.lib.format.read_magic(stream)
        shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(stream)
    except Exception as error:  # numpy parses the header as Python, and damaged Python fails in many ways
        raise CheckpointError(f"{path}: is not a .npy file: {error}. The file is damaged.") from None
    if version != (1, 0) or fortran_order or shape != file.shape or dtype != stored_as(file.dtype):
        raise CheckpointError(
            f"{path}: holds {dtype.str} {shape}, the manifest says {file.dtype} {file.shape}. The file is damaged or "
            "belongs to another checkpoint."
        )
    if more := len(stream.read()):
        raise CheckpointError(
            f"{path}: has {more} bytes between its header and its array, expected none. The file is damaged; restore "
            "another checkpoint."
        )
