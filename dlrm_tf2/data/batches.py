"""A dataset's files -> the batches of one rank.

A rank reads the label and the numericals of its own samples. It reads the ids that the embedding layer needs: with
model-parallel input the ids of its own tables for all samples of the global batch; with data-parallel input the ids of
all tables for its own samples; or some ids of each kind. Threads read ahead, so that a step finds its batch in memory.
"""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from criteo_prep.feature_spec import FeatureSpec, FeatureSpecError
from criteo_prep.parallel import in_order
from criteo_prep.synthetic import generator
from criteo_prep.transcribe import in_place
from criteo_prep.transcribe.dense_log import log_of, takes_log
from criteo_prep.transcribe.sample_order import ORDERS
from dlrm_tf2.config import TrainConfig
from dlrm_tf2.data.array_pool import ArrayPool
from dlrm_tf2.data.file_watch import FileWatch
from dlrm_tf2.data.provided import ProvidedSpec, Samples
from dlrm_tf2.embedding.ids import IdBatch, RankIds
from dlrm_tf2.embedding.layer import DistributedEmbedding
from dlrm_tf2.runtime.comm import Comm
from dlrm_tf2.sharding.plan import samples_of_rank

_THREADS = 2
_ID_LIMIT = 2**31 - 1  # ids are int32 from here on; keys are int64
_TILE = 4096  # samples whose ids are copied side by side at a time: few enough for the cache


@dataclass(frozen=True)
class Reading:
    """How a split is read.

    Attributes:
      shuffle: order of the samples, one of ORDERS: "none", "window" or "full".
      window: samples of a window.
      seed: seed of the order, and of synthetic samples; the same on all ranks.
      drop_last: leave out the samples of a pass after its last whole batch.
      synthetic_samples: samples of a pass that are made from the spec's cardinalities; None to read the files.
    """

    shuffle: str = "none"
    window: int = 1 << 18
    seed: int = 0
    drop_last: bool = False
    synthetic_samples: int | None = None


@dataclass(frozen=True)
class RankShare:
    """The part of each global batch that one rank reads.

    Attributes:
      rank, world_size: decide which samples of a batch are the rank's own.
      global_features: categorical features whose ids the rank reads for the whole global batch.
      sample_features: categorical features whose ids the rank reads for its own samples.
    """

    rank: int = 0
    world_size: int = 1
    global_features: tuple[str, ...] = ()
    sample_features: tuple[str, ...] = ()


class Position(NamedTuple):
    """A place in the training data: after `sample` samples of pass number `epoch`, which counts from 0."""

    epoch: int = 0
    sample: int = 0


@dataclass(frozen=True)
class RankBatch:
    """One rank's part of a global batch. Its arrays are used again when nobody holds them.

    Attributes:
      global_batch: number of samples in the global batch.
      label: float32 [local batch].
      numerical: float32 [local batch, numericals].
      ids: integer arrays, in the form that DistributedEmbedding.lookup takes: int32; int64 for keys, and where ids are
        side by side with keys.
      after: position of the next batch.
    """

    global_batch: int
    label: np.ndarray
    numerical: np.ndarray
    ids: RankIds
    after: Position


