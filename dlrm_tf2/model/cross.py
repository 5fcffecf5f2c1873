"""The cross interaction of DCN-v2: a layer multiplies the network's input with a learned mix of the layer's input."""

from zlib import crc32

import tensorflow as tf

# Standard deviation of the initial kernels: Keras' "truncated_normal", which the published model uses.
_DEVIATION = 0.05


class CrossNetwork(tf.Module):
    """Layers x <- x0 * (x W + b) + x, where x0 is the network's input; biases start at 0.

    Args:
      width: columns of the input.
      num_layers: number of layers.
      projection_dim: rank of W = U V, with U [width, projection_dim] and V [projection_dim, width]; 0 for a full
        matrix.
      seed: seed of the initial weights.

    Source: Wang et al., "DCN V2" (2021), equations 1 and 3; NVIDIA's DCNv2 has 3 layers of rank 512.
    """

    def __init__(self, width: int, num_layers: int, *, projection_dim: int, seed: int):
        super().__init__(name="cross")
        shapes = [(width, projection_dim), (projection_dim, width)] if projection_dim else [(width, width)]
        self.kernels: list[list[tf.Variable]] = []
        self.biases: list[tf.Variable] = []
        for layer in range(num_layers):
            names = [f"cross_{layer}_{part}" for part in ("u", "v")] if projection_dim else [f"cross_{layer}_kernel"]
            self.kernels.append([_kernel(name, shape, seed) for name, shape in zip(names, shapes, strict=True)])
            self.biases.append(tf.Variable(tf.zeros([width]), name=f"cross_{layer}_bias"))

    @property
    def variables_in_order(self) -> list[tf.Variable]:
        """The variables layer by layer: kernels, then bias."""
        layers = zip(self.kernels, self.biases, strict=True)
        return [variable for kernels, bias in layers for variable in (*kernels, bias)]

    def __call__(self, inputs: tf.Tensor) -> tf.Tensor:
        """[batch, width] -> [batch, width], in the type of `inputs`."""
        hidden = inputs
        for kernels, bias in zip(self.kernels, self.biases, strict=True):
            mixed = hidden
            for kernel in kernels:
                mixed = tf.matmul(mixed, tf.cast(kernel, inputs.dtype))
            hidden = inputs * tf.nn.bias_add(mixed, tf.cast(bias, inputs.dtype)) + hidden
        return hidden


def _kernel(name: str, shape: tuple[int, int], seed: int) -> tf.Variable:
    values = tf.random.stateless_truncated_normal(shape, [seed, crc32(name.encode())], alg="philox", stddev=_DEVIATION)
    return tf.Variable(values, name=name)
