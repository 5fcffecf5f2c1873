"""The cross interaction against hand-written numbers and float64 numpy."""

import numpy as np
import pytest
import tensorflow as tf

from dlrm_tf2.model.config import ModelConfig
from dlrm_tf2.model.cross import CrossNetwork


def test_a_full_layer_by_hand():
    network = CrossNetwork(2, 1, projection_dim=0, seed=0)
    network.kernels[0][0].assign([[1.0, 2.0], [3.0, 4.0]])
    network.biases[0].assign([0.5, -1.0])
    # x W + b = [5 + 33 + 0.5, 10 + 44 - 1] = [38.5, 53]; times x, plus x
    assert network(tf.constant([[5.0, 11.0]])).numpy().tolist() == [[5 * 38.5 + 5, 11 * 53 + 11]]


def test_a_low_rank_layer_by_hand():
    network = CrossNetwork(2, 1, projection_dim=1, seed=0)
    network.kernels[0][0].assign([[1.0], [2.0]])
    network.kernels[0][1].assign([[3.0, 4.0]])
    # x U = 1 + 4 = 5; times V = [15, 20]; biases start at 0
    assert network(tf.constant([[1.0, 2.0]])).numpy().tolist() == [[16, 42]]


@pytest.mark.parametrize("rank", [0, 3])
def test_layers_and_all_gradients_equal_float64(rank):
    rng = np.random.default_rng(rank)
    network = CrossNetwork(6, 3, projection_dim=rank, seed=1)
    for variable in network.variables_in_order:
        variable.assign(rng.normal(size=variable.shape) * 0.5)
    x0, upstream = rng.normal(size=(5, 6)), rng.normal(size=(5, 6))
    kernels = [[kernel.numpy().astype(float) for kernel in layer] for layer in network.kernels]
    biases = [bias.numpy().astype(float) for bias in network.biases]

    steps = [x0]
    for layer, bias in zip(kernels, biases, strict=True):
        steps.append(x0 * (np.linalg.multi_dot([steps[-1], *layer, np.eye(6)]) + bias) + steps[-1])
    wanted, by_hidden, by_x0 = [], upstream, np.zeros_like(x0)
    for layer, bias, hidden in reversed(list(zip(kernels, biases, steps[:-1], strict=True))):
        mixed = np.linalg.multi_dot([hidden, *layer, np.eye(6)]) + bias
        by_mixed = by_hidden * x0
        by_x0 = by_x0 + by_hidden * mixed
        if rank:
            u, v = layer
            by_layer = [hidden.T @ (by_mixed @ v.T), (hidden @ u).T @ by_mixed]
        else:
            by_layer = [hidden.T @ by_mixed]
        by_hidden = by_hidden + by_mixed @ np.linalg.multi_dot([*layer, np.eye(6)]).T
        wanted = [*by_layer, by_mixed.sum(axis=0), *wanted]

    inputs = tf.constant(x0, tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        output = network(inputs)
    by_inputs, by_variables = tape.gradient(
        output, [inputs, network.variables_in_order], output_gradients=tf.constant(upstream, tf.float32)
    )
    np.testing.assert_allclose(output.numpy(), steps[-1], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(by_inputs.numpy(), by_hidden + by_x0, rtol=1e-4, atol=1e-5)
    for found, expected in zip(by_variables, wanted, strict=True):
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-4, atol=1e-5)


def test_the_published_width_and_weights():
    model = ModelConfig(
        ("a",) * 26,
        (9,) * 26,
        num_numerical=13,
        embedding_dim=128,
        bottom_mlp_dims=(512, 256, 128),
        top_mlp_dims=(1024, 1),
        interaction="cross",
        num_cross_layers=3,
        cross_layer_projection_dim=512,
    )
    assert model.interaction_width == 3456
    variables = CrossNetwork(3456, 3, projection_dim=512, seed=0).variables_in_order
    assert model.num_interaction_weights == sum(int(np.prod(v.shape)) for v in variables) == 3 * (2 * 3456 * 512 + 3456)


def test_the_same_seed_gives_the_same_weights_and_every_layer_its_own():
    one, other = CrossNetwork(4, 2, projection_dim=0, seed=3), CrossNetwork(4, 2, projection_dim=0, seed=3)
    np.testing.assert_array_equal(one.kernels[0][0].numpy(), other.kernels[0][0].numpy())
    assert not np.array_equal(one.kernels[0][0].numpy(), one.kernels[1][0].numpy())
