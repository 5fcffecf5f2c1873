"""The buckets of a column -> its ids -> its vocabulary file. The id rule: (count descending, value ascending).

A bucket is a range of values, and its values are sorted by the same rule. So the ids follow from the numbers alone: of
all values with a higher count; then, of the values with an equal count, all in earlier buckets.
"""

import os
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from criteo_prep.preprocess.columns.vocabulary import Ranking, write_vocabulary
from criteo_prep.preprocess.distributed.counts import Bucket


@dataclass(frozen=True)
class RankedBucket:
    """A bucket and the ids of its values.

    Attributes:
      file: name of the file with the values, in the order of their ids.
      first_ids: int64 [runs], ascending: the id of the first value of each run.
      lengths: int64 [runs], number of values of each run; their ids are consecutive.
    """

    file: str
    first_ids: np.ndarray
    lengths: np.ndarray


@dataclass(frozen=True)
class VocabularyJob:
    """A vocabulary file to write.

    Attributes:
      path: the file.
      folder: the folder of the bucket files.
      ranking: the ids and their counts.
      buckets: the buckets of the column.
      cap: largest cardinality, or None.
    """

    path: Path
    folder: Path
    ranking: Ranking
    buckets: tuple[RankedBucket, ...]
    cap: int | None


def rank_buckets(buckets: Sequence[Bucket]) -> tuple[Ranking, tuple[RankedBucket, ...]]:
    """The ids of a column.

    Args:
      buckets: the buckets of the column, by ascending values.
    """
    counts = np.unique(np.concatenate([bucket.counts for bucket in buckets]))[::-1]
    runs = [np.searchsorted(-counts, -bucket.counts) for bucket in buckets]
    totals = np.zeros(len(counts), np.int64)
    for run, bucket in zip(runs, buckets, strict=True):
        totals[run] += bucket.lengths
    next_ids = 1 + np.cumsum(totals) - totals
    ranking = Ranking(int(totals.sum()), next_ids.copy(), counts)
    ranked = []
    for run, bucket in zip(runs, buckets, strict=True):
        ranked.append(RankedBucket(bucket.file, next_ids[run], bucket.lengths))
        next_ids[run] += bucket.lengths
    return ranking, tuple(ranked)


def write_column_vocabulary(job: VocabularyJob) -> None:
    """Writes the vocabulary file of a column; 128 MiB of values are in memory at a time."""

    def select(first: int, values: np.ndarray) -> None:
        for bucket in job.buckets:
            fill_values(job.folder / bucket.file, bucket, first=first, values=values)

    temporary = job.path.parent / f".{job.path.name}.{uuid.uuid4().hex}"
    try:
        write_vocabulary(temporary, job.ranking, select=select, cap=job.cap)
        os.replace(temporary, job.path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def fill_values(path: Path, bucket: RankedBucket, *, first: int, values: np.ndarray) -> None:
    """Fills values[i] with the value whose id is first + i, for the ids of a bucket.

    Args:
      path: the file of the bucket.
      bucket: the bucket.
      first: id of values[0].
      values: uint32 [n].
    """
    ends = bucket.first_ids + bucket.lengths
    stop = first + len(values)
    run = slice(np.searchsorted(ends, first, side="right"), np.searchsorted(bucket.first_ids, stop))
    if run.start >= run.stop:
        return
    places = np.cumsum(bucket.lengths) - bucket.lengths  # of each run in the file
    starts, lengths, place = bucket.first_ids[run].copy(), bucket.lengths[run].copy(), int(places[run.start])
    before = max(0, first - int(starts[0]))  # values of the first run with lower ids
    starts[0], lengths[0], place = starts[0] + before, lengths[0] - before, place + before
    lengths[-1] -= max(0, int(starts[-1] + lengths[-1]) - stop)
    within = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    values[np.repeat(starts - first, lengths) + within] = np.fromfile(
        path, np.uint32, count=int(lengths.sum()), offset=4 * place
    )
