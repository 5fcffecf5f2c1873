"""Random configurations of the embedding layer, and a training run of one on any number of ranks."""

from dataclasses import dataclass, replace

import numpy as np
import tensorflow as tf
from support.numpy_embedding import NumpyEmbedding, Sample

from dlrm_tf2.embedding.initial_weights import initial_rows
from dlrm_tf2.embedding.layer import DistributedEmbedding
from dlrm_tf2.optim import Optimizer
from dlrm_tf2.sharding.plan import Shard, ShardingPlan, samples_of_rank
from dlrm_tf2.sharding.tables import TableConfig


@dataclass(frozen=True)
class Case:
    """A configuration; everything about it is drawn from its seed unless given.

    Attributes:
      hotness: feature -> ids a sample, None for any number.
    """

    tables: tuple[TableConfig, ...]
    hotness: dict
    weighted: frozenset
    plan: ShardingPlan
    optimizer: Optimizer
    data_parallel_input: bool
    deduplicated: frozenset
    global_batch: int
    seed: int

    def one_rank(self) -> "Case":
        shards = [Shard(t.name, 0, rows=(0, t.num_rows), columns=(0, t.embedding_dim)) for t in self.tables]
        return replace(self, plan=ShardingPlan(1, tuple(shards)))

    def batch(self, step: int) -> tuple[dict[str, Sample], np.ndarray]:
        """The global batch number `step`, and its labels."""
        rng = np.random.default_rng([self.seed, step])
        batch = {}
        for table in self.tables:
            for feature in table.features:
                hotness = self.hotness[feature]
                lengths = np.full(self.global_batch, hotness) if hotness else rng.integers(0, 5, self.global_batch)
                # Squared, so that low ids are frequent and a batch names some of them several times.
                ids = (rng.random(lengths.sum()) ** 2 * table.num_rows).astype(np.int64)
                weights = rng.random(len(ids)) + 0.25 if feature in self.weighted else None
                batch[feature] = Sample(ids, lengths, weights)
        return batch, rng.random(self.global_batch) < 0.4


def draw(seed: int, world_size: int, optimizer: str | None = None, data_parallel_input: bool | None = None) -> Case:
    rng = np.random.default_rng(seed)
    name = optimizer or str(rng.choice(["sgd", "adagrad", "rowwise_adagrad", "adam"]))
    tables, hotness = [], {}
    for number in range(rng.integers(1, 5)):
        features = tuple(f"f{number}_{i}" for i in range(rng.choice([1, 1, 2, 3])))
        combiner = [None, "sum", "mean"][rng.integers(3)]
        tables.append(
            TableConfig(
                f"t{number}",
                int(rng.integers(1, 40)),
                embedding_dim=int(rng.choice([1, 2, 3, 4, 8])),
                combiner=combiner,
                features=features,
            )
        )
        for feature in features:
            hotness[feature] = [1, 1, int(rng.integers(2, 4)), None][rng.integers(4 if combiner else 3)]
    features = list(hotness)
    pooled = [f for t in tables if t.combiner for f in t.features]
    weighted = frozenset(f for f in pooled if rng.random() < 0.2)
    plan, other = draw_plan(rng, tables, world_size, name != "rowwise_adagrad"), np.random.default_rng([seed, 1])
    if other.random() < 0.3:  # without a GPU they all are there anyway, but then in slabs of their own
        spread = [shard for shard in plan.shards if shard.table not in plan.replicated]
        plan = replace(plan, on_host=frozenset(shard for shard in spread if other.random() < 0.5))
    return Case(
        tuple(tables), hotness, weighted, plan,
        Optimizer(name, beta1=0.8, beta2=0.95, epsilon=1e-6, initial_accumulator=0.1 * (seed % 2)),
        bool(rng.integers(2)) if data_parallel_input is None else data_parallel_input,
        frozenset(f for f in features if rng.random() < 0.4), int(rng.integers(1, 14)), seed,
    )  # fmt: skip


def draw_plan(rng, tables, world_size: int, by_columns: bool) -> ShardingPlan:
    """Every table replicated, whole, or cut at random places into shards on random ranks."""
    shards, replicated = [], set()
    for table in tables:
        if rng.random() < 0.2:
            replicated.add(table.name)
            ranks, grid = range(world_size), [((0, table.num_rows), (0, table.embedding_dim))] * world_size
        else:
            rows = _cuts(rng, table.num_rows)
            columns = _cuts(rng, table.embedding_dim) if by_columns else [(0, table.embedding_dim)]
            grid = [(r, c) for r in rows for c in columns]
            ranks = rng.integers(0, world_size, len(grid))
        shards += [Shard(table.name, int(rank), *area) for rank, area in zip(ranks, grid, strict=True)]
    return ShardingPlan(world_size, tuple(shards), frozenset(replicated))


