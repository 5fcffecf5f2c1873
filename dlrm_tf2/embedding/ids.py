"""The ids of a batch as tensors: how they are given to the layer, checked and packed."""

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import tensorflow as tf

from dlrm_tf2.embedding.result_layout import ResultLayout


class IdBatch(NamedTuple):
    """The ids that some features have in a number of samples.

    Attributes:
      fixed: integers [samples, columns]: the ids of the features with a fixed hotness, feature after feature.
      ragged: feature -> (ids [n], row_lengths int32 [samples]), for the features with any number of ids a sample. The
        ids are in the order of the samples.
      weights: feature -> float [n], a weight for each of its ids, in the order of the samples. Features without
        weights are not in it.
    """

    fixed: tf.Tensor
    ragged: Mapping[str, tuple[tf.Tensor, tf.Tensor]]
    weights: Mapping[str, tf.Tensor]

    @property
    def num_samples(self) -> tf.Tensor:
        """Scalar int32."""
        return tf.shape(self.fixed)[0]


class RankIds(NamedTuple):
    """The ids of a global batch that one rank has.

    Attributes:
      global_ids: the features in DistributedEmbedding.global_features, for all samples. Its `fixed` has as many rows as
        the global batch has samples, also where it has no columns.
      local_ids: the features in DistributedEmbedding.sample_features, for the samples of this rank.
    """

    global_ids: IdBatch
    local_ids: IdBatch


def signature_of(features: Sequence[str], layout: ResultLayout) -> IdBatch:
    """The tf.TensorSpecs of a batch of these features, without weights.

    Ids are int32, and keys of dynamic tables int64; `fixed` is int64 where a key is in it.
    """
    lengths = tf.TensorSpec([None], tf.int32)
    types = {feature: tf.int64 if layout.table_of[feature].is_dynamic else tf.int32 for feature in features}
    fixed = [feature for feature in features if layout.hotness[feature] is not None]
    dtype = tf.int64 if any(types[feature] == tf.int64 for feature in fixed) else tf.int32
    ragged = {feature: (tf.TensorSpec([None], types[feature]), lengths) for feature in features if feature not in fixed}
    return IdBatch(tf.TensorSpec([None, sum(layout.hotness[feature] for feature in fixed)], dtype), ragged, {})


def pack_ids(
    ids: Mapping[str, object],
    weights: Mapping[str, object],
    *,
    features: Sequence[str],
    layout: ResultLayout,
    weighted: Collection[str],
    num_samples: tf.Tensor | int | None,
) -> IdBatch:
    """Checks the ids of `features` and puts them into one IdBatch.

    Args:
      ids: feature -> integers [samples] or [samples, hotness]; for a feature with any number of ids a tf.RaggedTensor
        or (ids [n], row_lengths [samples]).
      weights: feature -> floats of the shape of its ids; for a ragged feature flat, [n].
      features: the features to pack, in this order.
      layout: the columns of the result.
      weighted: features whose ids have weights.
      num_samples: number of samples; None takes it from the ids.

    Raises:
      ValueError: a feature is missing, its ids are not integers or have another shape than its hotness asks for, or it
        has weights and is not weighted, or is weighted and has none.
      tf.errors.InvalidArgumentError: an id of a table that is not dynamic is negative or not below the table's
        num_rows, or the numbers of samples, ids and weights contradict each other.
    """
    fixed, ragged, packed_weights = [], {}, {}
    for feature in features:
        if feature not in ids:
            raise ValueError(f"feature {feature!r}: its ids are missing; ids were given for {sorted(ids)}.")
        if (feature in weights) != (feature in weighted):
            found = "has weights, but the layer was made without" if feature in weights else "has no weights, but is"
            raise ValueError(f"feature {feature!r}: {found} weighted=[{feature!r}].")
        hotness = layout.hotness[feature]
        values, row_lengths = _values_of(feature, ids[feature], hotness)
        samples = tf.shape(values)[0] if row_lengths is None else tf.size(row_lengths)
        num_samples = samples if num_samples is None else num_samples
        checks = [
            tf.debugging.assert_equal(samples, num_samples, f"feature {feature!r}: its number of samples is wrong")
        ]
        if row_lengths is not None:
            message = f"feature {feature!r}: its row lengths must be 0 or more and add up to its number of ids"
            checks.append(tf.debugging.assert_non_negative(row_lengths, message))
            checks.append(tf.debugging.assert_equal(tf.reduce_sum(row_lengths), tf.size(values), message))
        if feature in weights:
            packed_weights[feature] = tf.reshape(tf.convert_to_tensor(weights[feature]), [-1])
            message = f"feature {feature!r}: it must have as many weights as ids"
            checks.append(tf.debugging.assert_equal(tf.size(packed_weights[feature]), tf.size(values), message))
        table = layout.table_of[feature]
        values = _checked(feature, values, num_rows=None if table.is_dynamic else table.num_rows, checks=checks)
        if row_lengths is None:
            fixed.append(values)
        else:
            ragged[feature] = values, row_lengths
    if num_samples is None:
        raise ValueError("global_batch is missing: this rank gets no ids, so say how many samples all ranks have.")
    return IdBatch(tf.concat([tf.zeros([num_samples, 0], tf.int64), *fixed], axis=1), ragged, packed_weights)


def _values_of(feature: str, ids: object, hotness: int | None) -> tuple[tf.Tensor, tf.Tensor | None]:
    """(ids, row lengths) of a feature: [n] and [samples] for any number of ids, else [samples, hotness] and None."""
    if isinstance(ids, tf.RaggedTensor):
        ids = ids.values, ids.row_lengths()
    if (hotness is None) != isinstance(ids, tuple):
        wanted = "a tf.RaggedTensor or (ids, row_lengths)" if hotness is None else f"[samples, {hotness}]"
        raise ValueError(f"feature {feature!r}: {type(ids).__name__}; its hotness asks for {wanted}.")
    values = tf.convert_to_tensor(ids[0] if hotness is None else ids)
    if not values.dtype.is_integer and values.shape.num_elements() != 0:  # an empty list has the type float32
        raise ValueError(f"feature {feature!r}: ids of type {values.dtype.name}; they must be integers.")
    if hotness is None:
        return values, tf.cast(ids[1], tf.int32)
    if values.shape.rank == 1:
        values = values[:, tf.newaxis]
    if values.shape.rank != 2 or values.shape[1] != hotness:
        raise ValueError(f"feature {feature!r}: ids {values.shape}; its hotness asks for [samples, {hotness}].")
    return values, None


def _checked(feature: str, ids: tf.Tensor, *, num_rows: int | None, checks: list[tf.Operation | None]) -> tf.Tensor:
    """The ids as int64, after `checks`, and a check that they are rows of a table of `num_rows` rows; None: any ids."""
    ids = tf.cast(ids, tf.int64)  # first: a narrow type may not hold num_rows
    if num_rows is not None:
        message = f"feature {feature!r}: its ids must be from 0 to {num_rows - 1}"
        below = tf.debugging.assert_less(ids, tf.constant(num_rows, tf.int64), message)
        checks = [below, tf.debugging.assert_non_negative(ids, message), *checks]
    with tf.control_dependencies(checks):
        return tf.identity(ids)  # so that no lookup runs before the checks
