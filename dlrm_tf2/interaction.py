"""The dot interaction: every vector with every other."""

import functools

import numpy as np
import tensorflow as tf


def dot_interaction(features: tf.Tensor) -> tf.Tensor:
    """The first vector, then the dot products of all pairs, then zeros up to a multiple of 8.

    Args:
      features: [batch, F, D], floating point; row 0 is the bottom MLP's output.

    Returns:
      [batch, D + F*(F-1)/2, zero-padded to a multiple of 8]: row 0, then dot(features[i], features[j]) for i > j in
      row-major order ((1,0), (2,0), (2,1), ...), then zeros.

    Source: the output layout of NVIDIA's DotBasedInteract.
    """
    num_vectors, width = features.shape[1], features.shape[2]
    num_pairs = num_vectors * (num_vectors - 1) // 2
    padding = -(width + num_pairs) % 8
    pairs, pair_of = _pair_indices(num_vectors)

    @tf.custom_gradient
    def interact(features: tf.Tensor) -> tuple[tf.Tensor, object]:
        products = tf.reshape(tf.matmul(features, features, transpose_b=True), [-1, num_vectors**2])
        zeros = tf.zeros([tf.shape(features)[0], padding], features.dtype)
        output = tf.concat([features[:, 0, :], tf.gather(products, pairs, axis=1), zeros], axis=1)

        def gradient(upstream: tf.Tensor) -> tf.Tensor:
            # A pair's gradient belongs at (i, j) and at (j, i); the diagonal takes the zero put in front.
            dots = tf.pad(upstream[:, width : width + num_pairs], [[0, 0], [1, 0]])
            symmetric = tf.reshape(tf.gather(dots, pair_of, axis=1), [-1, num_vectors, num_vectors])
            by_dots = tf.matmul(symmetric, features)
            first = by_dots[:, :1, :] + upstream[:, tf.newaxis, :width]
            return tf.concat([first, by_dots[:, 1:, :]], axis=1)

        return output, gradient

    return interact(features)


@functools.cache
def _pair_indices(num_vectors: int) -> tuple[np.ndarray, np.ndarray]:
    """The flat index i*F+j of each pair i > j, and, for each flat index, 1 + its pair (0 on the diagonal)."""
    rows, columns = np.tril_indices(num_vectors, -1)
    pairs = (rows * num_vectors + columns).astype(np.int32)
    pair_of = np.zeros(num_vectors**2, np.int32)
    pair_of[pairs] = pair_of[columns * num_vectors + rows] = np.arange(1, len(pairs) + 1)
    return pairs, pair_of
