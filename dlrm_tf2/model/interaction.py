"""The dot interaction, the dot products of all pairs of vectors: with TensorFlow's ops, and the choice of the op."""

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import tensorflow as tf

from dlrm_tf2 import ops
from dlrm_tf2.ops import dot_interaction as native_op
from dlrm_tf2.ops.first_columns import with_first_columns


def dot_interaction(features: tf.Tensor) -> tf.Tensor:
    """The first vector, the dot products of all pairs, and zeros up to a multiple of 8.

    Args:
      features: [batch, F, D], floating point; row 0 is the bottom MLP's output.

    Returns:
      [batch, D + F*(F-1)/2, zero-padded to a multiple of 8]: row 0, then dot(features[i], features[j]) for i > j in
      row-major order ((1,0), (2,0), (2,1), ...), then zeros.

    Raises:
      ValueError: F or D is 0.

    Source: the output layout of NVIDIA's DotBasedInteract.
    """
    if features.shape[1] == 0 or features.shape[2] == 0:
        raise ValueError(
            f"features: its shape is {features.shape}, expected at least one vector of at least one value."
        )
    num_vectors, width = features.shape[1], features.shape[2]
    num_pairs = num_vectors * (num_vectors - 1) // 2
    padding = -(width + num_pairs) % 8
    if num_vectors == 1:  # result and gradient are copies, which keep their bits
        return tf.pad(features[:, 0, :], [[0, 0], [0, padding]])
    pairs, pair_of = _pair_indices(num_vectors)

    @tf.custom_gradient
    def interact(features: tf.Tensor) -> tuple[tf.Tensor, object]:
        products = tf.reshape(tf.matmul(features, features, transpose_b=True), [-1, num_vectors**2])
        zeros = tf.zeros([tf.shape(features)[0], padding], features.dtype)
        output = tf.concat([features[:, 0, :], tf.gather(products, pairs, axis=1), zeros], axis=1)

        def gradient(upstream: tf.Tensor) -> tf.Tensor:
            # A pair's gradient belongs at (i, j) and at (j, i); the diagonal takes the zero in front.
            dots = tf.pad(upstream[:, width : width + num_pairs], [[0, 0], [1, 0]])
            symmetric = tf.reshape(tf.gather(dots, pair_of, axis=1), [-1, num_vectors, num_vectors])
            by_dots = tf.matmul(symmetric, features)
            first = by_dots[:, :1, :] + upstream[:, tf.newaxis, :width]
            return tf.concat([first, by_dots[:, 1:, :]], axis=1)

        return output, gradient

    return interact(features)


@functools.cache
def _pair_indices(num_vectors: int) -> tuple[np.ndarray, np.ndarray]:
    """(flat index i*F+j of each pair i > j; for each flat index, 1 + the number of its pair, 0 on the diagonal)."""
    rows, columns = np.tril_indices(num_vectors, -1)
    pairs = (rows * num_vectors + columns).astype(np.int32)
    pair_of = np.zeros(num_vectors**2, np.int32)
    pair_of[pairs] = pair_of[columns * num_vectors + rows] = np.arange(1, len(pairs) + 1)
    return pairs, pair_of


@dataclass(frozen=True)
class Interaction:
    """How a model computes its interaction.

    Attributes:
      name: "tensorflow" or "native".
      compute: [batch, F, D] -> [batch, output width], as `dot_interaction`.
      compiles: whether XLA can compile the op; otherwise the model places it between two compiled blocks.
      join: puts the first vector [batch, D] into the free first columns of the others' matrix; None where the model has
        to concatenate them.
    """

    name: str
    compute: Callable[[tf.Tensor], tf.Tensor]
    compiles: bool
    join: Callable[[tf.Tensor, tf.Tensor], tf.Tensor] | None = None


TENSORFLOW = Interaction("tensorflow", dot_interaction, compiles=True)
NATIVE = Interaction("native", native_op.dot_interaction, compiles=False)
NATIVE_ON_CPU = replace(NATIVE, join=with_first_columns)


def choose_op(interaction_op: str, device: str) -> tuple[Interaction, str]:
    """The interaction of the flag `--interaction_op`.

    Args:
      interaction_op: "auto" (native where the native op supports the device), "native" or "tensorflow".
      device: "cpu" or "gpu".

    Returns:
      (the interaction, a line for the log with the reason).

    Raises:
      ValueError: the flag says native, and the native op does not support the device.
    """
    if interaction_op == "tensorflow":
        return TENSORFLOW, "interaction: TensorFlow's ops, as asked"
    why_not = ops.why_no_cuda() if device == "gpu" else ops.why_unavailable()
    if why_not is None:
        asked = "" if interaction_op == "auto" else ", as asked"
        instruction_set = f" ({ops.instruction_set()})" if device == "cpu" else ""
        native = NATIVE_ON_CPU if device == "cpu" else NATIVE
        return native, f"interaction: the native op on the {device.upper()}{instruction_set}{asked}"
    if interaction_op == "native":
        raise ValueError(f"--interaction_op native: {why_not}. Build it, or use --interaction_op auto.")
    return TENSORFLOW, f"interaction: TensorFlow's ops; {why_not}"
