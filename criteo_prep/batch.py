"""Samples in memory: a batch is a run of consecutive samples, column by column."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Ids:
    """The ids of one categorical feature for n samples.

    Attributes:
      values: integer array. [n] where every sample has exactly one id, else [sum(row_lengths)], sample after sample.
      row_lengths: int32 [n], number of ids of each sample; None where every sample has exactly one id.
    """

    values: np.ndarray
    row_lengths: np.ndarray | None = None

    @property
    def num_samples(self) -> int:
        return len(self.values if self.row_lengths is None else self.row_lengths)

    def sample_of(self, place: int) -> int:
        """The sample that values[place] belongs to."""
        if self.row_lengths is None:
            return place
        return int(np.searchsorted(np.cumsum(self.row_lengths), place, side="right"))

    def part(self, start: int, stop: int) -> "Ids":
        """The ids of samples [start, stop)."""
        if self.row_lengths is None:
            return Ids(self.values[start:stop])
        before = int(self.row_lengths[:start].sum())
        count = int(self.row_lengths[start:stop].sum())
        return Ids(self.values[before : before + count], self.row_lengths[start:stop])

    def take(self, rows: np.ndarray) -> "Ids":
        """The ids of samples rows[0], rows[1], ... (int64 [n])."""
        if self.row_lengths is None:
            return Ids(self.values.take(rows))
        lengths = self.row_lengths[rows]
        starts = np.cumsum(self.row_lengths, dtype=np.int64)[rows] - lengths
        before = np.cumsum(lengths, dtype=np.int64) - lengths
        return Ids(self.values[np.arange(lengths.sum()) + np.repeat(starts - before, lengths)], lengths)


@dataclass(frozen=True)
class Batch:
    """n samples. A part that was not asked for is None (label, numerical) or absent (categorical).

    Attributes:
      label: bool [n].
      numerical: [n, number of numericals]: float16 from tf_raw; float32, float64 or int32 from other layouts.
      categorical: feature name -> Ids of n samples.
    """

    label: np.ndarray | None
    numerical: np.ndarray | None
    categorical: dict[str, Ids]

    @property
    def num_samples(self) -> int:
        if self.label is not None:
            return len(self.label)
        if self.numerical is not None:
            return len(self.numerical)
        return next(iter(self.categorical.values())).num_samples if self.categorical else 0

    def part(self, start: int, stop: int) -> "Batch":
        """Samples [start, stop), as views."""
        label = None if self.label is None else self.label[start:stop]
        numerical = None if self.numerical is None else self.numerical[start:stop]
        return Batch(label, numerical, {name: ids.part(start, stop) for name, ids in self.categorical.items()})

    def take(self, rows: np.ndarray) -> "Batch":
        """Samples rows[0], rows[1], ... (int64 [n]), as copies."""
        label = None if self.label is None else self.label[rows]
        numerical = None if self.numerical is None else self.numerical.take(rows, axis=0)
        return Batch(label, numerical, {name: ids.take(rows) for name, ids in self.categorical.items()})


def concatenate(batches: Sequence[Batch]) -> Batch:
    """One batch of the samples of several batches, which have the same parts; at least one batch."""
    if len(batches) == 1:
        return batches[0]
    first = batches[0]
    categorical = {}
    for name in first.categorical:
        parts = [batch.categorical[name] for batch in batches]
        multi_hot = parts[0].row_lengths is not None
        lengths = np.concatenate([ids.row_lengths for ids in parts]) if multi_hot else None
        categorical[name] = Ids(np.concatenate([ids.values for ids in parts]), lengths)
    label = None if first.label is None else np.concatenate([batch.label for batch in batches])
    numerical = None if first.numerical is None else np.concatenate([batch.numerical for batch in batches])
    return Batch(label, numerical, categorical)


class Rebatcher:
    """Takes batches of any sizes and passes the same samples on in batches of one size; the last one may be smaller.

    Args:
      batch_size: samples in a batch that is passed on, at least 1.
      receive: function that is called with each such batch.
    """

    def __init__(self, batch_size: int, receive: Callable[[Batch], None]):
        self._batch_size, self._receive = batch_size, receive
        self._waiting: list[Batch] = []  # fewer than batch_size samples
        self._num_waiting = 0

    def add(self, batch: Batch) -> None:
        start = 0
        while self._num_waiting + batch.num_samples - start >= self._batch_size:
            stop = start + self._batch_size - self._num_waiting
            self._receive(concatenate([*self._waiting, batch.part(start, stop)]))
            self._waiting, self._num_waiting, start = [], 0, stop
        if start < batch.num_samples:
            self._waiting.append(batch.part(start, batch.num_samples))
            self._num_waiting += batch.num_samples - start

    def finish(self) -> None:
        """Passes the remaining samples on, if any."""
        if self._waiting:
            self._receive(concatenate(self._waiting))
        self._waiting, self._num_waiting = [], 0


def rebatch(batches: Iterable[Batch], batch_size: int) -> Iterator[Batch]:
    """The samples of batches of any sizes, in batches of `batch_size`; the last one may be smaller."""
    ready: list[Batch] = []
    rebatcher = Rebatcher(batch_size, ready.append)
    for batch in batches:
        rebatcher.add(batch)
        yield from ready
        ready.clear()
    rebatcher.finish()
    yield from ready
