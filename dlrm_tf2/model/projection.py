"""The projection interaction: two MLPs turn all vectors of a sample into two matrices, whose product is the output."""

from collections.abc import Sequence

import tensorflow as tf

from dlrm_tf2.model.mlp import Mlp


class Projection(tf.Module):
    """All vectors in a row -> the first vector and the products of A [rows, width] and B [width, columns].

    Args:
      num_vectors: vectors of a sample, the bottom MLP's vector first.
      width: numbers of a vector.
      branch1_dims, branch2_dims: layer widths of the MLPs that make A and B, with a ReLU after every layer; the last
        widths are rows * width and width * columns.
      seed: seed of the initial weights.
      init: their form, see dlrm_tf2.model.mlp.INITS.

    Source: the projection interaction of TorchRec's DLRM example.
    """

    def __init__(
        self,
        num_vectors: int,
        width: int,
        *,
        branch1_dims: Sequence[int],
        branch2_dims: Sequence[int],
        seed: int,
        init: str = "glorot",
    ):
        super().__init__(name="projection")
        self._width, input_width = width, num_vectors * width
        self._branch1, self._branch2 = (
            Mlp(f"projection_branch{number}", input_width, dims=dims, relu_at_end=True, seed=seed, init=init)
            for number, dims in ((1, branch1_dims), (2, branch2_dims))
        )

    @property
    def variables_in_order(self) -> list[tf.Variable]:
        """The variables of the first MLP, then of the second."""
        return [*self._branch1.trainable_variables, *self._branch2.trainable_variables]

    def __call__(self, inputs: tf.Tensor) -> tf.Tensor:
        """[batch, num_vectors * width] -> [batch, width + rows * columns], in the type of `inputs`."""
        rows = self._branch1.kernels[-1].shape[1] // self._width
        columns = self._branch2.kernels[-1].shape[1] // self._width
        first = tf.reshape(self._branch1(inputs), [-1, rows, self._width])
        second = tf.reshape(self._branch2(inputs), [-1, self._width, columns])
        products = tf.reshape(tf.matmul(first, second), [-1, rows * columns])
        return tf.concat([inputs[:, : self._width], products], axis=1)
