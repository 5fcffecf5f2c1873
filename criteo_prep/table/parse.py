"""The input files -> the work files: every file once, blocks in parallel; a stopped run resumes at its checkpoint."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from criteo_prep.messages import one_line, shown
from criteo_prep.parallel import in_order
from criteo_prep.preprocess.locations import Location, RemoteError, check_unchanged
from criteo_prep.preprocess.parse.row_writer import CHECKPOINT_BYTES
from criteo_prep.preprocess.parse.text_stream import InputError
from criteo_prep.preprocess.parse.tsv import BadRowError
from criteo_prep.progress import Progress
from criteo_prep.table.document_values import SchemaError
from criteo_prep.table.files import format_of
from criteo_prep.table.journal import ParsedTable, TableJournal
from criteo_prep.table.read_arrow import ArrowFile, ParquetFile
from criteo_prep.table.read_csv import CsvFile
from criteo_prep.table.read_ndjson import NdjsonFile
from criteo_prep.table.row_values import TableRows, rows_of
from criteo_prep.table.schema import TableSchema
from criteo_prep.table.work_files import WorkFiles


@dataclass(frozen=True)
class TableParsing:
    """How files are parsed.

    Attributes:
      schema: what the columns are.
      skip_bad_rows: whether bad rows are left out and counted; else the first bad row is an error.
      labelled: whether there is a label; else all labels are False.
      workers: blocks in work at a time.
      checkpoint_bytes: output between two checkpoints.
    """

    schema: TableSchema
    skip_bad_rows: bool
    labelled: bool
    workers: int
    checkpoint_bytes: int = CHECKPOINT_BYTES

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns to read."""
        label = () if self.labelled else (self.schema.label.column,)
        features = {each.column for each in (*self.schema.numerical, *self.schema.categorical)}
        needed = [self.schema.split.reads] if self.labelled else []  # new rows have no splits
        return tuple(name for name in self.schema.columns if name in features or name in needed or name not in label)


def open_table(path: Location, schema: TableSchema, skip_bad_rows: bool = False):
    """The reader of a file: a CsvFile, NdjsonFile, ParquetFile or ArrowFile."""
    kind = format_of(path, schema.read.format)
    if kind == "csv":
        return CsvFile(path, schema.read, skip_bad_rows)
    return {"ndjson": NdjsonFile, "parquet": ParquetFile, "arrow": ArrowFile}[kind](path)


def check_columns(paths: Sequence[Location], schema: TableSchema, columns: tuple[str, ...]) -> list[str]:
    """Checks that every file has the columns. Returns the names of columns of the first file that are not used.

    Raises:
      SchemaError: a file lacks a column, or has it twice.
    """
    unused: list[str] = []
    for number, path in enumerate(paths):
        found = open_table(path, schema).columns()
        for name in columns:
            if name not in found:
                others = ", ".join(map(shown, found[:20])) + (", ..." if len(found) > 20 else "")
                other = f", which {paths[0]} has" if number else ""
                raise SchemaError(
                    f"{path}: has no column {shown(name)}{other}; its columns are {others}. Correct the schema, or the "
                    "delimiter in it."
                )
            if found.count(name) > 1:
                raise SchemaError(f"{path}: has {found.count(name)} columns named {shown(name)}. Rename one.")
        if not number:
            unused = [name for name in found if name not in columns]
    return unused


def parse_tables(
    paths: Sequence[Location], *, journal: TableJournal, parsing: TableParsing, progress: Progress
) -> None:
    """Parses the files, starting at the position that the journal has.

    Raises:
      BadRowError: a row is bad, and bad rows are not skipped; the error names file, row and column.
      SchemaError: a column has a type that cannot be, or a file differs from the first one.
      InputError, ChangedError, OSError: a file cannot be read, or changed, or the disk is full.
    """
    with WorkFiles(journal.folder, parsing.schema, journal.sizes) as files:
        for number, path in enumerate(paths):
            if number == len(journal.files):
                journal.files.append(ParsedTable(str(path)))
            file = journal.files[number]
            if file.finished:
                continue
            try:
                with contextlib.closing(_parsed_blocks(path, file, parsing=parsing)) as blocks:
                    for rows, position, num_left_out in blocks:
                        _take(file, rows, journal=journal, parsing=parsing)
                        files.write(rows, journal.kinds)
                        _advance(file, rows, position=position, num_left_out=num_left_out)
                        journal.num_positive += int(np.count_nonzero(rows.label))
                        progress.advance(rows.num_rows)
                        if sum(files.sizes.values()) - sum(journal.sizes.values()) >= parsing.checkpoint_bytes:
                            _save(journal, files)
            except (ValueError, OSError, KeyboardInterrupt):
                with contextlib.suppress(OSError):  # on a full disk; the earlier checkpoint remains
                    _save(journal, files)
                with contextlib.suppress(RemoteError):  # a change explains best why a row is bad
                    check_unchanged(path, journal.wanted["inputs"][number])
                raise
            check_unchanged(path, journal.wanted["inputs"][number])
            file.finished = True
        journal.parsed = True
        _save(journal, files)


