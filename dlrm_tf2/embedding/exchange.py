"""Tensors between the ranks that hold the tables and the ranks that hold the samples.

VectorExchange: a rank has looked up its tables for the whole global batch; one alltoall turns "all samples, my pieces"
into "my samples, all pieces", and its gradient is the same alltoall the other way round. IdExchange: ids of a rank's
samples go to the ranks that hold their tables. (row_exchange.py has the third way: rows come to the samples.)
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from dlrm_tf2.embedding.ids import IdBatch
from dlrm_tf2.embedding.result_columns import Layout, Piece
from dlrm_tf2.runtime.comm import Comm


class VectorExchange:
    """From pieces to the layer's result.

    Args:
      comm: the ranks.
      pieces_of_ranks: for each rank, the pieces that it makes for the global batch, in the order of the columns of its
        `local`.
      own: the pieces that this rank makes for its own samples, in the order of the columns of `own`.
      width: columns of the result, which the pieces of all ranks and the own ones cover.

    Everything moves in rows of `_grain` numbers, the greatest common divisor of all widths: for tables of equal width
    that is the whole vector.
    """

    def __init__(self, comm: Comm, pieces_of_ranks: Sequence[Sequence[Piece]], *, own: Sequence[Piece], width: int):
        self._comm, self._width = comm, width
        sources = [*pieces_of_ranks, own]
        spans = [[(piece.start, piece.width) for piece in pieces] for pieces in sources]
        grain = self._grain = math.gcd(width, *(number for pieces in spans for span in pieces for number in span))
        # targets[s][c]: which grain of the result gets grain c of source s. The last source is this rank itself.
        self._targets = [
            np.array([t for start, size in pieces for t in range(start // grain, (start + size) // grain)], np.int32)
            for pieces in spans
        ]
        self._grains = np.array([len(targets) for targets in self._targets], np.int32)
        source = np.repeat(np.arange(len(sources)), self._grains)
        column = np.concatenate([np.arange(count) for count in self._grains])
        target = np.concatenate(self._targets)
        _, first = np.unique(target, return_index=True)
        assert len(first) == width // grain, "the pieces cover the result"
        # The first to come for each grain of the result, in its order; then those that are added to it (row slices).
        order = np.concatenate([first, np.setdiff1d(np.arange(len(target)), first)])
        self._source, self._column, self._target = (part[order].astype(np.int32) for part in (source, column, target))
        self._as_it_is = comm.size == 1 and not own and np.array_equal(target, np.arange(width // grain))

    def __call__(self, local: tf.Tensor, own: tf.Tensor) -> tf.Tensor:
        """The result for this rank's samples.

        Args:
          local: [global batch, columns], any float type; of a rank that makes no pieces [global batch, 1], see below.
          own: [local batch, columns], of the same type.

        Returns:
          [local batch, width] of the same type. Differentiable.
        """
        if self._as_it_is:
            return local

        @tf.custom_gradient
        def exchange(local: tf.Tensor, own: tf.Tensor) -> tuple[tf.Tensor, Callable]:
            batches = samples_of_ranks(tf.shape(local)[0], self._comm.size)
            mine = batches[self._comm.rank]
            out_rows = batches * self._grains[self._comm.rank]
            in_rows = mine * self._grains[:-1]
            received = all_to_all(self._comm, self._sent(local), splits=out_rows, name="vectors")
            if self._grains[-1]:
                received = tf.concat([received, tf.reshape(own, [-1, self._grain])], axis=0)
            vectors = tf.gather(received, self._received_rows(mine))
            if len(self._target) > self._width // self._grain:
                vectors = tf.math.unsorted_segment_sum(
                    vectors, self._of_samples(mine, self._target), mine * (self._width // self._grain)
                )

            def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
                rows = tf.concat([tf.reshape(self._of_samples(mine, part), [-1]) for part in self._targets], axis=0)
                sent = tf.gather(tf.reshape(upstream, [-1, self._grain]), rows)
                by_own = tf.zeros_like(own)
                if self._grains[-1]:
                    num_sent = tf.reduce_sum(in_rows)
                    sent, by_own = sent[:num_sent], tf.reshape(sent[num_sent:], tf.shape(own))
                returned = all_to_all(self._comm, sent, splits=in_rows, name="vector_gradients")
                if not self._grains[self._comm.rank]:
                    # Nothing came back, but the others wait for this rank: a gradient that does not depend on the
                    # exchange, or has no elements, lets TensorFlow leave the exchange out.
                    return tf.zeros_like(local) + tf.reduce_sum(returned), by_own
                return tf.reshape(returned, tf.shape(local)), by_own

            return tf.reshape(vectors, [mine, self._width]), gradient

        return exchange(local, own)

    def _sent(self, local: tf.Tensor) -> tf.Tensor:
        if self._grains[self._comm.rank]:
            return tf.reshape(local, [-1, self._grain])
        # No rows, but not as a constant: TensorFlow would run an exchange of constants as it optimizes the graph.
        nowhere = tf.cast(tf.where(tf.cast(local[:, 0], tf.float32) != 0), local.dtype)
        return tf.tile(nowhere, [1, self._grain])

    def _received_rows(self, mine: tf.Tensor) -> tf.Tensor:
        """Where in the received rows the grains of a sample lie: int32 [mine, grains]."""
        first_row = tf.gather(tf.cumsum(mine * self._grains, exclusive=True), self._source) + self._column
        stride = tf.constant(self._grains[self._source])
        return first_row[tf.newaxis, :] + tf.range(mine)[:, tf.newaxis] * stride[tf.newaxis, :]

    def _of_samples(self, mine: tf.Tensor, grains: np.ndarray) -> tf.Tensor:
        """The grains of the result of each sample, counted over all samples: int32 [mine, len(grains)]."""
        return tf.range(mine)[:, tf.newaxis] * (self._width // self._grain) + grains[tf.newaxis, :]


class IdExchange:
    """Ids of this rank's samples -> ids of the global batch for this rank's tables.

    Args:
      comm: the ranks.
      layout: of the features.
      features: those whose ids come in, in their order.
      features_of_ranks: those whose ids each rank is to get, in the order that it wants.
    """

    def __init__(
        self, comm: Comm, layout: Layout, *, features: Sequence[str], features_of_ranks: Sequence[Sequence[str]]
    ):
        self._comm, self._of_ranks = comm, features_of_ranks
        columns = layout.fixed_columns(features)
        self._columns = [
            np.array([c for name in wanted if name in columns for c in range(*columns[name].indices(2**31))], np.int32)
            for wanted in features_of_ranks
        ]
        self._hotness = layout.hotness
        self._sent = [feature for feature in features if any(feature in wanted for wanted in features_of_ranks)]

    def __call__(self, batch: IdBatch, global_batch: tf.Tensor) -> tuple[IdBatch, list[tf.Tensor]]:
        """The ids for this rank's tables, and everything that came in: what must run though it may be empty."""
        mine = tf.shape(batch.fixed)[0]
        by_rank = [tf.reshape(tf.gather(batch.fixed, columns, axis=1), [-1]) for columns in self._columns]
        splits = mine * tf.constant([len(columns) for columns in self._columns])
        came, fixed = [], tf.zeros([global_batch, 0], batch.fixed.dtype)
        if any(len(columns) for columns in self._columns):
            came = [all_to_all(self._comm, tf.concat(by_rank, axis=0), splits=splits, name="ids")]
            fixed = tf.reshape(came[0], [global_batch, len(self._columns[self._comm.rank])])
        ragged, weights = {}, {}
        for feature in self._sent:
            if self._hotness[feature] is None:
                values, lengths = batch.ragged[feature]
                parts = self._to_owners(feature, values, "ids"), self._to_owners(feature, lengths, "row_lengths")
                came += parts
                if feature in self._of_ranks[self._comm.rank]:
                    ragged[feature] = parts
            if feature in batch.weights:
                came.append(self._to_owners(feature, batch.weights[feature], "weights"))
                if feature in self._of_ranks[self._comm.rank]:
                    weights[feature] = came[-1]
        return IdBatch(fixed, ragged, weights), came

    def _to_owners(self, feature: str, values: tf.Tensor, name: str) -> tf.Tensor:
        owners = np.array([feature in wanted for wanted in self._of_ranks], np.int32)
        splits = tf.size(values) * owners
        return all_to_all(self._comm, tf.tile(values, [int(owners.sum())]), splits=splits, name=f"{name}.{feature}")


