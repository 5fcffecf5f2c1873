"""A random order of rows in bounded memory: each row once, and the same order for every file of a split.

A random number, computed from the seed and i, puts row i into a bucket. Then each bucket is shuffled in memory, and the
buckets follow one another. All orders are equally likely, as far as the random numbers are random. The order depends on
the seed and on the number of rows alone. Rows are moved as integers, so their bits stay as they are.

Source: Rao (1961) and Sandelius (1962), shuffling by distribution.
"""

import os
from pathlib import Path

import numpy as np

from criteo_prep.compiled import compiled
from criteo_prep.splitmix64 import GAMMA, mix64

BUCKET_ROWS = 1 << 22  # mean number of rows in a bucket: 104 MiB of numericals
_BUFFER_BYTES = 1 << 15  # bytes of a bucket that are collected before they are written


class ShuffledFile:
    """Takes rows in order and writes them to `path` in random order. A context manager: its clean exit writes `path`.

    Args:
      path: the file to make.
      scratch: path of a temporary file of the same size.
      num_rows: number of rows that `write` will take.
      dtype, width: a row is `width` numbers of `dtype`.
      seed: seed of the order.
    """

    def __init__(self, path: Path, scratch: Path, *, num_rows: int, dtype: np.dtype, width: int, seed: int):
        self._path, self._scratch, self._num_rows, self._seed = path, scratch, num_rows, seed
        self._dtype, self._width = np.dtype(f"u{np.dtype(dtype).itemsize}"), width
        num_buckets = num_buckets_of(num_rows)
        self._sizes = _bucket_sizes(seed, num_rows, num_buckets)
        self._starts = np.cumsum(self._sizes) - self._sizes
        capacity = max(1, _BUFFER_BYTES // (self._dtype.itemsize * width))
        self._buffers = np.empty((num_buckets, capacity, width), self._dtype)
        self._filled, self._written = np.zeros(num_buckets, np.int64), np.zeros(num_buckets, np.int64)
        self._taken = 0
        self._file = os.open(scratch, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644)

    def write(self, rows: np.ndarray) -> None:
        """Takes the next rows: [n] or [n, width]."""
        rows = np.ascontiguousarray(rows).reshape(len(rows), self._width).view(self._dtype)
        done = 0
        while done < len(rows):
            done, full = _deal(rows, done, self._taken, self._seed, self._buffers, self._filled)
            if full >= 0:
                self._flush(full)
        self._taken += len(rows)

    def _flush(self, bucket: int) -> None:
        data = self._buffers[bucket, : self._filled[bucket]]
        place = (self._starts[bucket] + self._written[bucket]) * self._width * self._dtype.itemsize
        rest = memoryview(np.ascontiguousarray(data)).cast("B") if data.size else b""
        try:
            while rest:
                count = os.pwrite(self._file, rest, int(place))
                rest, place = rest[count:], place + count
        except OSError as error:
            error.filename = str(self._scratch)
            raise
        self._written[bucket] += self._filled[bucket]
        self._filled[bucket] = 0

    def _finish(self) -> None:
        assert self._taken == self._num_rows, "write takes exactly num_rows rows"
        for bucket in range(len(self._sizes)):
            self._flush(bucket)
        with open(self._path, "wb", buffering=0) as out:
            for bucket, size in enumerate(self._sizes.tolist()):
                rows = np.empty((size, self._width), self._dtype)
                rest, place = memoryview(rows.reshape(-1)).cast("B"), int(self._starts[bucket]) * rows[:1].nbytes
                while rest:
                    count = os.preadv(self._file, [rest], place)
                    assert count, "the scratch file is ours and whole"
                    rest, place = rest[count:], place + count
                data = memoryview(rows[_permutation(self._seed, bucket, size)].reshape(-1)).cast("B") if size else b""
                try:
                    while data:
                        data = data[out.write(data) :]
                except OSError as error:
                    error.filename = str(self._path)
                    raise

    def __enter__(self) -> "ShuffledFile":
        return self

    def __exit__(self, exception_type, exception, traceback) -> None:
        try:
            if exception_type is None:
                self._finish()
        finally:
            os.close(self._file)
            self._scratch.unlink(missing_ok=True)


def order_of(seed: int, num_rows: int) -> np.ndarray:
    """The order of ShuffledFile, in memory: int64 [num_rows], the row at each position."""
    num_buckets = num_buckets_of(num_rows)
    bucket = np.array([_bucket(np.uint64(seed), i, num_buckets) for i in range(num_rows)], np.int64)
    parts = [np.flatnonzero(bucket == b) for b in range(num_buckets)]
    return np.concatenate([part[_permutation(seed, b, len(part))] for b, part in enumerate(parts)])


def num_buckets_of(num_rows: int) -> int:
    """Number of buckets of a random order."""
    return max(1, -(-num_rows // BUCKET_ROWS))


def bucket_sizes(seed: int, num_rows: int) -> np.ndarray:
    """int64 [num_buckets_of(num_rows)], the rows in each bucket."""
    return _bucket_sizes(seed, num_rows, num_buckets_of(num_rows))


def buckets_of(seed: int, rows: range, num_buckets: int) -> np.ndarray:
    """int64 [len(rows)], the bucket of each row."""
    return _buckets(seed, rows.start, len(rows), num_buckets)


def order_in_bucket(seed: int, bucket: int, size: int) -> np.ndarray:
    """int64 [size], the order of a bucket's rows: the number of the row at each position."""
    return _permutation(seed, bucket, size)


@compiled
def _bucket(seed, row, num_buckets):
    """The bucket of a row."""
    random = mix64(mix64(np.uint64(seed) + GAMMA) + np.uint64(row) * GAMMA)
    return np.int64(((random >> np.uint64(32)) * np.uint64(num_buckets)) >> np.uint64(32))


@compiled
def _buckets(seed, first_row, num_rows, num_buckets):
    """The bucket of each row from `first_row` on: int64 [num_rows]."""
    buckets = np.empty(num_rows, np.int64)
    for i in range(num_rows):
        buckets[i] = _bucket(seed, first_row + i, num_buckets)
    return buckets


@compiled
def _bucket_sizes(seed, num_rows, num_buckets):
    """The number of rows in each bucket: int64 [num_buckets]."""
    sizes = np.zeros(num_buckets, np.int64)
    for row in range(num_rows):
        sizes[_bucket(seed, row, num_buckets)] += 1
    return sizes


@compiled
def _deal(rows, start, first_row, seed, buffers, filled):
    """Puts rows[start:] into the buffers of their buckets, until a buffer is full.

    Args:
      first_row: the number of rows[0] in the whole file.

    Returns:
      (rows of `rows` that are done, the bucket whose buffer is full, or -1)
    """
    num_buckets, capacity, width = buffers.shape
    for i in range(start, rows.shape[0]):
        bucket = _bucket(seed, first_row + i, num_buckets)
        place = filled[bucket]
        for column in range(width):
            buffers[bucket, place, column] = rows[i, column]
        filled[bucket] = place + 1
        if place + 1 == capacity:
            return i + 1, bucket
    return rows.shape[0], -1


@compiled
def _permutation(seed, bucket, size):
    """A random order of a bucket's rows, by Fisher and Yates: int64 [size]."""
    order = np.arange(size)
    key = mix64(mix64(np.uint64(seed) + np.uint64(2) * GAMMA) + np.uint64(bucket))
    for i in range(size - 1, 0, -1):
        random = mix64(key + np.uint64(i) * GAMMA)
        other = np.int64(((random >> np.uint64(32)) * np.uint64(i + 1)) >> np.uint64(32))
        order[i], order[other] = order[other], order[i]
    return order