def _save(journal: TableJournal, files: WorkFiles) -> None:
    journal.sizes = files.sizes
    journal.save()


def _parsed_blocks(path: Location, file: ParsedTable, *, parsing: TableParsing) -> Iterator[tuple[TableRows, int, int]]:
    """Yields (rows, position after them, rows of the file left out so far), starting at the position of `file`."""
    table = open_table(path, parsing.schema, parsing.skip_bad_rows)

    def jobs() -> Iterator[Callable]:
        for frame, position, num_left_out in table.blocks(parsing.columns, file.position, file.num_read):
            yield partial(_job, frame, position, num_left_out=num_left_out, parsing=parsing, path=path)

    yield from in_order(lambda job: job(), jobs(), workers=parsing.workers)


def _job(
    frame, position: int, *, num_left_out: int, parsing: TableParsing, path: Location
) -> tuple[TableRows, int, int]:
    import polars

    try:
        rows = rows_of(frame, parsing.schema, path=path, labelled=parsing.labelled)
    except polars.exceptions.PolarsError as error:
        raise InputError(f"{path}: holds values that cannot be read: {one_line(str(error), 200)}.") from None
    return rows, position, num_left_out


def _take(file: ParsedTable, rows: TableRows, *, journal: TableJournal, parsing: TableParsing) -> None:
    """Checks a block against the blocks before it. Raises BadRowError or SchemaError."""
    for bad in sorted(rows.bad, key=lambda bad: bad.row):
        where = f"{file.path}: row {file.num_read + bad.row + 1}, {bad.found}"
        if not parsing.skip_bad_rows:
            raise BadRowError(f"{where}. Correct the row, or add --on_bad_row skip to leave such rows out.")
    label = parsing.schema.label
    values = [*dict.fromkeys([*filter(None, [journal.negative]), *rows.others])]
    if len(values) > 1:
        found = ", ".join(map(shown, [label.positive, *values]))
        raise SchemaError(
            f"{file.path}: rows {file.num_read + 1} to {file.num_read + rows.num_rows}, column {shown(label.column)}: "
            f"the label has the values {found}; expected two, of which {shown(label.positive)} is positive. Correct "
            "`positive` in the schema, or the data."
        )
    journal.negative = values[0] if values else None
    if not journal.kinds:
        journal.kinds = rows.kinds
    for each, before, now in zip(parsing.schema.categorical, journal.kinds, rows.kinds, strict=True):
        if tuple(before) != tuple(now):
            raise SchemaError(
                f"{file.path}: column {shown(each.column)} has {_words(now)}, but {_words(before)} in "
                f"{journal.files[0].path}. Give the column a type in the schema (type: text), or convert the file."
            )


def _words(kind) -> str:
    return f"{'lists of ' if kind.is_list else ''}{kind.values} values"


def _advance(file: ParsedTable, rows: TableRows, *, position: int, num_left_out: int) -> None:
    """Adds a block to the record of its file."""
    reason = "wrong_number_of_fields"
    new = num_left_out - file.skipped.get(reason, 0)
    if new:
        file.skipped[reason] = num_left_out
        where = f"{file.path}: near rows {file.num_read + 1} to {file.num_read + rows.num_rows}"
        file.first_skipped.setdefault(reason, f"{where}, {new} rows have a wrong number of fields")
    for bad in rows.bad:
        file.skipped[bad.reason] = file.skipped.get(bad.reason, 0) + int(bad.rows.sum())
        file.first_skipped.setdefault(bad.reason, f"{file.path}: row {file.num_read + bad.row + 1}, {bad.found}")
    file.num_rows += len(rows.label)
    file.num_read += rows.num_rows + new
    file.position = position


def refuse_no_rows(journal: TableJournal) -> None:
    """Raises InputError where no file has a good row."""
    if not journal.num_rows:
        raise InputError(f"{journal.files[0].path}: no good row in {len(journal.files)} file(s).")
