"""The native lookup and update of embedding rows: the arguments of their ops."""

import struct
from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf

from dlrm_tf2 import ops
from dlrm_tf2.optim import Optimizer


class Bags(NamedTuple):
    """The ids of one piece in every sample, and where their vectors are.

    The fields before `feature` are one row of the ops' attribute `bags`, in this order.

    Attributes:
      slab: number of the slab.
      first_row: id i is row first_row + i of the slab.
      num_ids: ids of the table, 0 to num_ids - 1.
      first_id, last_id: the ids in [first_id, last_id) are in this shard; other ids count as rows of zeros.
      ids: number of the tensor in IdTensors.ids.
      hotness: ids of each sample; -1 for any number.
      column: first column of the ids, where the hotness is fixed.
      lengths: number of the tensor in IdTensors.row_lengths, where it is not.
      weights: number of the tensor in IdTensors.weights; -1 for none.
      mean: whether the factors of a sample's ids are divided by the sum of their weights.
      vectors: number of the tensor with the vectors.
      vectors_column: first column of the vectors in this tensor.
      feature: name of the feature, for errors.
    """

    slab: int
    first_row: int
    num_ids: int
    first_id: int
    last_id: int
    ids: int
    hotness: int
    column: int
    lengths: int
    weights: int
    mean: int
    vectors: int
    vectors_column: int
    feature: str


class IdTensors(NamedTuple):
    """The tensors that Bags name.

    Attributes:
      ids: int32 or int64 each: [samples, columns], or for any number of ids a sample [n]. The first has rank 2.
      row_lengths: int32 [samples] each.
      weights: float32, one number for each id, each.
    """

    ids: Sequence[tf.Tensor]
    row_lengths: Sequence[tf.Tensor] = ()
    weights: Sequence[tf.Tensor] = ()


class SlabVariables(NamedTuple):
    """A slab for the ops.

    Attributes:
      weights: [rows, width], float32 or bfloat16.
      slots: the state of the optimizer, float32, in the order of its row_slots.
      shards: (first row, row of the table, column of the table, key) of each shard; read for bfloat16 only.
    """

    weights: tf.Variable
    slots: Sequence[tf.Variable]
    shards: Sequence[tuple[int, int, int, int]]


def lookup(
    slabs: Sequence[SlabVariables], bags: Sequence[Bags], *, tensors: IdTensors, width: int, dtype: tf.DType
) -> tf.Tensor:
    """The vectors [samples, width] of the bags, in `dtype`. Columns of no bag are undefined.

    Raises:
      tf.errors.InvalidArgumentError: an id is not a row of its table, or shapes contradict each other.
    """
    return ops.library().dlrm_embedding_lookup(
        slabs=[slab.weights.handle for slab in slabs],
        **_arguments(bags, tensors),
        width=width,
        W=slabs[0].weights.dtype,
        T=dtype,
    )


def update(
    slabs: Sequence[SlabVariables],
    bags: Sequence[Bags],
    *,
    tensors: IdTensors,
    gradients: Sequence[tf.Tensor],
    optimizer: Optimizer,
    rate_and_step: tuple[tf.Tensor, tf.Tensor],
) -> tf.Tensor:
    """One step of the optimizer on the rows that the bags name; the gradients of a row are added up first.

    Args:
      gradients: the gradients of the vectors, [samples, columns] each, all of one type.
      rate_and_step: the learning rate, float32, and the number of the step from 1 on, int64.

    Returns:
      A scalar, float32: 0 if all updated numbers are finite, else nan.

    Raises:
      tf.errors.InvalidArgumentError: an id is not a row of its table, or shapes contradict each other.
    """
    learning_rate, step = rate_and_step
    betas = struct.unpack("<2q", struct.pack("<2d", optimizer.beta1, optimizer.beta2))
    return ops.library().dlrm_embedding_update(
        slabs=[slab.weights.handle for slab in slabs],
        slots=[slot.handle for slab in slabs for slot in slab.slots],
        gradients=gradients,
        learning_rate=learning_rate,
        step=step,
        **_arguments(bags, tensors),
        shards=[number for i, slab in enumerate(slabs) for shard in slab.shards for number in (i, *shard)],
        optimizer=optimizer.name,
        epsilon=optimizer.epsilon,
        betas=list(betas),
        W=slabs[0].weights.dtype,
    )