class RankData:
    """One split of a dataset, as one rank reads it.

    Args:
      spec: a loaded feature spec, whose root is the dataset folder.
      split: "train", "test" or "validation".
      share: what this rank reads of each batch.
      reading: order of the samples, and whether files are read.

    Attributes:
      num_samples: samples of a pass, all ranks together.

    The layout of the split is the type of its chunks, see in_place.READERS.

    Raises:
      FeatureSpecError: the split's files are missing, truncated or disagree, the split holds no sample, a table has ids
        that int32 cannot hold, or the spec does not say whether integers are raw numbers.
    """

    def __init__(
        self,
        spec: FeatureSpec,
        split: str,
        *,
        share: RankShare,
        reading: Reading = Reading(),  # noqa: B008 - frozen
    ):
        self._spec, self._share, self._reading = spec, share, reading
        own = (spec.label.name, *(feature.name for feature in spec.numerical), *share.sample_features)
        if reading.synthetic_samples is None:
            readers = [_opened(spec, split, features=f, seed=reading.seed) for f in (own, share.global_features)]
            self.num_samples = readers[0].num_samples
            if isinstance(spec, ProvidedSpec):
                self.num_samples = spec.num_samples[split]
            self._samples, self._tables = (ORDERS[reading.shuffle](r, reading.seed, reading.window) for r in readers)
            chunks = [
                chunk for chunk in spec.sources.get(split, ()) if {*own, *share.global_features} & {*chunk.features}
            ]
            self._watch = FileWatch(spec.root / file for chunk in chunks for file in chunk.files)
        else:
            self.num_samples = reading.synthetic_samples
            self._samples, self._tables = (
                _Endless(spec, split, features=features, num_samples=self.num_samples, seed=reading.seed)
                for features in (own, share.global_features)
            )
            self._watch = FileWatch([])
        self._takes_log = reading.synthetic_samples is None and takes_log(spec)
        for feature in spec.categorical:
            if not feature.key and feature.cardinality > _ID_LIMIT:
                raise FeatureSpecError(
                    f"{spec.path}: {feature.name!r} has {feature.cardinality} ids; a table has at most {_ID_LIMIT}, "
                    "because ids are int32. Hash the ids into fewer."
                )
        self._pool = ArrayPool()
        if self.num_samples == 0:
            raise FeatureSpecError(f"{spec.path}: the split {split!r} holds no sample. Make it from more rows.")

    def num_batches(self, global_batch: int, start: int = 0) -> int:
        """Number of batches in a pass over the split from sample `start` on; the last batch may be smaller."""
        left = self.num_samples - start
        return left // global_batch if self._reading.drop_last else -(-left // global_batch)

    def batches(self, global_batch: int, position: Position = Position()) -> Iterator[RankBatch]:  # noqa: B008
        """The batches from `position` to the end of its pass. Without drop_last, the last batch may be smaller.

        Raises:
          FeatureSpecError: a file changed or was removed, or holds an id that is not below its cardinality.
        """
        epoch, start = position
        starts = (start + global_batch * number for number in range(self.num_batches(global_batch, start)))

        def read(first: int) -> RankBatch:
            stop = min(first + global_batch, self.num_samples)
            ends = self.num_batches(global_batch, stop) == 0
            return self._read(epoch, first, stop=stop, after=Position(epoch + 1, 0) if ends else Position(epoch, stop))

        yield from in_order(read, starts, workers=_THREADS)

    def passes(self, global_batch: int, position: Position) -> Iterator[RankBatch]:
        """The batches from `position` on, pass after pass without end. Raises as `batches` does."""
        yield from self.batches(global_batch, position)
        for epoch in itertools.count(position.epoch + 1):
            yield from self.batches(global_batch, Position(epoch, 0))

    def document(self, position: Position) -> dict:
        """What a checkpoint keeps so that training can continue at `position`, as JSON values."""
        reading = self._reading
        window = reading.window if reading.shuffle == "window" else None
        order = {"shuffle": reading.shuffle, "shuffle_window": window, "num_samples": self.num_samples}
        return {**position._asdict(), "seed": reading.seed, **order}

    def position_in(self, document: dict) -> Position | None:
        """The position in a checkpoint's document; None where the order or the number of samples differs."""
        position = Position(document["epoch"], document["sample"])
        return position if self.document(position) == document else None

    def _read(self, epoch: int, start: int, *, stop: int, after: Position) -> RankBatch:
        self._watch.check(start)
        share = self._share
        first, last = samples_of_rank(stop - start, share.world_size, share.rank)
        own = self._samples.read(epoch, start + first, start + last)
        of_all = self._tables.read(epoch, start, stop).categorical if share.global_features else {}
        ids = RankIds(
            self._id_batch(of_all, share.global_features, stop - start),
            self._id_batch(own.categorical, share.sample_features, last - first),
        )
        label = self._pool.empty(last - first, (), np.float32)
        label[:] = own.label
        return RankBatch(
            stop - start, label, numerical=self._numerical(own.numerical, last - first), ids=ids, after=after
        )

    def _numerical(self, numerical: np.ndarray | None, rows: int) -> np.ndarray:
        out = self._pool.empty(rows, (len(self._spec.numerical),), np.float32)
        if numerical is None:
            return out
        if self._takes_log:
            numerical = log_of(numerical)
        if numerical.dtype == np.float16:
            _widen(np.ascontiguousarray(numerical), out)
        else:
            out[:] = numerical
        return out

    def _id_batch(self, columns: Mapping, features: tuple[str, ...], num_samples: int) -> IdBatch:
        """The ids of some features: side by side for features with a fixed number of ids, by name for the others."""
        ragged = {
            name: (columns[name].values, columns[name].row_lengths.astype(np.int32, copy=False))
            for name in features
            if self._spec.features[name].ragged
        }
        hotness = {name: self._spec.features[name].hotness for name in features if name not in ragged}
        dtype = np.result_type(np.int32, *(self._spec.features[name].id_dtype for name in hotness))
        fixed = self._pool.empty(num_samples, (sum(hotness.values()),), dtype)
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
    """A split as this rank reads it in this run.

    Args:
      config: the run.
      spec: feature spec of the dataset.
      split: "train", "test" or "validation".
      embedding: decides which features the rank reads.
      comm: the ranks.
      restored: document of the checkpoint that the model comes from; None for a model with first weights. The seed in
        the document decides the samples and their order, because the position in it counts those samples.

    Raises:
      FeatureSpecError: see RankData.
    """
    saved = (restored or {}).get("data")
    reading = _reading_of(config, split, saved["seed"] if saved else config.seed)
    share = RankShare(
        comm.rank,
        comm.size,
        global_features=embedding.global_features,
        sample_features=embedding.sample_features,
    )
    return RankData(spec, split, share=share, reading=reading)


