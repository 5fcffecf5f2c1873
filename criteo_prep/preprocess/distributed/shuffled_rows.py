"""Train rows in random order: the same order as ShuffledFile, whose buckets are the partitions of an exchange here."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from criteo_prep.preprocess.distributed.cluster import Record
from criteo_prep.preprocess.distributed.row_ranges import write_at
from criteo_prep.preprocess.shuffle import bucket_sizes, buckets_of, order_in_bucket


@dataclass(frozen=True)
class RandomOrder:
    """A random order of rows.

    Attributes:
      seed: seed of the order.
      num_rows: number of rows, which are the first rows of all.
      sizes: int64 [buckets], rows in each bucket.
    """

    seed: int
    num_rows: int
    sizes: np.ndarray

    @classmethod
    def of(cls, seed: int, num_rows: int) -> "RandomOrder":
        return cls(seed, num_rows, bucket_sizes(seed, num_rows))

    @property
    def num_buckets(self) -> int:
        return len(self.sizes)


def deal_rows(order: RandomOrder, first_row: int, *, data: np.ndarray, file: int) -> Iterator[Record]:
    """Yields (number of the partition, (first row, rows)) of those rows of an array that are in the order.

    Args:
      order: the order.
      first_row: number of the array's first row in all rows.
      data: array [n, ...], consecutive rows.
      file: number of the file that the rows belong to; each file has a partition for each bucket.
    """
    data = data[: max(0, order.num_rows - first_row)]
    buckets = buckets_of(order.seed, range(first_row, first_row + len(data)), order.num_buckets)
    by_bucket = data[np.argsort(buckets, kind="stable")]
    stops = np.cumsum(np.bincount(buckets, minlength=order.num_buckets))
    start = 0
    for bucket, stop in enumerate(stops.tolist()):
        if start < stop:
            yield file * order.num_buckets + bucket, (first_row, by_bucket[start:stop].copy())
        start = stop


@dataclass(frozen=True)
class ShuffledFiles:
    """Files whose rows are in random order; each exists at full size."""

    order: RandomOrder
    paths: tuple[Path, ...]


def collect_rows(files: ShuffledFiles, number: int, contents: Iterator[tuple]) -> None:
    """Writes a bucket of a file in random order.

    Args:
      files: the files, numbered as in deal_rows.
      number: number of the partition.
      contents: what deal_rows yields for the partition, in any order.
    """
    order = files.order
    file, bucket = divmod(number, order.num_buckets)
    blocks = [rows for _, rows in sorted(contents, key=lambda content: content[0])]
    if not blocks:
        return
    rows = np.concatenate(blocks)
    assert len(rows) == order.sizes[bucket], "every row of the bucket is dealt once"
    place = int(order.sizes[:bucket].sum()) * rows[:1].nbytes
    write_at(files.paths[file], place, rows[order_in_bucket(order.seed, bucket, len(rows))])