def sum_by_row(
    bags: Sequence[Bags], gradient: tf.Tensor, *, tensors: IdTensors, num_rows: int, width: int
) -> tuple[tf.Tensor, tf.Tensor]:
    """The rows of one slab that the bags name, each once, with the sum of its gradients.

    Args:
      gradient: the gradients of the vectors, [samples, columns].
      num_rows, width: of the slab.

    Returns:
      (rows, int64 [n]; sums, float32 [n, width]).

    Raises:
      tf.errors.InvalidArgumentError: an id is not a row of its table, or shapes contradict each other.
    """
    rows, sums = ops.library().dlrm_embedding_sum(
        gradients=gradient,
        **_arguments(bags, tensors),
        num_rows=num_rows,
        width=width,
    )
    return rows, sums


@tf.RegisterGradient("DlrmEmbeddingLookup")
def _gradient_of_lookup(operation: tf.Operation, upstream: tf.Tensor) -> list[tf.Tensor | None]:
    """The gradients of the inputs: of the ids' weights only. Called where a tape watches these."""
    num_slabs, num_weights = operation.get_attr("num_slabs"), operation.get_attr("num_weights")
    others, weights = operation.inputs[:-num_weights], operation.inputs[-num_weights:]
    num_ids = len(operation.get_attr("id_types"))
    tensors = IdTensors(others[num_slabs : num_slabs + num_ids], others[num_slabs + num_ids :], weights)
    attributes = {name: operation.get_attr(name) for name in ("bags", "features", "W")}
    if tf.config.get_visible_devices("GPU"):  # where the slabs are then; the op is for the CPU
        gradients = weight_gradients_in_tensorflow(
            others[:num_slabs], tensors, gradient=upstream, attributes=attributes
        )
    else:
        gradients = ops.library().dlrm_embedding_weight_gradient(
            slabs=others[:num_slabs], **tensors._asdict(), gradient=upstream, **attributes
        )
    return [*[None] * len(others), *gradients]


def weight_gradients_in_tensorflow(
    slabs: Sequence[tf.Tensor], tensors: IdTensors, *, gradient: tf.Tensor, attributes: dict[str, object]
) -> list[tf.Tensor]:
    """The gradients of `tensors.weights` as DlrmEmbeddingWeightGradient makes them, on any device.

    It makes tensors of ids x width, bags by bags.

    Args:
      slabs: the resources.
      gradient: the gradient of the vectors, [samples, columns].
      attributes: `bags` and `W` of the op.
    """
    numbers, size = attributes["bags"], len(Bags._fields) - 1
    found = [tf.zeros_like(weights) for weights in tensors.weights]
    num_samples = tf.shape(gradient)[0]
    for start in range(0, len(numbers), size):
        one = Bags(*numbers[start : start + size], feature="")
        if one.weights < 0:
            continue
        ids, samples = _ids_and_samples(one, tensors, num_samples)
        here = tf.where((ids >= one.first_id) & (ids < one.last_id))[:, 0]  # the others count as rows of zeros
        rows = tf.raw_ops.ResourceGather(
            resource=slabs[one.slab], indices=tf.gather(ids, here) + one.first_row, dtype=attributes["W"]
        )
        width = tf.raw_ops.VariableShape(input=slabs[one.slab])[1]
        of_samples = gradient[:, one.vectors_column : one.vectors_column + width]
        vectors = tf.gather(of_samples, tf.gather(samples, here))
        dots = tf.reduce_sum(tf.cast(rows, tf.float32) * tf.cast(vectors, tf.float32), axis=1)
        dots = tf.scatter_nd(here[:, tf.newaxis], dots, tf.shape(ids, tf.int64))
        if one.mean:
            weights = tensors.weights[one.weights]
            totals = tf.gather(tf.math.unsorted_segment_sum(weights, samples, num_samples), samples)
            products = tf.math.divide_no_nan(weights, totals) * dots
            of_vectors = tf.gather(tf.math.unsorted_segment_sum(products, samples, num_samples), samples)
            dots = tf.math.divide_no_nan(dots - of_vectors, totals)
        found[one.weights] += dots
    return found


def _ids_and_samples(one: Bags, tensors: IdTensors, num_samples: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The ids of a piece, int64 [n], bag after bag, and the sample of each."""
    ids = tensors.ids[one.ids]
    if one.hotness < 0:
        return tf.cast(ids, tf.int64), tf.repeat(tf.range(num_samples), tensors.row_lengths[one.lengths])
    ids = tf.reshape(ids[:, one.column : one.column + one.hotness], [-1])
    return tf.cast(ids, tf.int64), tf.repeat(tf.range(num_samples), one.hotness)


def _arguments(bags: Sequence[Bags], tensors: IdTensors) -> dict[str, object]:
    """What all ops are given: the inputs with the ids, and the attributes that say which bags they make."""
    return {
        **tensors._asdict(),
        "bags": [int(number) for one in bags for number in one[:-1]],
        "features": [one.feature for one in bags],
    }