def _cuts(rng, size: int) -> list[tuple[int, int]]:
    pieces = int(rng.choice([1, 1, 2, 3]))
    bounds = sorted({0, size, *(int(rng.integers(1, size)) for _ in range(pieces - 1) if size > 1)})
    return list(zip(bounds, bounds[1:], strict=False))


def train(case: Case, comm, steps: int, learning_rate: float = 0.3, dtype: str = "float64", wire: str | None = None,
          embedding_op: str = "auto"):  # fmt: skip
    """Trains the layer; returns (losses, {(slot, shard): rows} of this rank)."""
    embedding = DistributedEmbedding(
        case.tables, case.plan, comm=comm, seed=case.seed, optimizer=case.optimizer, hotness=case.hotness,
        data_parallel_input=case.data_parallel_input, deduplicated=case.deduplicated, weighted=case.weighted,
        wire_dtype=wire or dtype, dtype=dtype, embedding_op=embedding_op,
    )  # fmt: skip
    a, b = (tf.constant(vector, dtype) for vector in head(case, embedding.width))
    first, last = samples_of_rank(case.global_batch, comm.size, comm.rank)

    def step(ids, label, number):
        lookup = embedding.lookup(ids)
        with tf.GradientTape() as tape:
            tape.watch(lookup.vectors)
            x = tf.cast(embedding.exchange(lookup), dtype)
            logits = tf.linalg.matvec(x, a) + tf.linalg.matvec(x**2, b)
            loss = tf.reduce_sum(tf.nn.sigmoid_cross_entropy_with_logits(label, logits)) / case.global_batch
        gradients = tape.gradient(loss, lookup.vectors)
        embedding.apply_gradient(lookup, gradients, learning_rate=tf.constant(learning_rate, dtype), step=number)
        (loss,) = comm.allreduce_sum([loss], "loss")
        return loss

    compiled, losses = None, []
    for number in range(1, steps + 1):
        batch, label = case.batch(number)
        local = {feature: sample.of(first, last) for feature, sample in batch.items()}
        ids = embedding.ids(
            given_ids(batch, embedding.global_features, case), given_ids(local, embedding.sample_features, case),
            global_batch=case.global_batch, global_weights=_weights(batch), local_weights=_weights(local),
        )  # fmt: skip
        if compiled is None:
            relaxed = tf.nest.map_structure(lambda t: tf.TensorSpec([None, *t.shape[1:]], t.dtype), ids)
            signature = [relaxed, tf.TensorSpec([None], dtype), tf.TensorSpec([], dtype)]
            compiled = tf.function(step, autograph=False, input_signature=signature)
        losses.append(float(compiled(ids, tf.constant(label[first:last], dtype), tf.constant(float(number), dtype))))
    parts = {
        (slot, shard): embedding.read_rows(shard, slot, start=shard.rows[0], stop=shard.rows[1])
        for shard in case.plan.of_rank(comm.rank)
        for slot in embedding.slots
    }
    return losses, parts


def train_reference(case: Case, steps: int, learning_rate: float = 0.3):
    """The same in float64 numpy: (losses, {(slot, table name): table})."""
    weights = {
        t.name: initial_rows(t, case.seed, start=0, stop=t.num_rows, columns=(0, t.embedding_dim)) for t in case.tables
    }
    weights = {name: table.astype(np.float64) for name, table in weights.items()}
    reference = NumpyEmbedding(case.tables, weights, case.optimizer)
    losses, vectors = [], None
    for number in range(1, steps + 1):
        batch, label = case.batch(number)
        vectors = vectors or head(case, reference.result(batch).shape[1])
        losses.append(reference.step(batch, label, *vectors, learning_rate, number))
    slots = {(slot, name): table for (name, slot), table in reference.slots.items()}
    return losses, slots | {("weights", name): table for name, table in weights.items()}


def assembled(case: Case, parts: dict) -> dict:
    """(slot, table name) -> whole table, from the parts of all ranks; replicas must agree to the bit."""
    tables = {}
    for (slot, shard), part in parts.items():
        config = next(table for table in case.tables if table.name == shard.table)
        whole = tables.setdefault((slot, shard.table), np.full((config.num_rows, config.embedding_dim), np.nan))
        area = whole[slice(*shard.rows), slice(*shard.columns)]
        assert np.isnan(area).all() or np.array_equal(area, part), "replicas differ"
        area[:] = part
    return tables


def head(case: Case, width: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(case.seed + 1)
    return rng.normal(size=width), rng.normal(size=width)


def given_ids(batch, features, case):
    given = {}
    for feature in features:
        sample, hotness = batch[feature], case.hotness[feature]
        ids = (sample.ids, sample.lengths) if hotness is None else sample.ids.reshape(-1, hotness)
        given[feature] = ids
    return given


def _weights(batch):
    return {feature: sample.weights for feature, sample in batch.items() if sample.weights is not None}
