"""Arrays in .npy files and in members of uncompressed .npz files.

A header is checked against the size of its file before anything is read. Nothing is unpickled.
"""

import io
import os
import struct
import tokenize
import zipfile
from pathlib import Path

import numpy as np
from numpy.lib import format as npy_format

from criteo_prep.transcribe.file_rows import FileArray
from criteo_prep.transcribe.layout_spec import LayoutError

_MAX_HEADER = 10_000  # bytes; numpy's own limit
_LOCAL_HEADER = 30  # bytes before the name in the header of a zip member
_ZIP_ERRORS = (zipfile.BadZipFile, NotImplementedError, struct.error, ValueError, OverflowError, IndexError)
_HEADER_ERRORS = (ValueError, SyntaxError, TypeError, RecursionError, MemoryError, OverflowError, tokenize.TokenError)


def npy_array(path: Path) -> FileArray:
    """The array of a .npy file. Raises LayoutError for another kind of file, or a size that the header does not say."""
    with open(path, "rb") as file:
        return _parsed(file, path, where=str(path), base=0, end=os.path.getsize(path))


def npz_arrays(path: Path, names: list[str]) -> list[FileArray]:
    """The arrays in the members <name>.npy of an .npz file.

    Raises:
      LayoutError: the file is not an .npz, or a member is missing, compressed, or not an array of the right size.
    """
    size = os.path.getsize(path)
    try:
        with zipfile.ZipFile(path) as archive:
            members = {info.filename: info for info in archive.infolist()}
    except _ZIP_ERRORS as error:
        raise LayoutError(f"{path}: is not an .npz: {error}. It is damaged; make it again.") from None
    arrays = []
    with open(path, "rb") as file:
        for name in names:
            info = members.get(f"{name}.npy")
            if info is None:
                raise LayoutError(f"{path}: has no member {name}.npy; its members are {sorted(members)[:40]}.")
            where = f"{path}: {name}.npy"
            if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
                raise LayoutError(f"{where}: is compressed, so it cannot be read in parts. Save it with numpy.savez.")
            file.seek(max(info.header_offset, 0))
            header = file.read(_LOCAL_HEADER)
            if len(header) < _LOCAL_HEADER or header[:4] != b"PK\x03\x04":
                raise LayoutError(f"{where}: does not begin at byte {info.header_offset}. The file is damaged.")
            base = info.header_offset + _LOCAL_HEADER + sum(struct.unpack("<HH", header[26:30]))
            if base + info.file_size > size:
                raise LayoutError(f"{where}: ends at byte {base + info.file_size}, but the file has {size} bytes.")
            arrays.append(_parsed(file, path, where=where, base=base, end=base + info.file_size))
    return arrays


def npy_header(dtype: str, shape: tuple[int, ...]) -> bytes:
    """The header of a .npy file of format 1.0, as numpy.save writes it: 128 bytes for every shape here."""
    file = io.BytesIO()
    description = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": shape}
    npy_format.write_array_header_1_0(file, description)
    assert len(file.getvalue()) == 128
    return file.getvalue()


class NpyWriter:
    """Writes a .npy file whose number of rows is known only at the end."""

    def __init__(self, path: Path, dtype: str, num_columns: int):
        self.path, self._dtype, self._num_columns = path, dtype, num_columns
        self._file = open(path, "wb")
        self._file.write(npy_header(dtype, (0, num_columns)))

    def write(self, values: np.ndarray) -> None:
        self._file.write(np.ascontiguousarray(values, self._dtype).data)

    def close(self, num_rows: int) -> None:
        with self._file as file:
            file.seek(0)
            file.write(npy_header(self._dtype, (num_rows, self._num_columns)))


def _parsed(file, path: Path, *, where: str, base: int, end: int) -> FileArray:
    """The array whose header begins at byte `base` of an open file and whose numbers end at byte `end`."""
    file.seek(base)
    head = io.BytesIO(file.read(min(_MAX_HEADER, end - base)))
    try:
        version = npy_format.read_magic(head)
        read_header = {(1, 0): npy_format.read_array_header_1_0, (2, 0): npy_format.read_array_header_2_0}.get(version)
        if read_header is None:
            raise ValueError(f"format {version} is unknown")
        shape, fortran_order, dtype = read_header(head, max_header_size=_MAX_HEADER)
    except _HEADER_ERRORS as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise LayoutError(f"{where}: is not a .npy array: {reason}. It is damaged; copy or make it again.") from None
    if dtype.hasobject or dtype.kind not in "iufb" or dtype.byteorder == ">":
        raise LayoutError(
            f"{where}: dtype {dtype}; arrays of little-endian numbers are read, objects never. Save it as "
            "little-endian numbers, with numpy's astype."
        )
    if fortran_order and min(len(shape), 2) == 2 and 1 not in shape:
        raise LayoutError(f"{where}: is in Fortran order. Save it with numpy.ascontiguousarray.")
    if len(shape) not in (1, 2) or not all(type(length) is int and length >= 0 for length in shape):
        raise LayoutError(f"{where}: has shape {shape}, expected [rows] or [rows, columns]. Reshape and save it.")
    num_rows, num_columns = shape if len(shape) == 2 else (*shape, 1)
    base += head.tell()
    if (needed := num_rows * num_columns * dtype.itemsize) != end - base:
        raise LayoutError(
            f"{where}: the header says {shape} of {dtype}, {needed} bytes, but {end - base} bytes follow it. "
            "The file is truncated or its header is damaged."
        )
    return FileArray(path, base, dtype=dtype, num_rows=num_rows, num_columns=num_columns)
