"""TFRecord framing without TensorFlow: records of bytes, each with checksums.

    uint64 length | uint32 masked crc32c of the length | the bytes | uint32 masked crc32c of the bytes

Source: tensorflow/core/lib/io/record_writer.h; crc32c is the Castagnoli polynomial, reflected 0x82F63B78.
"""

import os
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from criteo_prep.compiled import compiled
from criteo_prep.transcribe.layout_spec import LayoutError

_HEADER_BYTES, _FOOTER_BYTES = 12, 4


def _make_tables() -> np.ndarray:
    """uint32 [8, 256]: table k gives the effect on the crc of a byte that k more bytes follow."""
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, (table >> 1) ^ np.uint32(0x82F63B78), table >> 1).astype(np.uint32)
    tables = [table]
    for _ in range(7):
        tables.append((tables[-1] >> 8) ^ table[tables[-1] & 0xFF])
    return np.stack(tables)


_TABLES = _make_tables()


@compiled
def _crc32c(data, crc, tables):
    """The crc state after uint8 [n], eight bytes a step; `crc` is the inverted state before."""
    n = data.size
    i = 0
    while i + 8 <= n:
        low = crc ^ (
            np.uint32(data[i])
            | (np.uint32(data[i + 1]) << np.uint32(8))
            | (np.uint32(data[i + 2]) << np.uint32(16))
            | (np.uint32(data[i + 3]) << np.uint32(24))
        )
        crc = (
            tables[7, low & np.uint32(0xFF)]
            ^ tables[6, (low >> np.uint32(8)) & np.uint32(0xFF)]
            ^ tables[5, (low >> np.uint32(16)) & np.uint32(0xFF)]
            ^ tables[4, low >> np.uint32(24)]
            ^ tables[3, data[i + 4]]
            ^ tables[2, data[i + 5]]
            ^ tables[1, data[i + 6]]
            ^ tables[0, data[i + 7]]
        )
        i += 8
    while i < n:
        crc = (crc >> np.uint32(8)) ^ tables[0, (crc ^ np.uint32(data[i])) & np.uint32(0xFF)]
        i += 1
    return crc


def crc32c(data: bytes | memoryview) -> int:
    """The crc32c of bytes: 0xE3069283 for b"123456789"."""
    state = _crc32c(np.frombuffer(data, np.uint8), np.uint32(0xFFFFFFFF), _TABLES)
    return int(state) ^ 0xFFFFFFFF


def masked_crc32c(data: bytes | memoryview) -> int:
    """The crc32c of bytes as a file stores it. The mask keeps a crc good that is taken over data with crcs in it."""
    crc = crc32c(data)
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def write_record(file, data: bytes) -> None:
    """Appends one record to a binary file."""
    length = struct.pack("<Q", len(data))
    file.write(length + struct.pack("<I", masked_crc32c(length)))
    file.write(data)
    file.write(struct.pack("<I", masked_crc32c(data)))


def records(path: Path) -> Iterator[tuple[int, bytes]]:
    """The records of a file, each with the byte at which it begins.

    Raises:
      LayoutError: a crc does not match, or the file ends within a record. Nothing is read before the crc of its length
        matches and the file is long enough.
    """
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        offset = 0
        while offset < size:
            header = file.read(_HEADER_BYTES)
            if len(header) < _HEADER_BYTES:
                raise LayoutError(f"{path}: ends within the record at byte {offset}. The file is truncated.")
            length, crc = struct.unpack("<QI", header)
            if masked_crc32c(header[:8]) != crc:
                raise _crc_error(path, offset, "length")
            if length > size - offset - _HEADER_BYTES - _FOOTER_BYTES:
                raise LayoutError(
                    f"{path}: the record at byte {offset} has {length} bytes, but the file ends at {size}. "
                    "It is truncated."
                )
            data, footer = file.read(length), file.read(_FOOTER_BYTES)
            if len(footer) < _FOOTER_BYTES or masked_crc32c(data) != struct.unpack("<I", footer)[0]:
                raise _crc_error(path, offset, "data")
            yield offset, data
            offset += _HEADER_BYTES + length + _FOOTER_BYTES


def _crc_error(path: Path, offset: int, part: str) -> LayoutError:
    return LayoutError(
        f"{path}: the record at byte {offset} has a broken crc of its {part}. The file is damaged; "
        "copy or make it again."
    )
