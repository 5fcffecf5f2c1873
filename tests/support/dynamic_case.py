"""Layers with dynamic tables on any number of ranks: training steps, and what the tables then hold."""

from dataclasses import dataclass, field

import numpy as np
import tensorflow as tf
from support.embedding_case import given_ids
from support.numpy_embedding import Sample

from dlrm_tf2.embedding.layer import DistributedEmbedding
from dlrm_tf2.ops import hash_table
from dlrm_tf2.optim import Optimizer
from dlrm_tf2.sharding.plan import make_plan, samples_of_rank


@dataclass(frozen=True)
class Setup:
    """A layer, for any number of ranks.

    Attributes:
      hotness: feature -> ids a sample, None for any number; for all features.
    """

    tables: tuple
    hotness: dict
    weighted: frozenset = frozenset()
    optimizer: Optimizer | None = field(default_factory=Optimizer)
    data_parallel_input: bool = False
    dtype: str = "float32"
    settings: dict = field(default_factory=dict)

    def batch(self, rng, size: int, ids_of) -> dict[str, Sample]:
        """A random global batch; ids_of(feature, n) makes the ids."""
        batch = {}
        for feature, hotness in self.hotness.items():
            lengths = np.full(size, hotness) if hotness else rng.integers(0, 4, size)
            weights = (rng.random(lengths.sum()) + 0.25).astype(np.float32) if feature in self.weighted else None
            batch[feature] = Sample(np.asarray(ids_of(feature, int(lengths.sum())), np.int64), lengths, weights)
        return batch


class RankOfSetup:
    """One rank of a layer, which trains on global batches. The loss is logistic, with made-up labels and head."""

    def __init__(self, setup: Setup, comm):
        self.setup, self.comm = setup, comm
        plan = make_plan(setup.tables, comm.size, optimizer=setup.optimizer.name if setup.optimizer else "sgd")
        self.embedding = DistributedEmbedding(
            setup.tables, plan, comm=comm, seed=3, optimizer=setup.optimizer, hotness=setup.hotness,
            data_parallel_input=setup.data_parallel_input, weighted=setup.weighted, dtype=setup.dtype,
            **setup.settings,
        )  # fmt: skip
        rng = np.random.default_rng(7)
        self._head = tf.constant(rng.normal(size=[2, self.embedding.width]), tf.float32)
        self._compiled = None

    def ids(self, batch: dict[str, Sample]):
        """The global batch as the layer takes it."""
        size = len(next(iter(batch.values())).lengths)
        first, last = samples_of_rank(size, self.comm.size, self.comm.rank)
        local = {feature: sample.of(first, last) for feature, sample in batch.items()}
        weights = [{f: s.weights for f, s in part.items() if s.weights is not None} for part in (batch, local)]
        return self.embedding.ids(
            given_ids(batch, self.embedding.global_features, self.setup),
            given_ids(local, self.embedding.sample_features, self.setup),
            global_batch=size, global_weights=weights[0], local_weights=weights[1],
        )  # fmt: skip

    def train(self, batch: dict[str, Sample], number: int) -> float:
        """One compiled training step; returns the mean loss. The time of step n is n seconds."""
        ids = self.ids(batch)
        if self._compiled is None:
            relaxed = tf.nest.map_structure(lambda t: tf.TensorSpec([None, *t.shape[1:]], t.dtype), ids)
            self._compiled = tf.function(
                self._step, autograph=False, input_signature=[relaxed, tf.TensorSpec([], tf.int64)]
            )
        return float(self._compiled(ids, tf.constant(number, tf.int64)))

    def _step(self, ids, number):
        embedding, size = self.embedding, ids.global_ids.num_samples
        lookup = embedding.lookup(ids, step=number, time=number * 10**9)
        with tf.GradientTape() as tape:
            tape.watch(lookup.vectors)
            x = tf.cast(embedding.exchange(lookup), tf.float32)
            logits = tf.linalg.matvec(x, self._head[0]) + tf.linalg.matvec(x**2, self._head[1])
            loss = tf.reduce_sum(tf.math.softplus(logits) - 0.3 * logits) / tf.cast(size, tf.float32)
        gradients = tape.gradient(loss, lookup.vectors)
        check = embedding.apply_gradient(lookup, gradients, learning_rate=0.3, step=tf.cast(number, tf.float32))
        (loss,) = self.comm.allreduce_sum([loss + check], "loss")
        return loss

    def evaluate(self, batch: dict[str, Sample]) -> np.ndarray:
        """The vectors of this rank's samples, as an evaluation gets them."""
        return self.embedding.exchange(self.embedding.lookup(self.ids(batch), training=False)).numpy()

    def stored(self, name: str) -> dict[int, tuple]:
        """Key -> (score, step, {slot: its row}), for the keys of a dynamic table on this rank."""
        table = self.embedding.dynamic_tables.get(name)
        if table is None:
            return {}
        first, stop = table.shard.rows
        listed = [part.numpy() for part in hash_table.export_batch(table.index, first, stop - first)]
        slots = {
            slot: self.embedding.read_rows(table.shard, slot, start=first, stop=stop) for slot in self.embedding.slots
        }
        return {
            int(key): (int(score), int(step), {slot: rows[row - first] for slot, rows in slots.items()})
            for key, row, score, step in zip(*listed, strict=True)
        }
