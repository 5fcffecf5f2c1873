"""Parquet and Arrow IPC as frames, with the types of their columns."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from criteo_prep.messages import one_line, shown
from criteo_prep.preprocess.locations import Location, open_location
from criteo_prep.preprocess.parquet_file import open_parquet
from criteo_prep.preprocess.parse.text_stream import InputError
from criteo_prep.preprocess.parse.tsv import BadRowError

BLOCK_ROWS = 1 << 16


class ParquetFile:
    """One parquet file."""

    def __init__(self, path: Location):
        self.path = path

    def columns(self) -> list[str]:
        """Names of all columns."""
        with open_parquet(self.path, InputError) as file:
            return file.schema_arrow.names

    def num_rows(self) -> int:
        with open_parquet(self.path, InputError) as file:
            return file.metadata.num_rows

    def blocks(self, columns: tuple[str, ...], position: int = 0, rows_before: int = 0) -> Iterator[tuple]:
        """Yields (polars DataFrame, position after it, 0), where a position is a number of rows; see CsvFile.blocks."""
        import polars

        done = 0
        with open_parquet(self.path, InputError) as file:
            for group in range(file.num_row_groups):
                rows = file.metadata.row_group(group).num_rows
                if done + rows <= position:
                    done += rows
                    continue
                for batch in file.iter_batches(BLOCK_ROWS, row_groups=[group], columns=list(columns)):
                    start, done = done, done + batch.num_rows
                    if done > position:
                        rows = batch.select(columns).slice(max(0, position - start))
                        yield polars.from_arrow(_checked(rows, self.path, done)), done, 0


class ArrowFile:
    """One file of Arrow IPC: the file form (Feather) or the stream form."""

    def __init__(self, path: Location):
        self.path = path

    def columns(self) -> list[str]:
        """Names of all columns."""
        with self._batches() as (schema, _):
            return schema.names

    def num_rows(self) -> int:
        with self._batches() as (_, batches):
            return sum(batch.num_rows for batch in batches)

    def blocks(self, columns: tuple[str, ...], position: int = 0, rows_before: int = 0) -> Iterator[tuple]:
        """Yields (polars DataFrame, position after it, 0), where a position is a number of rows; see CsvFile.blocks."""
        import polars

        done = 0
        with self._batches() as (_, batches):
            for batch in batches:
                for first in range(0, batch.num_rows, BLOCK_ROWS):
                    part = batch.slice(first, BLOCK_ROWS)
                    start, done = done, done + part.num_rows
                    if done > position:
                        rows = part.select(columns).slice(max(0, position - start))
                        yield polars.from_arrow(_checked(rows, self.path, done)), done, 0

    @contextlib.contextmanager
    def _batches(self):
        """Yields (schema, iterator of record batches)."""
        import pyarrow
        import pyarrow.ipc

        try:
            with self._stored() as stored:
                if stored.read(6) == b"ARROW1":
                    stored.seek(0)
                    file = pyarrow.ipc.open_file(stored)
                    yield file.schema, (file.get_batch(number) for number in range(file.num_record_batches))
                else:
                    stored.seek(0)
                    stream = pyarrow.ipc.open_stream(stored)
                    yield stream.schema, iter(stream)
        except (pyarrow.ArrowException, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise InputError(
                f"{self.path}: is not a whole Arrow IPC file: {one_line(str(error), 200)}. Fetch or make it again."
            ) from None

    def _stored(self):
        """The file, open: a local one is mapped, a remote one is read where it is needed."""
        import pyarrow

        if isinstance(self.path, Path):
            return pyarrow.memory_map(str(self.path))
        return pyarrow.PythonFile(open_location(self.path, in_order=False), mode="r")


def _checked(rows, path: Location, stop: int):
    """A record batch whose buffers are what its types say; polars trusts them.

    Args:
      rows: the record batch.
      path: the file, for the message.
      stop: number of rows up to the end of the batch.

    Raises:
      BadRowError: text is not UTF-8, or the file is damaged.
    """
    import pyarrow

    for name, column in zip(rows.schema.names, rows.columns, strict=True):
        try:
            column.validate(full=True)
        except pyarrow.ArrowInvalid as error:
            reason = "holds text that is not UTF-8" if "UTF8" in str(error) else "is damaged"
            where = f"{path}: rows {stop - rows.num_rows + 1} to {stop}, column {shown(name)}"
            raise BadRowError(f"{where}: {reason}: {one_line(str(error), 100)}. Write the file again.") from None
    return rows
