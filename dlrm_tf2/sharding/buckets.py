"""The buckets of a dynamic table: which rows each has, which rank owns it, and which keys belong to it.

A dynamic table has num_buckets * rows_per_bucket rows; bucket b owns the rows [b * rows_per_bucket, (b + 1) *
rows_per_bucket). A key belongs to one bucket, for any number of ranks:

    hash(key)   = mix64(key)                                     the finalizer of SplitMix64
    bucket(key) = ((hash >> 32) * num_buckets) >> 32
"""

import math
from typing import NamedTuple

import numpy as np

from criteo_prep.compiled import compiled
from criteo_prep.splitmix64 import mix64

BUCKET_CAPACITY = 16_384
MOST_BUCKETS = 256
_ROOM = 4.5  # standard deviations of the number of keys of a bucket, when `capacity` keys are stored


class Buckets(NamedTuple):
    """The buckets of one table."""

    num_buckets: int
    rows_per_bucket: int

    @property
    def num_rows(self) -> int:
        """Rows of the table; more than its capacity where there are several buckets."""
        return self.num_buckets * self.rows_per_bucket

    def of_rank(self, rank: int, world_size: int) -> range:
        """The buckets that a rank owns; none where there are more ranks than buckets and others own them."""
        return range(rank * self.num_buckets // world_size, (rank + 1) * self.num_buckets // world_size)

    def bucket_of(self, keys: np.ndarray) -> np.ndarray:
        """The bucket, int64 [n], of each key, int64 [n]."""
        return ((hash_of(keys) >> np.uint64(32)) * np.uint64(self.num_buckets) >> np.uint64(32)).astype(np.int64)


def buckets_of(capacity: int, bucket_capacity: int = BUCKET_CAPACITY) -> Buckets:
    """The buckets of a table in which `capacity` keys find room.

    One bucket has exactly `capacity` rows. Several have more together, because keys do not spread evenly.

    Raises:
      ValueError: a number is below 1.
    """
    if capacity < 1 or bucket_capacity < 1:
        raise ValueError(f"capacity: found {capacity} and a bucket capacity of {bucket_capacity}, expected 1 or more.")
    if capacity < 2 * bucket_capacity:
        return Buckets(1, capacity)
    num_buckets = min(MOST_BUCKETS, 1 << ((capacity // bucket_capacity).bit_length() - 1))
    mean = capacity / num_buckets
    return Buckets(num_buckets, math.ceil(mean + _ROOM * math.sqrt(mean)))


def hash_of(keys: np.ndarray) -> np.ndarray:
    """The hash, uint64 [n], of each key, int64 [n] of any values."""
    keys = np.ascontiguousarray(keys, np.int64)
    hashes = np.empty(len(keys), np.uint64)
    _hash(keys.view(np.uint64), hashes)
    return hashes


@compiled
def _hash(keys, out):
    for i in range(len(keys)):
        out[i] = mix64(keys[i])
