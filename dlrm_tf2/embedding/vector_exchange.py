"""VectorExchange: from the ranks that hold the tables to the ranks that hold the samples, and gradients back.

A rank has looked up its tables for the whole global batch. One alltoall turns "all samples, pieces of this rank" into
"samples of this rank, all pieces". Its gradient is the same alltoall in the other direction.
"""

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from dlrm_tf2.embedding.collectives import Collectives
from dlrm_tf2.embedding.exchange_columns import ExchangeColumns
from dlrm_tf2.ops.exchange_columns import ColumnRuns, join_columns, split_columns


class VectorExchange:
    """Makes the layer's result from pieces.

    Args:
      collectives: the exchange between the ranks.
      columns: where each column of the result comes from.
      native: whether native ops copy the columns; they leave the leading columns undefined.
    """

    def __init__(self, collectives: Collectives, columns: ExchangeColumns, *, native: bool = False):
        self._collectives, self._columns = collectives, columns
        self._as_it_is = collectives.world_size == 1 and columns.is_identity
        self._runs = None
        if native:
            grain = columns.grain
            self._runs = ColumnRuns(*columns.runs, columns=columns.grains_of * grain, width=columns.num_grains * grain)

    def __call__(self, pooled: tf.Tensor, own: tf.Tensor) -> tf.Tensor:
        """The result for this rank's samples.

        Args:
          pooled: [global batch, columns], any float type: the pieces that this rank makes for all samples.
          own: [local batch, columns], of the same type: the pieces that this rank makes for its own samples.

        Returns:
          [local batch, width] of the same type. Differentiable.
        """
        if self._as_it_is:
            return pooled
        columns, rank = self._columns, self._collectives.rank

        @tf.custom_gradient
        def exchange(pooled: tf.Tensor, own: tf.Tensor) -> tuple[tf.Tensor, Callable]:
            samples = self._collectives.samples_of_ranks(tf.shape(pooled)[0])
            local_batch = samples[rank]
            sent_rows = samples * int(columns.grains_of[rank])
            received_rows = local_batch * columns.grains_of[:-1]
            sent = tf.reshape(pooled, [tf.reduce_sum(sent_rows), columns.grain])
            received = self._collectives.all_to_all(sent, splits=sent_rows, name="vectors")

            def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
                sent, own_gradient = self._split(upstream, local_batch)
                sent = tf.reshape(sent, [tf.reduce_sum(received_rows), columns.grain])
                returned = self._collectives.all_to_all(sent, splits=received_rows, name="vector_gradients")
                return tf.reshape(returned, tf.shape(pooled)), tf.reshape(own_gradient, tf.shape(own))

            return self._join(received, own, local_batch), gradient

        return exchange(pooled, own)

    def _join(self, received: tf.Tensor, own: tf.Tensor, local_batch: tf.Tensor) -> tf.Tensor:
        """The result [local batch, width] of the grains [n, grain] of the ranks and this rank's own columns."""
        if self._runs:
            return join_columns(received, own, self._runs)
        columns = self._columns
        own_grains = int(columns.grains_of[-1])
        if own_grains:
            received = tf.concat([received, tf.reshape(own, [local_batch * own_grains, columns.grain])], axis=0)
        vectors = tf.gather(received, self._places(local_batch))
        if columns.has_sums:
            vectors = tf.math.unsorted_segment_sum(
                vectors, self._result_grains(local_batch, columns.target), local_batch * columns.num_grains
            )
        return tf.reshape(vectors, [local_batch, columns.num_grains * columns.grain])

    def _split(self, upstream: tf.Tensor, local_batch: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The gradients of the grains of the ranks, and of this rank's own columns."""
        if self._runs:
            return split_columns(upstream, self._runs)
        columns = self._columns
        by_grain = tf.reshape(upstream, [local_batch * columns.num_grains, columns.grain])
        places = [tf.reshape(self._result_grains(local_batch, part), [-1]) for part in columns.targets]
        parts = tf.gather(by_grain, tf.concat(places, axis=0))
        num_received = local_batch * int(columns.grains_of[:-1].sum())
        return parts[:num_received], parts[num_received:]

    def _places(self, local_batch: tf.Tensor) -> tf.Tensor:
        """Where in the received rows the grains of each sample lie: int32 [local batch, sum(grains_of)]."""
        columns = self._columns
        first_of_source = tf.cumsum(local_batch * columns.grains_of, exclusive=True)
        first_row = tf.gather(first_of_source, columns.source) + columns.column
        stride = tf.constant(columns.grains_of[columns.source])
        return first_row[tf.newaxis, :] + tf.range(local_batch)[:, tf.newaxis] * stride[tf.newaxis, :]

    def _result_grains(self, local_batch: tf.Tensor, grains: np.ndarray) -> tf.Tensor:
        """Grains of the result, for each sample, counted over all samples: int32 [local batch, len(grains)]."""
        return tf.range(local_batch)[:, tf.newaxis] * self._columns.num_grains + grains[tf.newaxis, :]
