"""Parts as ranges of rows: what the tasks after the parse are divided by. And how such a task writes into a file."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import numpy as np

from criteo_prep.durable import naming
from criteo_prep.preprocess.distributed.part_file import PartFacts, read_values, read_zero_rows
from criteo_prep.schema import NUM_CATEGORICAL


@dataclass(frozen=True)
class PartRows:
    """A part and its place in all rows.

    Attributes:
      name: the file.
      num_rows: rows of the part.
      first_row: number of its first row in all rows.
      num_zeros: zeros of each column in the part.
      zeros_before: zeros of each column in all earlier parts.
    """

    name: str
    num_rows: int
    first_row: int
    num_zeros: tuple[int, ...]
    zeros_before: tuple[int, ...]

    @property
    def rows(self) -> range:
        return range(self.first_row, self.first_row + self.num_rows)


@dataclass(frozen=True)
class RowRange:
    """Consecutive parts, for one task."""

    parts: tuple[PartRows, ...]

    @property
    def rows(self) -> range:
        return range(self.parts[0].rows.start, self.parts[-1].rows.stop)


def rows_of_parts(facts: Sequence[PartFacts]) -> list[PartRows]:
    """The parts that have rows, in order."""
    starts = accumulate((part.num_rows for part in facts), initial=0)
    before, parts = (0,) * NUM_CATEGORICAL, []
    for part, first_row in zip(facts, starts, strict=False):
        if part.num_rows:
            parts.append(PartRows(part.name, part.num_rows, first_row, num_zeros=part.num_zeros, zeros_before=before))
        before = tuple(have + more for have, more in zip(before, part.num_zeros, strict=True))
    return parts


def row_ranges(parts: Sequence[PartRows], task_rows: int) -> list[RowRange]:
    """The parts in runs of about task_rows rows."""
    ranges: list[RowRange] = []
    run: list[PartRows] = []
    for part in parts:
        run.append(part)
        if sum(each.num_rows for each in run) >= task_rows:
            ranges.append(RowRange(tuple(run)))
            run = []
    return [*ranges, RowRange(tuple(run))] if run else ranges


def column_of(folder: Path, part: PartRows, column: int) -> tuple[np.ndarray, np.ndarray]:
    """A column of a part: (values uint32 [n], zero rows int64 [k] from the start of the part)."""
    path = folder / part.name
    zero_rows = read_zero_rows(path, part.num_rows, num_zeros=part.num_zeros, column=column)
    return read_values(path, part.num_rows, column), zero_rows


def make_file(path: Path, num_bytes: int) -> None:
    """Makes a file of zeros, into which tasks write."""
    with open(path, "wb") as file:
        file.truncate(num_bytes)


def write_at(path: Path, place: int, data: np.ndarray) -> None:
    """Writes an array into an existing file, from byte `place` on. The same call may run twice at the same time."""
    rest = memoryview(np.ascontiguousarray(data)).cast("B") if data.size else b""
    descriptor = os.open(path, os.O_WRONLY)
    try:
        with naming(path):
            while rest:
                count = os.pwrite(descriptor, rest, place)
                rest, place = rest[count:], place + count
    finally:
        os.close(descriptor)


def write_rows(path: Path, rows: range, *, first_row: int, data: np.ndarray) -> None:
    """Writes those rows of an array that a file has.

    Args:
      path: an existing file.
      rows: the rows that the file has, as numbers in all rows.
      first_row: number of the array's first row.
      data: array [n, ...], consecutive rows.
    """
    start, stop = max(rows.start, first_row), min(rows.stop, first_row + len(data))
    if start < stop:
        here = data[start - first_row : stop - first_row]
        write_at(path, (start - rows.start) * here[:1].nbytes, here)
