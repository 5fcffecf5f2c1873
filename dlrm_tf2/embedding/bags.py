"""Bags: the ids of one feature one by one, with the sample that each belongs to and the factor of its vector."""

from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf

from dlrm_tf2.embedding.ids import IdBatch
from dlrm_tf2.embedding.result_layout import Piece, ResultLayout


class Bags(NamedTuple):
    """The ids of one feature.

    Attributes:
      ids: int64 [n], in the order of the samples.
      samples: int32 [n], the sample that each id belongs to.
      factors: float [n], the factor of each id's vector, before the vectors of a sample are added; None for 1.
    """

    ids: tf.Tensor
    samples: tf.Tensor
    factors: tf.Tensor | None

    def where(self, mask: tf.Tensor) -> "Bags":
        """The ids for which the mask [n] is true."""
        kept = tf.where(mask)[:, 0]
        factors = None if self.factors is None else tf.gather(self.factors, kept)
        return Bags(tf.gather(self.ids, kept), tf.gather(self.samples, kept), factors)


class BagReader:
    """Reads the bags of a feature out of batches.

    Args:
      layout: the columns of the result.
      features: the features that the batches hold, in this order.
      dtype: type of the factors.
    """

    def __init__(self, layout: ResultLayout, features: Sequence[str], dtype: tf.DType):
        self._layout, self._dtype = layout, dtype
        self.columns = layout.fixed_columns(features)

    def __call__(self, batch: IdBatch, feature: str) -> Bags:
        """The bags of a feature. Factors are weights for a sum, and weights over their sum for a mean."""
        num_samples, hotness = batch.num_samples, self._layout.hotness[feature]
        if hotness is None:
            ids, lengths = batch.ragged[feature]
            samples = tf.repeat(tf.range(num_samples), lengths)
        else:
            ids = tf.reshape(batch.fixed[:, self.columns[feature]], [-1])
            samples = tf.repeat(tf.range(num_samples), hotness)
        factors = batch.weights.get(feature)
        if factors is not None:
            factors = tf.cast(factors, self._dtype)
        if self._layout.table_of[feature].combiner == "mean" and (hotness != 1 or factors is not None):
            if factors is None:
                factors = tf.ones(tf.shape(ids), self._dtype)
            totals = tf.math.unsorted_segment_sum(factors, samples, num_samples)
            factors = tf.math.divide_no_nan(factors, tf.gather(totals, samples))
        return Bags(tf.cast(ids, tf.int64), samples, factors)


def bags_in(piece: Piece, bags: Bags, layout: ResultLayout) -> Bags:
    """The ids of the piece's feature that the piece is made of: in the rows of its shard, and at its position.

    Keys of a dynamic table are no rows, and are of all shards.
    """
    table, hotness = layout.table_of[piece.feature], layout.hotness[piece.feature]
    mask = None
    if piece.shard.rows != (0, table.num_rows) and not table.is_dynamic:
        mask = (bags.ids >= piece.shard.rows[0]) & (bags.ids < piece.shard.rows[1])
    if piece.position is not None and hotness > 1:
        at_position = tf.range(tf.size(bags.ids)) % hotness == piece.position
        mask = at_position if mask is None else mask & at_position
    return bags if mask is None else bags.where(mask)


class SlabRows(NamedTuple):
    """Rows of a slab, and what is made of them.

    Attributes:
      rows: int64 [n], rows of the slab.
      vectors: int32 [n], the number of the pooled vector that each row is added to.
      factors: float [n], the factor of each row; None for 1.
    """

    rows: tf.Tensor
    vectors: tf.Tensor
    factors: tf.Tensor | None


def joined_factors(parts: Sequence[SlabRows], dtype: tf.DType) -> tf.Tensor | None:
    """The factors of several parts, one after the other; None if all are 1."""
    if all(part.factors is None for part in parts):
        return None
    return tf.concat([tf.ones(tf.shape(p.rows), dtype) if p.factors is None else p.factors for p in parts], axis=0)
