"""What the parse leaves on disk, for the later stages: label, numbers, splits, and the values of each column.

    <work>/label.bin           bool [rows]
    <work>/numbers.bin         float64 [rows, numericals], NaN where missing
    <work>/splits.bin          uint8 [rows], a number of SPLIT_NUMBERS, where a column says the split
    <work>/<feature>.values    record batches of Arrow, one a block, one column of text or int64
    <work>/<feature>.lengths   int32 [rows], for lists

A record batch is a message with its own length, so a file that is cut at a checkpoint has whole batches.
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from criteo_prep.preprocess.parse.raw_columns import append, open_to_append
from criteo_prep.preprocess.parse.text_stream import InputError
from criteo_prep.table.cells import TEXT, ColumnKind
from criteo_prep.table.row_values import TableRows
from criteo_prep.table.schema import TableSchema

LABEL, NUMBERS, SPLITS = "label.bin", "numbers.bin", "splits.bin"


class WorkFiles:
    """Writes the rows of the parse; a context manager that closes its files.

    Args:
      folder: the work folder.
      schema: names the features.
      sizes: name of a file -> bytes that earlier writing completed; anything behind them is cut off.
    """

    def __init__(self, folder: Path, schema: TableSchema, sizes: dict[str, int]):
        self._folder, self._schema, self._files = folder, schema, {}
        self._sizes = dict(sizes)

    def write(self, rows: TableRows, kinds: Sequence[ColumnKind]) -> None:
        """Appends the good rows of a block. An OSError, such as for a full disk, names the file."""
        self._append(LABEL, rows.label)
        self._append(NUMBERS, rows.numbers)
        if rows.splits is not None:
            self._append(SPLITS, rows.splits)
        for each, kind, cells in zip(self._schema.categorical, kinds, rows.columns, strict=True):
            self._append(f"{each.feature}.values", _message(cells.values, kind.values))
            if kind.is_list:
                self._append(f"{each.feature}.lengths", cells.lengths)

    @property
    def sizes(self) -> dict[str, int]:
        return dict(self._sizes)

    def _append(self, name: str, data: np.ndarray) -> None:
        if name not in self._files:
            self._files[name] = open_to_append(self._folder / name, self._sizes.setdefault(name, 0))
        append(self._files[name], np.ascontiguousarray(data))
        self._sizes[name] += data.nbytes

    def __enter__(self) -> "WorkFiles":
        return self

    def __exit__(self, exception_type, exception, traceback) -> None:
        for file in self._files.values():
            file.close()


def value_blocks(folder: Path, feature: str, kind: ColumnKind) -> Iterator:
    """Yields the values of a column, block after block: polars Series of text or integers, null where missing.

    Raises:
      InputError: the file is shorter than what was written.
    """
    import polars
    import pyarrow
    import pyarrow.ipc

    path = folder / f"{feature}.values"
    if not path.stat().st_size:
        return
    try:
        with pyarrow.OSFile(str(path)) as file:
            while file.tell() < file.size():
                message = pyarrow.ipc.read_message(file)
                batch = pyarrow.ipc.read_record_batch(message, _arrow_schema(kind.values))
                yield polars.from_arrow(batch.column(0))
    except (pyarrow.ArrowException, EOFError) as error:
        raise InputError(
            f"{path}: ends early ({error}). Another program cut this work file; run the command with --overwrite."
        ) from None


class RowNumbers:
    """A work file of plain numbers, `width` numbers a row. A context manager that closes the file.

    Args:
      path: the file; None for a file that is never read.
      dtype: dtype of the numbers.
      width: numbers of a row.
    """

    def __init__(self, path: Path | None, dtype: type, width: int = 1):
        self._path, self._dtype, self._width = path, np.dtype(dtype), width
        self._file = None if path is None else os.open(path, os.O_RDONLY)

    def read(self, start: int, stop: int) -> np.ndarray:
        """Rows start to stop - 1: [n], or [n, width] for a width above 1. InputError where the file ends early."""
        row_bytes = self._width * self._dtype.itemsize
        data = os.pread(self._file, (stop - start) * row_bytes, start * row_bytes)
        if len(data) != (stop - start) * row_bytes:
            raise InputError(
                f"{self._path}: ends early. Another program cut this work file; run the command with --overwrite."
            )
        numbers = np.frombuffer(data, self._dtype)
        return numbers if self._width == 1 else numbers.reshape(-1, self._width)

    def __enter__(self) -> "RowNumbers":
        return self

    def __exit__(self, exception_type, exception, traceback) -> None:
        if self._file is not None:
            os.close(self._file)


def _arrow_schema(kind: str):
    import pyarrow

    return pyarrow.schema([("value", pyarrow.large_string() if kind == TEXT else pyarrow.int64())])


def _message(values, kind: str) -> np.ndarray:
    """A record batch as bytes: uint8 [bytes]."""
    import pyarrow

    array = values.to_arrow()
    batch = pyarrow.RecordBatch.from_arrays([array.cast(_arrow_schema(kind).field(0).type)], schema=_arrow_schema(kind))
    return np.frombuffer(batch.serialize(), np.uint8)
