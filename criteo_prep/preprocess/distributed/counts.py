"""Values of a range of rows -> counts -> the buckets of a column: each bucket a range of values, sorted by the id rule.

A task counts the values of its rows by sorting them. Each count goes to the bucket of its value. A bucket adds the
counts of all tasks, and keeps the values that have an id, sorted by (count descending, value ascending).
"""

import os
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from criteo_prep.durable import naming
from criteo_prep.preprocess.distributed.cluster import Record
from criteo_prep.preprocess.distributed.part_file import read_sample
from criteo_prep.preprocess.distributed.row_ranges import PartRows, RowRange, column_of
from criteo_prep.preprocess.parse.raw_columns import append
from criteo_prep.schema import NUM_CATEGORICAL

_PENDING_VALUES = 1 << 22  # counts that are collected before they are added up


@dataclass(frozen=True)
class CountJob:
    """What is counted.

    Attributes:
      parts: the folder of the parts.
      columns: numbers of the columns.
      boundaries: for each of these columns uint32 [buckets - 1], ascending: the least value of each bucket but the
        first.
      thresholds: for each of these columns, the least count of a value with an id.
      counted: the rows that are counted.
      folder: the folder of the bucket files.
    """

    parts: Path
    columns: tuple[int, ...]
    boundaries: tuple[np.ndarray, ...]
    thresholds: tuple[int, ...]
    counted: range
    folder: Path

    @property
    def first_buckets(self) -> np.ndarray:
        """int64 [columns + 1], the number of the first bucket of each column, and the number of all buckets."""
        return np.cumsum([0, *(len(boundaries) + 1 for boundaries in self.boundaries)])


@dataclass(frozen=True)
class Bucket:
    """The values of a bucket that have an id, as runs of equal counts.

    Attributes:
      file: name of the file with the values, uint32, by (count descending, value ascending).
      counts: int64 [runs], descending.
      lengths: int64 [runs], number of values of each run.
    """

    file: str
    counts: np.ndarray
    lengths: np.ndarray


def choose_boundaries(folder: Path, parts: Sequence[PartRows], *, num_buckets: int) -> list[np.ndarray]:
    """Boundaries for every column that put about as many rows into each bucket, by a sample of the rows.

    Args:
      folder: the folder of the parts.
      parts: the parts whose rows are counted.
      num_buckets: wanted number of buckets; a column in which few values have most of the rows gets fewer.
    """
    if num_buckets == 1:
        return [np.empty(0, np.uint32)] * NUM_CATEGORICAL
    samples = [read_sample(folder / part.name, part.num_rows, part.num_zeros) for part in parts]
    sample = np.sort(np.concatenate(samples, axis=1), axis=1)
    places = np.arange(1, num_buckets) * sample.shape[1] // num_buckets
    return [np.unique(column[places]) for column in sample]


def deal_counts(job: CountJob, rows: RowRange) -> Iterator[Record]:
    """Yields (number of the bucket, (values uint32 [k] ascending, counts int64 [k])) of a range of rows."""
    firsts = job.first_buckets
    for number, column in enumerate(job.columns):
        values, counts = _count(job, rows, column)
        cuts = [0, *np.searchsorted(values, job.boundaries[number]).tolist(), len(values)]
        for bucket, (start, stop) in enumerate(zip(cuts, cuts[1:], strict=False)):
            if start < stop:
                yield int(firsts[number] + bucket), (values[start:stop].copy(), counts[start:stop].copy())


def collect_counts(job: CountJob, number: int, contents: Iterator[tuple]) -> Bucket:
    """Adds the counts of a bucket, and writes its values.

    Args:
      job: what is counted.
      number: number of the bucket.
      contents: what deal_counts yields for the bucket, in any order.
    """
    sums, pending, size = (np.empty(0, np.uint32), np.empty(0, np.int64)), [], 0
    for values, counts in contents:
        pending.append((values, counts))
        size += len(values)
        if size >= max(_PENDING_VALUES, len(sums[0])):
            sums, pending, size = add_counts([sums, *pending]), [], 0
    values, counts = add_counts([sums, *pending])
    column = int(np.searchsorted(job.first_buckets, number, side="right")) - 1
    kept = counts >= max(job.thresholds[column], 1)
    values, counts = values[kept], counts[kept]
    order = np.argsort(-counts, kind="stable")
    run_starts = np.flatnonzero(np.diff(counts[order], prepend=-1))
    file = f"bucket-{number:06d}"
    temporary = job.folder / f".{file}.{uuid.uuid4().hex}"
    with naming(temporary), open(temporary, "xb", buffering=0) as stream:
        append(stream, values[order])
    os.replace(temporary, job.folder / file)
    return Bucket(file, counts[order][run_starts], np.diff(run_starts, append=len(order)))


def add_counts(counted: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Adds the counts of equal values.

    Args:
      counted: (values uint32 [k], counts int64 [k]) each.

    Returns:
      (values uint32 [distinct] ascending, counts int64 [distinct]).
    """
    values = np.concatenate([values for values, _ in counted])
    counts = np.concatenate([counts for _, counts in counted])
    if not len(values):
        return values, counts
    order = np.argsort(values, kind="stable")
    values = values[order]
    firsts = np.flatnonzero(np.r_[True, values[1:] != values[:-1]])
    return values[firsts], np.add.reduceat(counts[order], firsts)


def _count(job: CountJob, rows: RowRange, column: int) -> tuple[np.ndarray, np.ndarray]:
    """(values uint32 [distinct] ascending, counts int64 [distinct]) of the rows that are counted."""
    blocks, num_zeros = [np.empty(0, np.uint32)], 0
    for part in rows.parts:
        start = max(0, job.counted.start - part.first_row)
        stop = min(part.num_rows, job.counted.stop - part.first_row)
        if start < stop:
            values, zero_rows = column_of(job.parts, part, column)
            blocks.append(values[start:stop])
            num_zeros += int(np.count_nonzero((zero_rows >= start) & (zero_rows < stop)))
    values, counts = np.unique(np.concatenate(blocks), return_counts=True)
    if len(values) and values[0] == 0:  # missing values are 0 too
        counts[0] = num_zeros
        values, counts = values[num_zeros == 0 :], counts[num_zeros == 0 :]
    return values, counts
