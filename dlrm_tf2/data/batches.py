"""A dataset's files -> the batches of one rank.

A rank reads label and numericals of its own samples, and the ids that the embedding layer wants: those of its own
tables for every sample of the global batch (model-parallel input), or those of all tables for its own samples
(data-parallel input), or some of both. Threads read ahead, so that the step finds its batch in memory.
"""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from criteo_prep.feature_spec import FeatureSpec, FeatureSpecError
from criteo_prep.parallel import in_order
from criteo_prep.synthetic import generator
from criteo_prep.transcribe.sample_order import ORDERS
from criteo_prep.transcribe.tf_raw import Reader
from dlrm_tf2.config import TrainConfig
from dlrm_tf2.data.array_pool import ArrayPool
from dlrm_tf2.data.file_watch import FileWatch
from dlrm_tf2.embedding.ids import IdBatch, RankIds
from dlrm_tf2.embedding.layer import DistributedEmbedding
from dlrm_tf2.runtime.comm import Comm
from dlrm_tf2.sharding.plan import samples_of_rank

_THREADS = 2
_TILE = 4096  # samples whose ids are put side by side at a time; they stay in the cache meanwhile


@dataclass(frozen=True)
class Reading:
    """How a split is read.

    Attributes:
      shuffle: one of ORDERS: "none", by "window", or "full".
      window: samples of a window.
      seed: of the order of the samples and of synthetic ones; the same on all ranks.
      drop_last: leave out what is left of a pass after its last whole batch.
      synthetic_samples: make that many samples a pass, from the spec's cardinalities, instead of reading files.
    """

    shuffle: str = "none"
    window: int = 1 << 18
    seed: int = 0
    drop_last: bool = False
    synthetic_samples: int | None = None


class Position(NamedTuple):
    """Where training stands in the data: `sample` samples of pass number `epoch` (from 0) are behind it."""

    epoch: int = 0
    sample: int = 0


@dataclass(frozen=True)
class RankBatch:
    """One rank's part of a global batch. Its arrays are used again when nobody holds them any more.

    Attributes:
      global_batch: number of samples in the global batch.
      label: float32 [local batch].
      numerical: float32 [local batch, numericals].
      ids: int32 arrays, in the form that DistributedEmbedding.lookup takes.
      after: the position that follows the batch.
    """

    global_batch: int
    label: np.ndarray
    numerical: np.ndarray
    ids: RankIds
    after: Position


class RankData:
    """One split of a dataset, as one rank sees it.

    Args:
      spec: a loaded feature spec, whose root is the dataset folder.
      split: "train" or "test".
      global_features: categorical features to read for the whole global batch.
      sample_features: categorical features to read for this rank's samples.
      rank, world_size: which samples of a batch are this rank's.
      reading: in which order, and from where.

    Raises:
      FeatureSpecError: the split's files are missing, truncated or disagree, or it holds no sample.
    """

    def __init__(
        self,
        spec: FeatureSpec,
        split: str,
        *,
        global_features: tuple[str, ...],
        sample_features: tuple[str, ...],
        rank: int,
        world_size: int,
        reading: Reading = Reading(),  # noqa: B008 - frozen
    ):
        self._spec, self._rank, self._world_size, self._reading = spec, rank, world_size, reading
        self._global_features, self._sample_features = global_features, sample_features
        own = (spec.label.name, *(feature.name for feature in spec.numerical), *sample_features)
        if reading.synthetic_samples is None:
            readers = [Reader(spec.root, spec, split=split, features=features) for features in (own, global_features)]
            self.num_samples = readers[0].num_samples
            self._samples, self._tables = (ORDERS[reading.shuffle](r, reading.seed, reading.window) for r in readers)
            chunks = [spec.chunk_of(split, feature) for feature in (*own, *global_features)]
            self._watch = FileWatch(spec.root / file for chunk in chunks for file in chunk.files)
        else:
            self.num_samples = reading.synthetic_samples
            self._samples, self._tables = (
                _Endless(spec, split, features=features, num_samples=self.num_samples, seed=reading.seed)
                for features in (own, global_features)
            )
            self._watch = FileWatch([])
        self._pool = ArrayPool()
        if self.num_samples == 0:
            raise FeatureSpecError(f"{spec.path}: the split {split!r} holds no sample. Make it from more rows.")

    def num_batches(self, global_batch: int, start: int = 0) -> int:
        """Batches of a pass over the split from sample `start` on; the last one may be smaller."""
        left = self.num_samples - start
        return left // global_batch if self._reading.drop_last else -(-left // global_batch)

    def batches(self, global_batch: int, position: Position = Position()) -> Iterator[RankBatch]:  # noqa: B008
        """What is left of a pass from `position` on; the last batch holds what is left, unless drop_last.

        Raises:
          FeatureSpecError: a file shrank or is gone, or holds an id that is not below its cardinality.
        """
        epoch, start = position
        starts = (start + global_batch * number for number in range(self.num_batches(global_batch, start)))

        def read(first: int) -> RankBatch:
            stop = min(first + global_batch, self.num_samples)
            ends = self.num_batches(global_batch, stop) == 0
            return self._read(epoch, first, stop=stop, after=Position(epoch + 1, 0) if ends else Position(epoch, stop))

        yield from in_order(read, starts, _THREADS)

    def passes(self, global_batch: int, position: Position) -> Iterator[RankBatch]:
        """What is left of the pass that `position` is in, and then pass after pass without end. Raises as `batches`."""
        yield from self.batches(global_batch, position)
        for epoch in itertools.count(position.epoch + 1):
            yield from self.batches(global_batch, Position(epoch, 0))

    def document(self, position: Position) -> dict:
        """What a checkpoint keeps, so that training can go on from `position`: JSON-able."""
        reading = self._reading
        window = reading.window if reading.shuffle == "window" else None
        order = {"shuffle": reading.shuffle, "shuffle_window": window, "num_samples": self.num_samples}
        return {**position._asdict(), "seed": reading.seed, **order}

    def position_in(self, document: dict) -> Position | None:
        """The position of a checkpoint's document; None if that is of another order or number of samples."""
        position = Position(document["epoch"], document["sample"])
        return position if self.document(position) == document else None

    def _read(self, epoch: int, start: int, *, stop: int, after: Position) -> RankBatch:
        self._watch.check(start)
        first, last = samples_of_rank(stop - start, self._world_size, self._rank)
        mine = self._samples.read(epoch, start + first, start + last)
        of_all = self._tables.read(epoch, start, stop).categorical if self._global_features else {}
        ids = RankIds(
            self._id_batch(of_all, self._global_features, stop - start),
            self._id_batch(mine.categorical, self._sample_features, last - first),
        )
        label = self._pool.empty(last - first, (), np.float32)
        label[:] = mine.label
        return RankBatch(
            stop - start, label, numerical=self._numerical(mine.numerical, last - first), ids=ids, after=after
        )

    def _numerical(self, numerical: np.ndarray | None, rows: int) -> np.ndarray:
        out = self._pool.empty(rows, (len(self._spec.numerical),), np.float32)
        if numerical is None:
            return out
        if numerical.dtype == np.float16:
            _widen(np.ascontiguousarray(numerical), out)
        else:
            out[:] = numerical
        return out

    def _id_batch(self, columns: Mapping, features: tuple[str, ...], num_samples: int) -> IdBatch:
        """The Ids of some features: those with a fixed number of ids side by side, the others by name."""
        ragged = {
            name: (columns[name].values, columns[name].row_lengths.astype(np.int32, copy=False))
            for name in features
            if self._spec.features[name].ragged
        }
        hotness = {name: self._spec.features[name].hotness for name in features if name not in ragged}
        fixed = self._pool.empty(num_samples, (sum(hotness.values()),), np.int32)
        _put_side_by_side([columns[name].values.reshape(num_samples, hotness[name]) for name in hotness], fixed)
        return IdBatch(fixed, ragged, {})


