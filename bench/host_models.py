"""The models that bench/hosts.py trains: a DLRM with the tables of Criteo, and the synthetic model tiny, and ways."""

from dataclasses import dataclass

import numpy as np

from criteo_prep.feature_spec import Feature, tf_raw_spec
from criteo_prep.synthetic import power_law
from criteo_prep.synthetic.presets import T15
from dlrm_tf2.benchmarks.zoo import MODELS
from dlrm_tf2.config import TrainConfig
from dlrm_tf2.model.config import ModelConfig
from dlrm_tf2.sharding.plan import make_plan, samples_of_rank

WIDTH, ALPHA = 128, 1.05
MODEL_NAMES = ("dlrm", "tiny")
BATCHES = 4  # different batches, which the steps take in turn


@dataclass(frozen=True)
class Way:
    """One way to train: flags of the program, and the same settings in Python.

    Attributes:
      flags: flags of the program.
      threshold: --data_parallel_threshold; None where the planner chooses the replicated tables.
      data_parallel_input, amp: as the flags.
      dedup_ids: "off", "on" or "auto".
      ahead: --pipeline.
      in_common: ranks of a host send in common what they can.
    """

    flags: str
    threshold: int | None = 0
    data_parallel_input: bool = False
    dedup_ids: str = "off"
    ahead: bool = False
    amp: bool = False
    in_common: bool = True


WAYS = (
    Way("--data_parallel_threshold 0"),
    Way("--data_parallel_threshold 0 --amp", amp=True),
    Way("replicated by the planner (default)", None),
    Way("replicated by the planner --amp", None, amp=True),
    Way("--data_parallel_input, ids not ahead", 0, True),
    Way("--data_parallel_input, ids ahead", 0, True, ahead=True),
    Way("--data_parallel_input --dedup_ids on", 0, True, "on", ahead=True),
    Way("--data_parallel_input --dedup_ids auto", 0, True, "auto", ahead=True),
    Way("--dedup_ids on, each rank for itself", 0, True, "on", ahead=True, in_common=False),
)


@dataclass(frozen=True)
class Size:
    """The size of a measurement: samples of a step of all ranks, and the factor of the rows of each table."""

    batch_size: int
    scale: float


def shape_of(name: str, scale: float):
    """The shape of a model: its tables, features, hotness and MLPs."""
    if name == "tiny":
        return MODELS["tiny"].scaled(scale)
    features = [Feature(f"cat_{i}", "int32", max(4, round(rows * scale))) for i, rows in enumerate(T15)]
    config = TrainConfig(dataset_path="none", embedding_dim=WIDTH)
    return ModelConfig.of(config, tf_raw_spec(features, splits=()))


def dense_numbers(model) -> int:
    """Numbers whose gradients are summed over the ranks: the weights of the MLPs, and the four totals of a step."""
    return sum(int(np.prod(variable.shape)) for variable in model.dense_variables) + 4


class OneOnEachHost:
    """A rank of a job that seems to have one rank on each host."""

    def __init__(self, comm):
        self._comm, self.rank, self.size, self.local_size, self.local_rank = comm, comm.rank, comm.size, 1, 0

    def __getattr__(self, name):
        return getattr(self._comm, name)


def _mean_of_ranks(numbers: dict[str, float], comm) -> dict[str, float]:
    of_ranks = comm.allgather_object(numbers, name="numbers")
    return {name: float(np.mean([of_rank[name] for of_rank in of_ranks])) for name in numbers}


