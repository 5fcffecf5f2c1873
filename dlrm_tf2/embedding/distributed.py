"""DistributedEmbedding: a plan, the lookup in this rank's tables, and the exchange between ranks."""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from dlrm_tf2.comm import Comm
from dlrm_tf2.embedding.exchange import VectorExchange
from dlrm_tf2.embedding.lookup import Slab
from dlrm_tf2.embedding.plan import Shard, ShardingPlan
from dlrm_tf2.embedding.tables import TableConfig


class DistributedEmbedding:
    """Embedding tables of equal width, spread over the ranks as whole tables.

    A training step uses it in three parts: tables are updated by row and never see a gradient of their own size.

        local = embedding.lookup(ids)             # [global batch, local features, width], this rank's tables
        with tf.GradientTape() as tape:
            tape.watch(local)
            vectors = embedding.exchange(local)   # [local batch, all features, width], this rank's samples
            loss = ...                            # a share of the mean over the global batch
        embedding.apply_gradient(ids, tape.gradient(loss, local), learning_rate)

    Args:
      tables: one per feature, in the order that the vectors are to have.
      plan: of the same tables, for comm.size ranks.
      comm: the ranks.
      seed: seed of the initial weights, the same on every rank; None leaves the tables' memory as it is.
    """

    slots = ("weights",)

    def __init__(self, tables: Sequence[TableConfig], plan: ShardingPlan, comm: Comm, seed: int | None):
        assert plan.world_size == comm.size
        assert all(len(table.features) == 1 for table in tables), "one feature a table"
        self.tables, self.plan, self.rank = tuple(tables), plan, comm.rank
        self.width = tables[0].embedding_dim
        shards = plan.of_rank(comm.rank)
        self.local_features = tuple(shard.table for shard in shards)
        self._slab = Slab(shards, {table.name: table for table in tables}, seed) if shards else None
        self._exchange = VectorExchange(comm, [plan.of_table(table.name)[0].rank for table in tables])

    def lookup(self, ids: tf.Tensor) -> tf.Tensor:
        """This rank's vectors, float32 [global batch, local features, width].

        Args:
          ids: integers [global batch, local features]; column k belongs to `local_features[k]`.
        """
        if self._slab is None:
            return tf.zeros([tf.shape(ids)[0], 0, self.width])
        return self._slab.gather(ids)

    def exchange(self, local: tf.Tensor) -> tf.Tensor:
        """[global batch, local features, width] -> [local batch, all features, width]. Differentiable."""
        return self._exchange(local)

    def apply_gradient(self, ids: tf.Tensor, gradient: tf.Tensor, learning_rate: tf.Tensor) -> None:
        """One step of SGD on the rows that `ids` name; an id that occurs twice gets both gradients.

        Args:
          ids: as in lookup.
          gradient: of the loss by the looked-up vectors, [global batch, local features, width].
          learning_rate: float32 scalar.
        """
        if self._slab is None:
            return
        rows = tf.reshape(self._slab.slab_rows(ids), [-1])
        step = tf.reshape(tf.cast(gradient, tf.float32) * learning_rate, [-1, self.width])
        self._slab.variable.scatter_sub(tf.IndexedSlices(step, rows))

    def read_rows(self, shard: Shard, slot: str, start: int, stop: int) -> np.ndarray:
        """Rows [start, stop) of a shard of this rank, counted in its table: float32 [stop - start, columns]."""
        assert slot in self.slots
        return self._slab.read_rows(shard, start, stop)

    def write_rows(self, shard: Shard, slot: str, start: int, values: np.ndarray) -> None:
        """Overwrites rows of a shard of this rank from `start` on, counted in its table, with [n, columns]."""
        assert slot in self.slots
        self._slab.write_rows(shard, start, values)
