"""Collectives: what all ranks do together. Every exchange of the layer goes through here."""

from collections.abc import Sequence

import tensorflow as tf

from dlrm_tf2.runtime.comm import Comm
from dlrm_tf2.runtime.network import ranks_per_host


class Collectives:
    """The collectives of a Comm, each of which runs once in every step of a graph.

    To TensorFlow, Horovod's operations are functions without side effects. An operation whose inputs are constants runs
    while TensorFlow optimizes the graph, and never again. An operation whose result nobody uses is left out. The other
    ranks then get an old result, or wait without end. Here neither happens: an input depends on a variable, whose value
    no optimizer knows, and an assertion, which always runs, depends on the result.

    Args:
      comm: the ranks.

    Attributes:
      rank: the number of this rank.
      world_size: number of ranks.
      ranks_per_host: ranks on each host; 1 where this is not one number.
    """

    def __init__(self, comm: Comm):
        self.rank, self.world_size, self._comm = comm.rank, comm.size, comm
        self.ranks_per_host = ranks_per_host(comm) or 1
        with tf.device("/CPU:0"):
            self._zero = tf.Variable(0, dtype=tf.int32, trainable=False, name="zero")

    def all_to_all(self, rows: tf.Tensor, *, splits: tf.Tensor, name: str) -> tf.Tensor:
        """Sends `splits[r]` rows to rank r, in order; returns the rows received, rank 0's first.

        Args:
          rows: [sum(splits), ...], integers or any float type.
          splits: int32 [ranks].
          name: name of the exchange, the same on all ranks.
        """
        return self.all_to_all_counted(rows, splits=splits, name=name)[0]

    def all_to_all_counted(self, rows: tf.Tensor, *, splits: tf.Tensor, name: str) -> tuple[tf.Tensor, tf.Tensor]:
        """As `all_to_all`; returns also how many rows come from each rank: int32 [ranks]."""
        if self.world_size == 1:
            return rows, splits
        # Nothing is added up on the way, so bfloat16, which Horovod does not know, travels as 16-bit integers.
        wire = tf.bitcast(rows, tf.int16) if rows.dtype == tf.bfloat16 else rows
        # Horovod pairs operations by the names that they get in their graphs: no argument of a step may have this name.
        received, counts = self._comm.alltoall(wire, splits + self._zero, f"embedding.{name}")
        self._always_run(tf.size(received))
        received = tf.ensure_shape(received, [None, *wire.shape[1:]])
        if rows.dtype == tf.bfloat16:
            received = tf.bitcast(received, rows.dtype)
        return received, tf.ensure_shape(counts, [self.world_size])

    def to_all_ranks(self, rows: tf.Tensor, gradients: tf.Tensor, name: str) -> tuple[tf.Tensor, tf.Tensor]:
        """The rows [n] that all ranks have, rank 0's first, and the gradients [n, width] of these rows."""
        splits = tf.fill([self.world_size], tf.size(rows))
        rows = self.all_to_all(tf.tile(rows, [self.world_size]), splits=splits, name=f"{name}.rows")
        gradients = tf.tile(gradients, [self.world_size, 1])
        return rows, self.all_to_all(gradients, splits=splits, name=f"{name}.gradients")

    def sum_over_ranks(self, tensors: Sequence[tf.Tensor], name: str) -> list[tf.Tensor]:
        """The sum over the ranks of each tensor, float32 or float64."""
        if self.world_size == 1:
            return list(tensors)
        first, *others = tensors
        sums = self._comm.allreduce_sum([first + tf.cast(self._zero, first.dtype), *others], f"embedding.{name}")
        self._always_run(tf.reshape(sums[0], [-1])[:1])
        return sums

    def samples_of_ranks(self, global_batch: tf.Tensor) -> tf.Tensor:
        """How many samples of a global batch each rank has, int32 [ranks]; see sharding.plan.samples_of_rank."""
        each, extra = global_batch // self.world_size, global_batch % self.world_size
        return each + tf.cast(tf.range(self.world_size) < extra, tf.int32)

    def own_samples(self, global_batch: tf.Tensor) -> tf.Tensor:
        """How many samples of a global batch this rank has, a scalar, int32."""
        return self.samples_of_ranks(global_batch)[self.rank]

    def _always_run(self, witness: tf.Tensor) -> None:
        """Makes a graph run the operations that `witness` is computed from, also if nobody uses their results.

        Args:
          witness: a few numbers, which a GPU has to copy to the host.
        """
        if tf.executing_eagerly():
            return
        assertion = tf.raw_ops.Assert(condition=self._zero == 0, data=[witness])
        # TensorFlow would let each assertion wait for the one before. That all of them run is enough.
        manager = getattr(assertion.graph, "experimental_acd_manager", None)
        if manager is not None:
            manager.run_independently(assertion)
