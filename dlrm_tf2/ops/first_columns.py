"""The op that writes the first columns of a matrix in place, on the CPU."""

import tensorflow as tf

from dlrm_tf2 import ops


def with_first_columns(matrix: tf.Tensor, first: tf.Tensor) -> tf.Tensor:
    """`matrix` [n, columns] with its first columns replaced by `first` [n, at most columns].

    In a graph the memory of `matrix` is used where nobody else reads it. The gradient by `matrix` is the upstream
    gradient as it is, without a copy: its first columns, which do not depend on `matrix`, are not zero. Who takes the
    gradient must not read them.

    Raises:
      tf.errors.InvalidArgumentError: the shapes do not fit each other.
    """
    return ops.library().dlrm_with_first_columns(matrix=matrix, first=first)


@tf.RegisterGradient("DlrmWithFirstColumns")
def _gradient(operation: tf.Operation, upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    return upstream, upstream[:, : tf.shape(operation.inputs[1])[1]]