def splits_of(config: TrainConfig) -> tuple[str, ...]:
    """The splits that a run reads."""
    if config.mode != "train":
        return (config.eval_split,)
    evaluated = [config.eval_split] if config.evals_per_epoch or config.eval_every else []
    evaluated += [config.final_split] if config.final_split else []
    return tuple(dict.fromkeys(["train", *evaluated]))


def check_splits(config: TrainConfig, spec: FeatureSpec) -> None:
    """Opens all files of the splits that the run reads. Raises FeatureSpecError, see RankData."""
    share = RankShare(sample_features=spec.channels["categorical"])
    for split in splits_of(config):
        RankData(spec, split, share=share, reading=_reading_of(config, split, config.seed))


def _reading_of(config: TrainConfig, split: str, seed: int) -> Reading:
    training, samples = split == "train", None
    if config.dataset_type == "synthetic":
        samples = (
            config.synthetic_dataset_train_batches * config.batch_size
            if training
            else config.synthetic_dataset_valid_batches * max(config.valid_batch_sizes)
        )
    if not training:
        return Reading(seed=seed, synthetic_samples=samples)
    return Reading(
        config.shuffle, config.shuffle_window, seed=seed, drop_last=config.drop_last, synthetic_samples=samples
    )


def _opened(spec: FeatureSpec, split: str, *, features: tuple[str, ...], seed: int) -> Samples:
    """The samples of a split with some of their features."""
    if isinstance(spec, ProvidedSpec):
        return spec.opens[split](features, seed)
    return in_place.open_split(spec, split, features)


class _Endless:
    """Synthetic samples, different ones in each pass."""

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

    Sign, exponent and fraction move to their places in a float32. The exponent is then too small by the difference of
    the two biases, 127 - 15. The product corrects it, for subnormal numbers too.
    """
    bits = out.view(np.int32)
    np.copyto(bits, halves.view(np.int16))
    np.left_shift(bits, 13, out=bits)
    np.bitwise_and(bits, np.int32(-0x70002000), out=bits)
    np.multiply(out, np.float32(2.0**112), out=out)
