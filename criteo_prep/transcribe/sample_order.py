"""The order of the samples in a pass over a split: in file order, shuffled by windows, or permuted.

The seed, the number of the pass and the place in the pass alone decide which row is read. So all processes agree on the
samples, also where they read different features, and a pass can start at any place.
"""

import threading

import numpy as np

from criteo_prep.batch import Batch, concatenate
from criteo_prep.transcribe.in_place import Reader

_ROUNDS = 6
_WINDOWS_KEPT = 2  # a batch may begin in one window and end in the next


class Sequential:
    """The samples in file order. Arguments as for WindowShuffle; seed and window have no effect."""

    def __init__(self, reader: Reader, seed: int, window: int):
        self._reader = reader

    def read(self, epoch: int, start: int, stop: int) -> Batch:
        """The samples at the places [start, stop) of pass number `epoch`."""
        return self._reader.read(start, stop)


class WindowShuffle:
    """The split in order, one window at a time; the samples of each window are permuted.

    Args:
      reader: reader of the split.
      seed: seed of the permutations, the same in all processes.
      window: samples in a window; two windows are held in memory.
    """

    def __init__(self, reader: Reader, seed: int, window: int):
        self._reader, self._seed, self._window = reader, seed, window
        self._lock = threading.Lock()
        self._windows: dict[tuple[int, int], tuple[Batch, np.ndarray]] = {}

    def read(self, epoch: int, start: int, stop: int) -> Batch:
        """The samples at the places [start, stop) of pass number `epoch`."""
        parts, size = [], self._window
        for number in range(start // size, -(-stop // size)):
            window, order = self._window_and_order(epoch, number)
            parts.append(window.take(order[max(start - number * size, 0) : stop - number * size]))
        return concatenate(parts) if parts else self._reader.read(start, stop)

    def _window_and_order(self, epoch: int, number: int) -> tuple[Batch, np.ndarray]:
        """The samples of a window in file order, and their permutation."""
        with self._lock:
            if (epoch, number) not in self._windows:
                while len(self._windows) >= _WINDOWS_KEPT:
                    del self._windows[next(iter(self._windows))]
                first = number * self._window
                batch = self._reader.read(first, min(first + self._window, self._reader.num_samples))
                generator = np.random.Generator(np.random.Philox(np.random.SeedSequence([self._seed, epoch, number])))
                self._windows[epoch, number] = batch, generator.permutation(batch.num_samples)
            return self._windows[epoch, number]


class FullPermutation:
    """One permutation of the whole split for each pass, computed place by place. Arguments as for WindowShuffle.

    A Feistel network on the smallest even number of bits that can count the samples. It is applied again to each result
    beyond the last sample, until the result is a sample.
    """

    def __init__(self, reader: Reader, seed: int, window: int):
        self._reader, self._seed = reader, seed

    def read(self, epoch: int, start: int, stop: int) -> Batch:
        """The samples at the places [start, stop) of pass number `epoch`."""
        return self._reader.take(self.rows(epoch, start, stop))

    def rows(self, epoch: int, start: int, stop: int) -> np.ndarray:
        """The rows of the split at these places, int64 [stop - start]."""
        num_samples = self._reader.num_samples
        half = max(1, (max(1, num_samples - 1).bit_length() + 1) // 2)
        keys = np.random.SeedSequence([self._seed, epoch]).generate_state(_ROUNDS, np.uint64)
        rows = _feistel(np.arange(start, stop, dtype=np.uint64), keys, half)
        while len(outside := np.flatnonzero(rows >= num_samples)):
            rows[outside] = _feistel(rows[outside], keys, half)
        return rows.astype(np.int64)


ORDERS = {"none": Sequential, "window": WindowShuffle, "full": FullPermutation}


def _feistel(values: np.ndarray, keys: np.ndarray, half: int) -> np.ndarray:
    """A bijection of the numbers of 2 * half bits, uint64 [n]."""
    mask, shift = np.uint64((1 << half) - 1), np.uint64(half)
    left, right = values >> shift, values & mask
    for key in keys:
        mixed = (right + key) * np.uint64(0x9E3779B97F4A7C15)
        mixed = (mixed ^ (mixed >> np.uint64(32))) * np.uint64(0xBF58476D1CE4E5B9)
        left, right = right, left ^ (mixed >> np.uint64(64 - half))
    return (left << shift) | right