def all_to_all(comm: Comm, rows: tf.Tensor, *, splits: tf.Tensor, name: str) -> tf.Tensor:
    """comm.alltoall for any floating-point type, with the shape that is known of the result."""
    # Nothing is added up on the way, so bfloat16, which Horovod does not know, travels as 16-bit integers.
    wire = tf.bitcast(rows, tf.int16) if rows.dtype == tf.bfloat16 else rows
    # Horovod pairs operations by the names that they get in their graphs: no argument of a step may have taken it.
    received = tf.ensure_shape(comm.alltoall(wire, splits, f"embedding.{name}"), [None, *wire.shape[1:]])
    return tf.bitcast(received, rows.dtype) if rows.dtype == tf.bfloat16 else received


def to_all_ranks(comm: Comm, rows: tf.Tensor, *, gradients: tf.Tensor, name: str) -> tuple[tf.Tensor, tf.Tensor]:
    """The rows [n] of all ranks, rank 0 first, and the gradients [n, width] by them."""
    splits = tf.fill([comm.size], tf.size(rows))
    rows = all_to_all(comm, tf.tile(rows, [comm.size]), splits=splits, name=f"{name}.rows")
    return rows, all_to_all(comm, tf.tile(gradients, [comm.size, 1]), splits=splits, name=f"{name}.gradients")


def samples_of_ranks(global_batch: tf.Tensor, world_size: int) -> tf.Tensor:
    """Samples of each rank, int32 [world_size]; plan.samples_of_rank as a tensor function."""
    return global_batch // world_size + tf.cast(tf.range(world_size) < global_batch % world_size, tf.int32)
