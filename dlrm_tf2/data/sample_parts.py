"""Samples made of other samples: held in memory, repeated, or with several ids in place of one."""

import threading
from collections.abc import Mapping

import numpy as np

from criteo_prep.batch import Batch, Ids
from criteo_prep.synthetic.multi_hot import MultiHotTables
from dlrm_tf2.data.provided import Samples

_BLOCK = 1 << 16  # samples read at a time


class HeldSamples:
    """Samples in memory, read once, at the first call.

    Args:
      samples: where they are read.
    """

    def __init__(self, samples: Samples):
        self._samples, self.num_samples = samples, samples.num_samples
        self._lock, self._batch = threading.Lock(), None

    def read(self, start: int, stop: int) -> Batch:
        return self._held().part(start, stop)

    def take(self, rows: np.ndarray) -> Batch:
        return self._held().take(rows)

    def _held(self) -> Batch:
        with self._lock:
            if self._batch is None:
                self._batch = self._read_all()
            return self._batch

    def _read_all(self) -> Batch:
        """All samples, block by block into their arrays, so that no more than a block is in memory twice."""
        columns: dict[str, np.ndarray] = {}
        for start in range(0, self.num_samples, _BLOCK):
            block = self._samples.read(start, min(start + _BLOCK, self.num_samples))
            parts = {"label": block.label, "numerical": block.numerical}
            parts |= {f"ids {name}": ids.values for name, ids in block.categorical.items()}
            for name, part in parts.items():
                if part is None:
                    continue
                of_sample = len(part) // block.num_samples
                if start == 0:
                    columns[name] = np.empty((self.num_samples * of_sample, *part.shape[1:]), part.dtype)
                columns[name][start * of_sample :][: len(part)] = part
        ids = {name[4:]: values for name, values in columns.items() if name.startswith("ids ")}
        return Batch(
            columns.get("label"),
            columns.get("numerical"),
            {name: bags_of(values, len(values) // self.num_samples) for name, values in ids.items()},
        )


class CycledSamples:
    """The samples of a batch again and again.

    Args:
      batch: the samples.
      num_samples: samples of a pass.
    """

    def __init__(self, batch: Batch, num_samples: int):
        self._batch, self.num_samples = batch, num_samples

    def read(self, start: int, stop: int) -> Batch:
        first = start % self._batch.num_samples
        if first + stop - start <= self._batch.num_samples:
            return self._batch.part(first, first + stop - start)  # without a copy
        return self.take(np.arange(start, stop))

    def take(self, rows: np.ndarray) -> Batch:
        return self._batch.take(rows % self._batch.num_samples)


class MultiHotSamples:
    """Samples with a bag of ids in place of each id.

    Args:
      samples: samples with one id a feature.
      tables: the bags.
      numbers: feature -> its number in `tables`.
    """

    def __init__(self, samples: Samples, tables: MultiHotTables, numbers: Mapping[str, int]):
        self._samples, self.num_samples, self._tables, self._numbers = samples, samples.num_samples, tables, numbers

    def read(self, start: int, stop: int) -> Batch:
        return self._with_bags(self._samples.read(start, stop))

    def take(self, rows: np.ndarray) -> Batch:
        return self._with_bags(self._samples.take(rows))

    def _with_bags(self, batch: Batch) -> Batch:
        categorical = {}
        for name, ids in batch.categorical.items():
            bags = self._tables.bags(self._numbers[name], ids.values)
            categorical[name] = bags_of(bags.reshape(-1), bags.shape[1])
        return Batch(batch.label, batch.numerical, categorical)


def bags_of(values: np.ndarray, size: int) -> Ids:
    """Ids [n * size], sample after sample, as n bags of equal size."""
    return Ids(values, np.full(len(values) // size, size, np.int32) if size > 1 else None)
