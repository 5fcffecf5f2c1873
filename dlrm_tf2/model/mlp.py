"""Fully connected layers with float32 weights and any compute type."""

from collections.abc import Sequence
from zlib import crc32

import tensorflow as tf

# Standard deviation of a normal distribution that is cut off at two deviations. Keras' Glorot normal divides by it.
_TRUNCATION = 0.87962566103423978


class Mlp(tf.Module):
    """Dense layers with ReLU between them.

    Args:
      name: prefix of the variables' names, which seed the weights together with `seed`.
      input_width: columns of the input.
      dims: widths of the layers; without layers, the output is the input.
      relu_at_end: whether the last layer has a ReLU too.
      seed: seed of the initial weights.
      init: a key of INITS, the first values of kernels and biases.

    Source: activations of NVIDIA's DLRM.
    """

    def __init__(
        self, name: str, input_width: int, *, dims: Sequence[int], relu_at_end: bool, seed: int, init: str = "glorot"
    ):
        super().__init__(name=name)
        self._relu_at_end = relu_at_end
        self.kernels, self.biases = [], []
        fan_in = input_width
        for layer, units in enumerate(dims):
            kernel_name, bias_name = f"{name}_{layer}_kernel", f"{name}_{layer}_bias"
            seeds = [[seed, crc32(variable.encode())] for variable in (kernel_name, bias_name)]
            kernel, bias = INITS[init](fan_in, units, seeds)
            self.kernels.append(tf.Variable(kernel, name=kernel_name))
            self.biases.append(tf.Variable(bias, name=bias_name))
            fan_in = units

    def __call__(self, inputs: tf.Tensor) -> tf.Tensor:
        """[batch, input width] -> [batch, dims[-1]], in the type of `inputs`."""
        hidden = inputs
        for layer, (kernel, bias) in enumerate(zip(self.kernels, self.biases, strict=True)):
            hidden = tf.nn.bias_add(tf.matmul(hidden, tf.cast(kernel, hidden.dtype)), tf.cast(bias, hidden.dtype))
            if self._relu_at_end or layer < len(self.kernels) - 1:
                hidden = tf.nn.relu(hidden)
        return hidden


def _glorot(fan_in: int, units: int, seeds: list[list[int]]) -> tuple[tf.Tensor, tf.Tensor]:
    """Kernels Glorot normal, biases normal with deviation sqrt(1 / units). Source: NVIDIA's DLRM."""
    deviation = (2.0 / (fan_in + units)) ** 0.5 / _TRUNCATION
    kernel = tf.random.stateless_truncated_normal([fan_in, units], seeds[0], alg="philox", stddev=deviation)
    return kernel, tf.random.stateless_normal([units], seeds[1], alg="philox", stddev=units**-0.5)


def _linear(fan_in: int, units: int, seeds: list[list[int]]) -> tuple[tf.Tensor, tf.Tensor]:
    """Kernels and biases uniform in +-sqrt(1 / inputs). Source: torch.nn.Linear, of which TorchRec's DLRM is made."""
    limit = fan_in**-0.5
    kernel, bias = (
        tf.random.stateless_uniform(shape, seed, alg="philox", minval=-limit, maxval=limit)
        for shape, seed in zip(([fan_in, units], [units]), seeds, strict=True)
    )
    return kernel, bias


INITS = {"glorot": _glorot, "linear": _linear}
