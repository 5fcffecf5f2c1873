"""Vectors from the ranks that hold the tables to the ranks that hold the samples, and their gradients back.

A rank looks up its own tables for the whole global batch; the exchange turns "all samples, my features" into "my
samples, all features" with one alltoall, and its gradient is the same alltoall the other way round.
"""

import numpy as np
import tensorflow as tf

from dlrm_tf2.comm import Comm


class VectorExchange:
    """The exchange of one width of vectors.

    Args:
      comm: the ranks.
      feature_ranks: for each feature, in the order that the result has, the rank that looks it up. The columns of a
        rank's `local` are its features in this same order.
    """

    def __init__(self, comm: Comm, feature_ranks: list[int]):
        self._comm = comm
        self._features_per_rank = np.bincount(feature_ranks, minlength=comm.size).astype(np.int32)
        first_column = np.zeros(comm.size, np.int64)
        # Feature f arrives from rank feature_ranks[f] as column columns[f] of what that rank sends.
        self._feature_ranks = np.asarray(feature_ranks, np.int32)
        self._columns = np.empty(len(feature_ranks), np.int32)
        for feature, rank in enumerate(feature_ranks):
            self._columns[feature] = first_column[rank]
            first_column[rank] += 1

    def __call__(self, local: tf.Tensor) -> tf.Tensor:
        """The vectors of this rank's samples.

        Args:
          local: [global batch, features of this rank, width], any float type.

        Returns:
          [local batch, all features, width] of the same type. Differentiable.
        """
        if self._comm.size == 1:
            return local  # one rank holds all features, in their order

        @tf.custom_gradient
        def exchange(local: tf.Tensor) -> tuple[tf.Tensor, object]:
            width = local.shape[2]
            batches = samples_of_ranks(tf.shape(local)[0], self._comm.size)
            mine = batches[self._comm.rank]
            out_rows = batches * self._features_per_rank[self._comm.rank]
            in_rows = mine * self._features_per_rank
            received = self._alltoall(tf.reshape(local, [-1, width]), out_rows, "vectors")
            vectors = tf.gather(received, self._received_rows(mine, in_rows))

            def gradient(upstream: tf.Tensor) -> tf.Tensor:
                sent = tf.gather(tf.reshape(upstream, [-1, width]), self._vector_rows(mine))
                returned = self._alltoall(sent, in_rows, "vector_gradients")
                return tf.reshape(returned, tf.shape(local))

            return vectors, gradient

        return exchange(local)

    def _received_rows(self, mine: tf.Tensor, in_rows: tf.Tensor) -> tf.Tensor:
        """Where in the received rows the vector of (sample, feature) lies: int32 [mine, features]."""
        first_row = tf.gather(tf.cumsum(in_rows, exclusive=True), self._feature_ranks) + self._columns
        stride = tf.constant(self._features_per_rank[self._feature_ranks])
        return first_row[tf.newaxis, :] + tf.range(mine)[:, tf.newaxis] * stride[tf.newaxis, :]

    def _vector_rows(self, mine: tf.Tensor) -> tf.Tensor:
        """Where in [mine * features] vectors the one to be sent at each place lies: the inverse of _received_rows."""
        num_features = len(self._feature_ranks)
        samples = tf.range(mine)[:, tf.newaxis] * num_features
        by_rank = [np.flatnonzero(self._feature_ranks == rank).astype(np.int32) for rank in range(self._comm.size)]
        return tf.concat([tf.reshape(samples + features[np.newaxis, :], [-1]) for features in by_rank], axis=0)

    def _alltoall(self, rows: tf.Tensor, splits: tf.Tensor, name: str) -> tf.Tensor:
        # Nothing is added up on the way, so bfloat16, which Horovod does not know, travels as 16-bit integers.
        wire = tf.bitcast(rows, tf.int16) if rows.dtype == tf.bfloat16 else rows
        received = tf.ensure_shape(self._comm.alltoall(wire, splits, name), [None, *wire.shape[1:]])
        return tf.bitcast(received, rows.dtype) if rows.dtype == tf.bfloat16 else received


def samples_of_ranks(global_batch: tf.Tensor, world_size: int) -> tf.Tensor:
    """Samples of each rank, int32 [world_size]; plan.samples_of_rank as a tensor function."""
    return global_batch // world_size + tf.cast(tf.range(world_size) < global_batch % world_size, tf.int32)
