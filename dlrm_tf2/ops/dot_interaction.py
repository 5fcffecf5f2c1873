"""The native dot interaction: its shape contract and its gradient."""

import tensorflow as tf

from dlrm_tf2 import ops

DTYPES = (tf.float32, tf.float16, tf.bfloat16)


def dot_interaction(features: tf.Tensor) -> tf.Tensor:
    """The first vector, then the dot products of all pairs, then zeros up to a multiple of 8; float32 sums.

    Args:
      features: [batch, F, D], float32, float16 or bfloat16; any batch, F >= 1, D >= 1.

    Returns:
      [batch, D + F*(F-1)/2, zero-padded to a multiple of 8], as dlrm_tf2.model.interaction.dot_interaction.

    Raises:
      ValueError: `features` has another rank or dtype.
      RuntimeError: the op library is not available here.
      LookupError: from a gradient of the gradient, which is not defined.
    """
    features = tf.convert_to_tensor(features)
    if features.dtype not in DTYPES:
        names = ", ".join(dtype.name for dtype in DTYPES)
        raise ValueError(f"features: its dtype is {features.dtype.name}, expected one of {names}.")
    if features.shape.rank is not None and features.shape.rank != 3:
        raise ValueError(f"features: its shape is {features.shape}, expected rank 3: [batch, vectors, width].")
    return ops.library().dlrm_dot_interaction(features=features)


@tf.RegisterGradient("DlrmDotInteraction")
def _gradient(operation: tf.Operation, upstream: tf.Tensor) -> tf.Tensor:
    return ops.library().dlrm_dot_interaction_gradient(features=operation.inputs[0], upstream=upstream)


@tf.RegisterGradient("DlrmDotInteractionGradient")
def _gradient_of_gradient(operation: tf.Operation, upstream: tf.Tensor):
    raise LookupError(
        "The native dot interaction has no gradient of its gradient. Use --interaction_op tensorflow "
        "(dlrm_tf2.model.interaction.dot_interaction) for second derivatives."
    )
