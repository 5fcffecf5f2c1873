"""A dataset's files -> the batches of one rank.

A rank reads label and numericals of its own samples, and the ids of its own tables for every sample of the global batch
(model-parallel input). A thread reads ahead, so that the step finds its batch in memory.
"""

import queue
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from criteo_prep.feature_spec import FeatureSpec, FeatureSpecError
from criteo_prep.transcribe.tf_raw import Reader
from dlrm_tf2.embedding.plan import samples_of_rank

_READ_AHEAD = 2  # batches


@dataclass(frozen=True)
class RankBatch:
    """One rank's part of a global batch.

    Attributes:
      global_batch: number of samples in the global batch.
      label: float32 [local batch].
      numerical: float32 [local batch, numericals].
      ids: int32 [global batch, local features].
    """

    global_batch: int
    label: np.ndarray
    numerical: np.ndarray
    ids: np.ndarray


class RankData:
    """One split of a dataset, as one rank sees it.

    Args:
      spec: a loaded feature spec, whose root is the dataset folder.
      split: "train" or "test".
      local_features: categorical features whose tables this rank holds, in their order there.
      rank, world_size: which samples of a batch are this rank's.

    Raises:
      FeatureSpecError: the split's files are missing, truncated or disagree, or it holds no sample.
    """

    def __init__(self, spec: FeatureSpec, split: str, local_features: tuple[str, ...], rank: int, world_size: int):
        self._features, self._rank, self._world_size = local_features, rank, world_size
        own = [spec.label.name, *(feature.name for feature in spec.numerical)]
        self._samples = Reader(spec.root, spec, split, features=own)
        self._tables = Reader(spec.root, spec, split, features=local_features)
        self.num_samples = self._samples.num_samples
        if self.num_samples == 0:
            raise FeatureSpecError(f"{spec.path}: the split {split!r} holds no sample. Make it from more rows.")

    def num_batches(self, global_batch: int) -> int:
        """Batches of a pass over the split; the last one may be smaller."""
        return -(-self.num_samples // global_batch)

    def batches(self, global_batch: int, start: int = 0) -> Iterator[RankBatch]:
        """One pass over the split in order, from batch number `start` on; the last batch holds what is left.

        Raises:
          FeatureSpecError: a file shrank, or holds an id that is not below its cardinality.
        """
        starts = range(start * global_batch, self.num_samples, global_batch)
        return _read_ahead(self._read(first, min(first + global_batch, self.num_samples)) for first in starts)

    def _read(self, start: int, stop: int) -> RankBatch:
        first, last = samples_of_rank(stop - start, self._world_size, self._rank)
        mine = self._samples.read(start + first, start + last)
        ids = np.empty((stop - start, len(self._features)), np.int32)
        if self._features:
            columns = self._tables.read(start, stop).categorical
            for column, feature in enumerate(self._features):
                ids[:, column] = columns[feature].values
        return RankBatch(stop - start, mine.label.astype(np.float32), mine.numerical.astype(np.float32), ids)


def _read_ahead(batches: Iterator[RankBatch]) -> Iterator[RankBatch]:
    """Yields what `batches` yields, read by a thread that stays at most _READ_AHEAD batches in front."""
    ready: queue.Queue = queue.Queue(_READ_AHEAD)
    stopped = threading.Event()

    def put(item: object) -> None:
        while not stopped.is_set():
            try:
                return ready.put(item, timeout=0.1)
            except queue.Full:
                continue

    def read() -> None:
        try:
            for batch in batches:
                put(batch)
                if stopped.is_set():
                    return
            put(None)
        except BaseException as error:  # belongs to whoever waits for the batch
            put(error)

    reader = threading.Thread(target=read, name="read-ahead", daemon=True)
    reader.start()
    try:
        while (item := ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stopped.set()
        reader.join()