def open_split(
    config: TrainConfig,
    spec: FeatureSpec,
    *,
    split: str,
    embedding: DistributedEmbedding,
    comm: Comm,
    restored: dict | None = None,
) -> RankData:
    """The split as a rank reads it in this run.

    Args:
      embedding: decides which features the rank reads.
      restored: the document of the checkpoint that the model comes from, if it does. Its seed, of the order of the
        samples and of synthetic ones, then counts, because its position is one among those samples.

    Raises:
      FeatureSpecError: see RankData.
    """
    training, samples = split == "train", None
    kept = (restored or {}).get("data")
    seed = kept["seed"] if kept else config.seed
    if config.dataset_type == "synthetic":
        samples = (
            config.synthetic_dataset_train_batches * config.batch_size
            if training
            else config.synthetic_dataset_valid_batches * max(config.valid_batch_sizes)
        )
    reading = Reading(seed=seed, synthetic_samples=samples)
    if training:
        reading = Reading(
            config.shuffle, config.shuffle_window, seed=seed, drop_last=config.drop_last, synthetic_samples=samples
        )
    return RankData(
        spec,
        split,
        global_features=embedding.global_features,
        sample_features=embedding.sample_features,
        rank=comm.rank,
        world_size=comm.size,
        reading=reading,
    )


class _Endless:
    """Synthetic samples, other ones in each pass."""

    def __init__(self, spec: FeatureSpec, split: str, *, features: tuple[str, ...], num_samples: int, seed: int):
        self._num_samples = num_samples
        self._reader = generator.Reader(spec, split, num_samples=1 << 60, seed=seed, features=features)

    def read(self, epoch: int, start: int, stop: int):
        return self._reader.read(epoch * self._num_samples + start, epoch * self._num_samples + stop)


def _put_side_by_side(columns: list[np.ndarray], out: np.ndarray) -> None:
    """Copies columns [n, width] each to out [n, sum of widths], in tiles."""
    for start in range(0, len(out), _TILE):
        tile, place = out[start : start + _TILE], 0
        for column in columns:
            width = column.shape[1]
            tile[:, place : place + width] = column[start : start + _TILE]
            place += width


def _widen(halves: np.ndarray, out: np.ndarray) -> None:
    """Finite float16 [n, m] -> float32 [n, m], six times as fast as NumPy's own conversion.

    Sign, exponent and fraction move to their places in a float32; its exponent is then short of the difference of the
    two biases, 127 - 15, which the product makes good, subnormal numbers included.
    """
    bits = out.view(np.int32)
    np.copyto(bits, halves.view(np.int16))
    np.left_shift(bits, 13, out=bits)
    np.bitwise_and(bits, np.int32(-0x70002000), out=bits)
    np.multiply(out, np.float32(2.0**112), out=out)
