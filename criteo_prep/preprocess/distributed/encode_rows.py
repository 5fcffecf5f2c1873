"""A range of rows -> its bytes in the files of the dataset, which exist at full size."""

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from criteo_prep.preprocess.columns.id_table import IdTable
from criteo_prep.preprocess.columns.keys import Keys
from criteo_prep.preprocess.distributed.cluster import Record
from criteo_prep.preprocess.distributed.part_file import read_label, read_numerical
from criteo_prep.preprocess.distributed.row_ranges import RowRange, column_of, write_at, write_rows
from criteo_prep.preprocess.distributed.shuffled_rows import RandomOrder, deal_rows

_VALUE_BYTES, _ZERO_ROW_BYTES = 4, 8


@dataclass(frozen=True)
class SplitFile:
    """The file of a column, or of labels, or of numericals, in one split.

    Attributes:
      path: the file.
      rows: the rows of the split, as numbers in all rows.
      order: the random order of the rows; None for the order of the inputs.
    """

    path: Path
    rows: range
    order: RandomOrder | None = None


@dataclass(frozen=True)
class ColumnFiles:
    """A column, and the files that are made from it.

    Attributes:
      parts: the folder of the parts.
      number: number of the column among the columns of one exchange.
      column: number of the column.
      files: its file in each split.
      vocabulary: the vocabulary file; None for keys.
      cap: largest cardinality, or None.
      raw: the files of raw values and of zero rows; None where they are not kept.
      run: name of the run, because another run may have made another vocabulary by the same path.
    """

    parts: Path
    number: int
    column: int
    files: tuple[SplitFile, ...]
    vocabulary: Path | None
    cap: int | None
    raw: tuple[Path, Path] | None
    run: str


@dataclass(frozen=True)
class RowFiles:
    """The files of labels and numericals.

    Attributes:
      parts: the folder of the parts.
      labels: the label file of each split.
      numericals: the numerical file of each split.
    """

    parts: Path
    labels: tuple[SplitFile, ...]
    numericals: tuple[SplitFile, ...]


def encode_column(task: tuple[ColumnFiles, RowRange]) -> Iterator[Record]:
    """Writes the ids, or keys, of a range of rows of a column. Yields the rows that are shuffled, see deal_rows."""
    work, rows = task
    ids_of = _id_table(str(work.vocabulary), work.cap, work.run) if work.vocabulary else Keys()
    for part in rows.parts:
        values, zero_rows = column_of(work.parts, part, work.column)
        if work.raw:
            write_at(work.raw[0], _VALUE_BYTES * part.first_row, values)
            write_at(work.raw[1], _ZERO_ROW_BYTES * part.zeros_before[work.column], zero_rows + part.first_row)
        ids = ids_of.encode(values, zero_rows)
        yield from _write(work.files, part.first_row, data=ids, number=work.number)


def arrange_rows(work: RowFiles, rows: RowRange) -> Iterator[Record]:
    """Writes the labels and numericals of a range of rows. Yields the rows that are shuffled, see deal_rows."""
    for part in rows.parts:
        path = work.parts / part.name
        label, numerical = read_label(path, part.num_rows), read_numerical(path, part.num_rows)
        yield from _write(work.labels, part.first_row, data=label, number=0)
        yield from _write(work.numericals, part.first_row, data=numerical, number=1)


def encode_in_order(task: tuple[ColumnFiles, RowRange]) -> None:
    """encode_column for files in the order of the inputs."""
    assert not list(encode_column(task)), "no row is shuffled"


def arrange_in_order(work: RowFiles, rows: RowRange) -> None:
    """arrange_rows for files in the order of the inputs."""
    assert not list(arrange_rows(work, rows)), "no row is shuffled"


def _write(files: tuple[SplitFile, ...], first_row: int, *, data: np.ndarray, number: int) -> Iterator[Record]:
    for file in files:
        if file.order:
            yield from deal_rows(file.order, first_row, data=data, file=number)
        else:
            write_rows(file.path, file.rows, first_row=first_row, data=data)


@functools.lru_cache(maxsize=1)
def _id_table(path: str, cap: int | None, run: str) -> IdTable:
    """The table of a vocabulary file. A process keeps its last table: its next task is often of the same column.

    Args:
      path: the vocabulary file.
      cap: largest cardinality, or None.
      run: name of the run, a part of the key of the cache.
    """
    return IdTable.load(path, cap)