class Trained:
    """A model on all ranks, and its batches; each run takes the next batch."""

    def __init__(self, name: str, size: Size, way: Way, *, comm, network):
        import tensorflow as tf

        from dlrm_tf2.benchmarks.zoo_model import SyntheticModel
        from dlrm_tf2.data.batches import Position, RankBatch
        from dlrm_tf2.model.dlrm import ComputeSettings, Dlrm
        from dlrm_tf2.model.interaction import choose_op
        from dlrm_tf2.optim import Optimizer
        from dlrm_tf2.training.step import TrainingStep

        if not way.in_common:
            comm = OneOnEachHost(comm)
        shape = shape_of(name, size.scale)
        self.tables = shape.tables
        self.hotness = shape.hotness if name == "tiny" else shape.hotness_of
        self.plan = make_plan(
            shape.tables,
            comm.size,
            hotness=self.hotness,
            batch_size=size.batch_size,
            optimizer="adagrad",
            data_parallel_threshold=way.threshold,
        )
        first, last = samples_of_rank(size.batch_size, comm.size, comm.rank)
        batches = [self._ids(size.batch_size, number) for number in range(BATCHES)]
        own = [{name: ids[first:last] for name, ids in batch.items()} for batch in batches]
        host = samples_of_rank(size.batch_size, comm.size // comm.local_size, comm.rank // comm.local_size)
        self.different, self.host_different = (
            _mean_of_ranks({name: len(np.unique(part)) / len(part) for name, part in parts.items()}, comm)
            for parts in (own[0], {name: ids[slice(*host)] for name, ids in batches[0].items()})
        )
        self.deduplicated = [name for name in self.different if self._is_deduplicated(name, way, network)]
        settings = ComputeSettings(
            compute_dtype="bfloat16" if way.amp else "float32",
            interaction=choose_op("auto", "cpu")[0],
            optimizer=Optimizer("adagrad"),
            data_parallel_input=way.data_parallel_input,
            deduplicated=self.deduplicated,
        )
        model = (Dlrm if name == "dlrm" else SyntheticModel)(shape, self.plan, comm=comm, seed=1, settings=settings)
        self.dense_numbers, self._batches = dense_numbers(model), []
        for number, (batch, local) in enumerate(zip(batches, own, strict=True)):
            layer, rng = model.embedding, np.random.default_rng([number, comm.rank])
            ids = layer.ids(
                {name: batch[name] for name in layer.global_features},
                {name: local[name] for name in layer.sample_features},
                global_batch=size.batch_size,
            )
            ids = tf.nest.map_structure(lambda tensor: tf.cast(tensor, tf.int32), ids)
            label = (rng.random(last - first) < 0.5).astype(np.float32)
            numerical = rng.random((last - first, shape.num_numerical), np.float32)
            self._batches.append(RankBatch(size.batch_size, label, numerical=numerical, ids=ids, after=Position()))
        self._step = TrainingStep(model, ahead=way.ahead)

    def _is_deduplicated(self, feature: str, way: Way, network) -> bool:
        """What the trainer chooses, see dlrm_tf2/data/repeated_ids.py."""
        from dlrm_tf2.data.repeated_ids import Repeated

        if way.dedup_ids != "auto":
            return way.dedup_ids == "on"
        table = next(table for table in self.tables if feature in table.features)
        ids, different = self.hotness.get(feature, 1), self.host_different[feature]
        vectors = 1 if table.combiner else ids
        wire_bytes = 2 if way.amp else 4
        repeated = Repeated(ids, different, vectors=vectors, width=table.embedding_dim, wire_bytes=wire_bytes)
        return repeated.saved_s(network) > 0

    def run(self, steps: int) -> None:
        """Trains for some steps."""
        batches = (self._batches * steps)[:steps]
        for batch, next_batch in self._step.with_next(batches):
            self._step.outcome(self._step(batch, 0.001, step=1, next_batch=next_batch))

    def _ids(self, samples: int, number: int) -> dict[str, np.ndarray]:
        batch = {}
        for table in self.tables:
            law = power_law.PowerLaw(table.num_rows, ALPHA)
            for feature in table.features:
                ids = np.empty(samples * self.hotness.get(feature, 1), np.int32)
                law.fill(power_law.stream_key(number, feature), 0, out=ids)
                batch[feature] = ids.reshape(samples, -1)
        return batch
