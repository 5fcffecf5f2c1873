"""In which order a pass over a tf_raw split takes its samples: as they stand, shuffled by windows, or permuted.

A sample's place in a pass decides which row of the split it is, by the seed and the number of the pass alone. So every
process takes the same samples whatever it reads of them, and a pass can be begun at any place.
"""

import threading

import numpy as np

from criteo_prep.batch import Batch, joined
from criteo_prep.transcribe.random_reads import take_samples
from criteo_prep.transcribe.tf_raw import Reader

_ROUNDS = 6
_WINDOWS_KEPT = 2  # a batch may end in the window after the one that it begins in


class InOrder:
    """The samples as they stand. Arguments as for ByWindow, so that one can stand for the other."""

    def __init__(self, reader: Reader, seed: int, window: int):
        self._reader = reader

    def read(self, epoch: int, start: int, stop: int) -> Batch:
        """The samples at the places [start, stop) of pass number `epoch`."""
        return self._reader.read(start, stop)


class ByWindow:
    """The split in order, `window` samples at a time, each window's samples permuted.

    Args:
      reader: of the split.
      seed: the same in all processes.
      window: samples; two windows are held in memory.
    """

    def __init__(self, reader: Reader, seed: int, window: int):
        self._reader, self._seed, self._window = reader, seed, window
        self._lock = threading.Lock()
        self._kept: dict[tuple[int, int], tuple[Batch, np.ndarray]] = {}

    def read(self, epoch: int, start: int, stop: int) -> Batch:
        """The samples at the places [start, stop) of pass number `epoch`."""
        parts, size = [], self._window
        for number in range(start // size, -(-stop // size)):
            window, order = self._of(epoch, number)
            parts.append(window.take(order[max(start - number * size, 0) : stop - number * size]))
        return joined(parts) if parts else self._reader.read(start, stop)

    def _of(self, epoch: int, number: int) -> tuple[Batch, np.ndarray]:
        """A window as it stands, and the order of its samples."""
        with self._lock:
            if (epoch, number) not in self._kept:
                while len(self._kept) >= _WINDOWS_KEPT:
                    del self._kept[next(iter(self._kept))]
                first = number * self._window
                batch = self._reader.read(first, min(first + self._window, self._reader.num_samples))
                generator = np.random.Generator(np.random.Philox(np.random.SeedSequence([self._seed, epoch, number])))
                self._kept[epoch, number] = batch, generator.permutation(batch.num_samples)
            return self._kept[epoch, number]


class Permuted:
    """One permutation of the whole split for each pass, computed place by place. Arguments as for ByWindow.

    A Feistel network on the smallest even number of bits that can count the samples; a place that it sends beyond the
    last sample is sent on until it falls on one.
    """

    def __init__(self, reader: Reader, seed: int, window: int):
        self._reader, self._seed = reader, seed

    def read(self, epoch: int, start: int, stop: int) -> Batch:
        """The samples at the places [start, stop) of pass number `epoch`."""
        return take_samples(self._reader, self.rows(epoch, start, stop))

    def rows(self, epoch: int, start: int, stop: int) -> np.ndarray:
        """The rows of the split at these places, int64 [stop - start]."""
        num_samples = self._reader.num_samples
        half = max(1, (max(1, num_samples - 1).bit_length() + 1) // 2)
        keys = np.random.SeedSequence([self._seed, epoch]).generate_state(_ROUNDS, np.uint64)
        rows = _feistel(np.arange(start, stop, dtype=np.uint64), keys, half)
        while len(outside := np.flatnonzero(rows >= num_samples)):
            rows[outside] = _feistel(rows[outside], keys, half)
        return rows.astype(np.int64)


ORDERS = {"none": InOrder, "window": ByWindow, "full": Permuted}


def _feistel(values: np.ndarray, keys: np.ndarray, half: int) -> np.ndarray:
    """A bijection of the numbers of 2 * half bits, uint64 [n]."""
    mask, shift = np.uint64((1 << half) - 1), np.uint64(half)
    left, right = values >> shift, values & mask
    for key in keys:
        mixed = (right + key) * np.uint64(0x9E3779B97F4A7C15)
        mixed = (mixed ^ (mixed >> np.uint64(32))) * np.uint64(0xBF58476D1CE4E5B9)
        left, right = right, left ^ (mixed >> np.uint64(64 - half))
    return (left << shift) | right
