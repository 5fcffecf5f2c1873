"""TrainStep, and the gradients that one rank has in it."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import tensorflow as tf


class TrainStep(NamedTuple):
    """What DistributedEmbedding.train_step returns, the same on all ranks.

    Attributes:
      loss: scalar, the mean loss over the global batch, before the update; nan if an update of a table is not finite,
        so that a model that diverges cannot look healthy.
      gradients: the gradients of this mean by `variables`.
    """

    loss: tf.Tensor
    gradients: list[tf.Tensor]


class LossShare(NamedTuple):
    """One rank's share of the mean loss over the global batch: the shares of all ranks add up to the mean.

    Attributes:
      loss: scalar.
      by_vectors, by_variables: the gradients of the share; zeros by what it does not depend on.
    """

    loss: tf.Tensor
    by_vectors: list[tf.Tensor]
    by_variables: list[tf.Tensor]


def loss_share(
    losses_of_samples: Callable[[], tf.Tensor],
    vectors: Sequence[tf.Tensor],
    *,
    variables: Sequence[tf.Variable],
    global_batch: tf.Tensor,
) -> LossShare:
    """Computes the losses of this rank's samples, and the gradients of their share.

    Args:
      losses_of_samples: computes the losses, [local batch], from `vectors` and `variables`.
      global_batch: samples of all ranks.

    Raises:
      ValueError: the losses are not one for each sample.
    """
    with tf.GradientTape() as tape:
        tape.watch(vectors)
        losses = tf.convert_to_tensor(losses_of_samples())
        if losses.shape.rank != 1:
            raise ValueError(
                f"loss_fn returned a tensor of shape {losses.shape}; it must return the loss of each sample, "
                "[local batch], without a sum or mean over the samples."
            )
        share = tf.reduce_sum(losses) / tf.cast(global_batch, losses.dtype)
    zero = tf.UnconnectedGradients.ZERO
    return LossShare(share, *tape.gradient(share, [list(vectors), list(variables)], unconnected_gradients=zero))
