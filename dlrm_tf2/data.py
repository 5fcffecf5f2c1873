"""A dataset's files -> the batches of one rank.

A rank reads label and numericals of its own samples, and the ids that the embedding layer wants: those of its own
tables for every sample of the global batch (model-parallel input), or those of all tables for its own samples
(data-parallel input), or some of both. A thread reads ahead, so that the step finds its batch in memory.
"""

import queue
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from criteo_prep.feature_spec import FeatureSpec, FeatureSpecError
from criteo_prep.transcribe.tf_raw import Reader
from dlrm_tf2.embedding.ids import IdBatch, RankIds
from dlrm_tf2.embedding.plan import samples_of_rank

_READ_AHEAD = 2  # batches


@dataclass(frozen=True)
class RankBatch:
    """One rank's part of a global batch.

    Attributes:
      global_batch: number of samples in the global batch.
      label: float32 [local batch].
      numerical: float32 [local batch, numericals].
      ids: int32 arrays, in the form that DistributedEmbedding.lookup takes.
    """

    global_batch: int
    label: np.ndarray
    numerical: np.ndarray
    ids: RankIds


class RankData:
    """One split of a dataset, as one rank sees it.

    Args:
      spec: a loaded feature spec, whose root is the dataset folder.
      split: "train" or "test".
      global_features: categorical features to read for the whole global batch.
      sample_features: categorical features to read for this rank's samples.
      rank, world_size: which samples of a batch are this rank's.

    Raises:
      FeatureSpecError: the split's files are missing, truncated or disagree, or it holds no sample.
    """

    def __init__(
        self,
        spec: FeatureSpec,
        split: str,
        global_features: tuple[str, ...],
        sample_features: tuple[str, ...],
        rank: int,
        world_size: int,
    ):
        self._spec, self._rank, self._world_size = spec, rank, world_size
        self._global_features, self._sample_features = global_features, sample_features
        own = [spec.label.name, *(feature.name for feature in spec.numerical), *sample_features]
        self._samples = Reader(spec.root, spec, split, features=own)
        self._tables = Reader(spec.root, spec, split, features=global_features)
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
        of_all = self._tables.read(start, stop).categorical if self._global_features else {}
        ids = RankIds(
            self._id_batch(of_all, self._global_features, stop - start),
            self._id_batch(mine.categorical, self._sample_features, last - first),
        )
        return RankBatch(stop - start, mine.label.astype(np.float32), mine.numerical.astype(np.float32), ids)

    def _id_batch(self, columns: dict, features: tuple[str, ...], num_samples: int) -> IdBatch:
        """The Ids of some features: those with a fixed number of ids side by side, the others by name."""
        ragged = {
            name: (columns[name].values, columns[name].row_lengths.astype(np.int32))
            for name in features
            if self._spec.features[name].ragged
        }
        hotness = {name: self._spec.features[name].hotness for name in features if name not in ragged}
        fixed, start = np.empty((num_samples, sum(hotness.values())), np.int32), 0
        for name, width in hotness.items():
            fixed[:, start : start + width] = columns[name].values.reshape(num_samples, width)
            start += width
        return IdBatch(fixed, ragged, {})


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
