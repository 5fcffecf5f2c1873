"""Ids of a batch on their way into the layer."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import tensorflow as tf

from dlrm_tf2.embedding.result_columns import Layout, Piece


class IdBatch(NamedTuple):
    """The ids that some features have in a number of samples.

    Attributes:
      fixed: integers [samples, columns]: the features with a fixed number of ids a sample, side by side.
      ragged: feature -> (ids [n], row_lengths int32 [samples]), sample after sample: those with any number of ids.
      weights: feature -> float [n], a weight for each of its ids, sample after sample. Features without weights are
        not in it.
    """

    fixed: tf.Tensor
    ragged: Mapping[str, tuple[tf.Tensor, tf.Tensor]]
    weights: Mapping[str, tf.Tensor]


class RankIds(NamedTuple):
    """What one rank knows of a global batch.

    Attributes:
      of_all: the features in DistributedEmbedding.global_features, for all samples. Its `fixed` has as many rows as the
        global batch has samples, also where it has no columns.
      of_mine: the features in DistributedEmbedding.sample_features, for the samples of this rank.
    """

    of_all: IdBatch
    of_mine: IdBatch


def signature_of(features: Sequence[str], layout: Layout) -> IdBatch:
    """The form that batches of these features have, of int32 and without weights."""
    flat = tf.TensorSpec([None], tf.int32)
    columns = sum(layout.hotness[feature] or 0 for feature in features)
    ragged = {feature: (flat, flat) for feature in features if layout.hotness[feature] is None}
    return IdBatch(tf.TensorSpec([None, columns], tf.int32), ragged, {})


class Bags(NamedTuple):
    """The ids of one feature, one by one.

    Attributes:
      ids: int64 [n], sample after sample.
      samples: int32 [n], whose id it is.
      factors: float [n], what its vector is multiplied with before the vectors of a sample are added; None for 1.
    """

    ids: tf.Tensor
    samples: tf.Tensor
    factors: tf.Tensor | None


def bags_of(batch: IdBatch, feature: str, *, layout: Layout, columns: Mapping[str, slice], dtype: tf.DType) -> Bags:
    """The ids of a feature, and how they are to be pooled: weights for a sum, weights over their sum for a mean."""
    num_samples = tf.shape(batch.fixed)[0]
    hotness = layout.hotness[feature]
    if hotness is None:
        ids, lengths = batch.ragged[feature]
        samples = tf.repeat(tf.range(num_samples), lengths)
    else:
        ids = tf.reshape(batch.fixed[:, columns[feature]], [-1])
        samples = tf.repeat(tf.range(num_samples), hotness)
    factors = batch.weights.get(feature)
    if factors is not None:
        factors = tf.cast(factors, dtype)
    if layout.table_of[feature].combiner == "mean" and (hotness != 1 or factors is not None):
        if factors is None:
            factors = tf.ones(tf.shape(ids), dtype)
        totals = tf.math.unsorted_segment_sum(factors, samples, num_samples)
        factors = tf.math.divide_no_nan(factors, tf.gather(totals, samples))
    return Bags(tf.cast(ids, tf.int64), samples, factors)


def bags_in(piece: Piece, bags: Bags, layout: Layout) -> Bags:
    """Those of its feature's ids that a piece is made of: in the rows of its shard, and at its position."""
    whole, hotness = (0, layout.table_of[piece.feature].num_rows), layout.hotness[piece.feature]
    here = None
    if piece.shard.rows != whole:
        here = (bags.ids >= piece.shard.rows[0]) & (bags.ids < piece.shard.rows[1])
    if piece.position is not None and hotness > 1:
        at_position = tf.range(tf.size(bags.ids)) % hotness == piece.position
        here = at_position if here is None else here & at_position
    if here is None:
        return bags
    kept = tf.where(here)[:, 0]
    factors = None if bags.factors is None else tf.gather(bags.factors, kept)
    return Bags(tf.gather(bags.ids, kept), tf.gather(bags.samples, kept), factors)


def pack(ids: Mapping[str, object], weights: Mapping[str, object], *, features, layout: Layout, num_samples) -> IdBatch:
    """Puts the ids of `features` into the form that the layer works with, and checks them.

    Args:
      ids: feature -> integers [samples] or [samples, hotness], or a tf.RaggedTensor or (ids [n], row_lengths [samples])
        for any number of them.
      weights: feature -> floats of the shape of its ids; those of a ragged feature flat, [n].
      features: those to pack, in their order.
      num_samples: None takes it from the ids.

    Raises:
      ValueError: a feature is missing or has another shape than its hotness says.
      tf.errors.InvalidArgumentError: an id is negative or not below the table's num_rows.
    """
    fixed, ragged = [], {}
    for feature in features:
        if feature not in ids:
            raise ValueError(f"feature {feature!r}: its ids are missing; there are {sorted(ids)}.")
        given, hotness = ids[feature], layout.hotness[feature]
        if isinstance(given, tf.RaggedTensor):
            given = given.values, given.row_lengths()
        if (hotness is None) != isinstance(given, tuple):
            wanted = "a tf.RaggedTensor or (ids, row_lengths)" if hotness is None else f"[samples, {hotness}]"
            raise ValueError(f"feature {feature!r}: {type(given).__name__}; its hotness asks for {wanted}.")
        values = tf.convert_to_tensor(given[0] if hotness is None else given)
        limit = layout.table_of[feature].num_rows
        message = f"feature {feature!r}: its ids must be from 0 to {limit - 1}"
        below = tf.debugging.assert_less(values, tf.cast(limit, values.dtype), message)
        with tf.control_dependencies([below, tf.debugging.assert_non_negative(values, message)]):
            values = tf.identity(values)  # so that nothing looks a bad id up before it is found
        if hotness is None:
            ragged[feature] = values, tf.cast(given[1], tf.int32)
            num_samples = tf.size(given[1]) if num_samples is None else num_samples
            continue
        if values.shape.rank == 1:
            values = values[:, tf.newaxis]
        if values.shape.rank != 2 or values.shape[1] != hotness:
            raise ValueError(f"feature {feature!r}: ids {values.shape}; its hotness asks for [samples, {hotness}].")
        fixed.append(tf.cast(values, tf.int64))
        num_samples = tf.shape(values)[0] if num_samples is None else num_samples
    if num_samples is None:
        raise ValueError("Say how many samples there are: this rank gets no ids.")
    return IdBatch(
        tf.concat([tf.zeros([num_samples, 0], tf.int64), *fixed], axis=1),
        ragged,
        {name: tf.reshape(tf.convert_to_tensor(weights[name]), [-1]) for name in features if name in weights},
    )
