"""Arrays in .npy files, and in members of uncompressed .npz files: where their numbers begin, and what they are.

Headers are checked against the size of the file before anything is believed; nothing is unpickled.
"""

import io
import os
import struct
import tokenize
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.lib import format as npy_format

from criteo_prep.transcribe.array_file import ArrayFile, read_rows
from criteo_prep.transcribe.layout_spec import LayoutError

_MAX_HEADER = 10_000  # bytes; numpy's own limit
_LOCAL_HEADER = 30  # bytes before the name in a zip member's own header
_NO_ZIP = (zipfile.BadZipFile, NotImplementedError, struct.error, ValueError, OverflowError, IndexError)
_NO_HEADER = (ValueError, SyntaxError, TypeError, RecursionError, MemoryError, OverflowError, tokenize.TokenError)


@dataclass(frozen=True)
class NpyArray:
    """A two-dimensional array in a file: [rows, columns] of `dtype` in C order, from byte `base` on."""

    path: Path
    base: int
    dtype: np.dtype
    rows: int
    columns: int


class Columns:
    """An array [rows, columns] that goes on over the files of several days. Raises LayoutError where they disagree."""

    def __init__(self, arrays: list[NpyArray], columns: int, dtype: str):
        self.arrays, self.rows, self.columns = arrays, [array.rows for array in arrays], columns
        for array in arrays:
            if array.columns != columns:
                raise LayoutError(
                    f"{array.path}: has {array.columns} columns, but the feature spec has {columns}. Correct the spec: "
                    "its features, or the hotness of one."
                )
            if array.dtype != dtype:
                raise LayoutError(
                    f"{array.path}: is {array.dtype}, but the feature spec says {dtype}. Write the dtype of the files "
                    "there; the files of all days must have the same one, so save the others with numpy's astype."
                )
        self.files = [ArrayFile(array.path, array.dtype, array.base) for array in arrays]

    @property
    def where(self) -> Path | str:
        """For messages whose rows are counted over all days."""
        path = self.arrays[0].path
        return path if len(self.arrays) == 1 else f"{path.parent}, {path.name} and the {len(self.arrays) - 1} after it"

    def read(self, start: int, stop: int) -> np.ndarray:
        return read_rows(self.files, self.rows, columns=self.columns, start=start, stop=stop)


def npy_array(path: Path) -> NpyArray:
    """The array of a .npy file. Raises LayoutError where it is none, or its size is not what the header says."""
    with open(path, "rb") as file:
        return _parsed(file, path, where=str(path), base=0, end=os.path.getsize(path))


def npz_arrays(path: Path, names: list[str]) -> list[NpyArray]:
    """The arrays of an .npz that stand in its members <name>.npy.

    Raises:
      LayoutError: it is not an .npz, a member is missing or compressed, or is not an array of the right size.
    """
    size = os.path.getsize(path)
    try:
        with zipfile.ZipFile(path) as archive:
            members = {info.filename: info for info in archive.infolist()}
    except _NO_ZIP as error:
        raise LayoutError(f"{path}: is not an .npz: {error}. It is damaged; make it again.") from None
    arrays = []
    with open(path, "rb") as file:
        for name in names:
            info = members.get(f"{name}.npy")
            if info is None:
                raise LayoutError(f"{path}: has no member {name}.npy; there are {sorted(members)[:40]}.")
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
    """The header of a .npy file of format 1.0, 128 bytes for any shape here, as numpy.save writes it."""
    file = io.BytesIO()
    description = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": shape}
    npy_format.write_array_header_1_0(file, description)
    assert len(file.getvalue()) == 128
    return file.getvalue()


class NewNpy:
    """A .npy file whose number of rows is known at the end."""

    def __init__(self, path: Path, dtype: str, columns: int):
        self.path, self._dtype, self._columns = path, dtype, columns
        self._file = open(path, "wb")
        self._file.write(npy_header(dtype, (0, columns)))

    def write(self, values: np.ndarray) -> None:
        self._file.write(np.ascontiguousarray(values, self._dtype).data)

    def close(self, rows: int) -> None:
        with self._file as file:
            file.seek(0)
            file.write(npy_header(self._dtype, (rows, self._columns)))


def _parsed(file, path: Path, *, where: str, base: int, end: int) -> NpyArray:
    """The array whose header stands at byte `base` of an open file and whose numbers end at byte `end`."""
    file.seek(base)
    head = io.BytesIO(file.read(min(_MAX_HEADER, end - base)))
    try:
        version = npy_format.read_magic(head)
        read = {(1, 0): npy_format.read_array_header_1_0, (2, 0): npy_format.read_array_header_2_0}.get(version)
        if read is None:
            raise ValueError(f"format {version} is unknown")
        shape, fortran_order, dtype = read(head, max_header_size=_MAX_HEADER)
    except _NO_HEADER as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise LayoutError(f"{where}: is not a .npy array: {reason}. It is damaged; copy or make it again.") from None
    if dtype.hasobject or dtype.kind not in "iufb" or dtype.byteorder == ">":
        raise LayoutError(
            f"{where}: dtype {dtype}; arrays of little-endian numbers are read, objects never. Save it as such, with "
            "numpy's astype."
        )
    if fortran_order and min(len(shape), 2) == 2 and 1 not in shape:
        raise LayoutError(f"{where}: is in Fortran order. Save it with numpy.ascontiguousarray.")
    if len(shape) not in (1, 2) or not all(type(length) is int and length >= 0 for length in shape):
        raise LayoutError(f"{where}: has shape {shape}; [rows] and [rows, columns] are right. Reshape and save it.")
    rows, columns = shape if len(shape) == 2 else (*shape, 1)
    base += head.tell()
    if (needed := rows * columns * dtype.itemsize) != end - base:
        raise LayoutError(
            f"{where}: the header says {shape} of {dtype}, {needed} bytes, but {end - base} bytes follow it. "
            "The file is truncated or its header is damaged."
        )
    return NpyArray(path, base, dtype=dtype, rows=rows, columns=columns)
