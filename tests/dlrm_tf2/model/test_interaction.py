"""The dot interaction against hand-written numbers and float64 numpy."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from dlrm_tf2.model.interaction import dot_interaction


def reference(features: np.ndarray) -> np.ndarray:
    """float64: row 0, the dots of pairs i > j row-major, zeros to a multiple of 8."""
    batch, count, width = features.shape
    dots = [np.sum(features[:, i] * features[:, j], axis=1) for i in range(count) for j in range(i)]
    parts = [features[:, 0], *(dot[:, None] for dot in dots)]
    output = np.concatenate(parts, axis=1)
    return np.pad(output, [(0, 0), (0, -output.shape[1] % 8)])


def test_layout_by_hand():
    features = tf.constant([[[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]])
    # row 0 | (1,0) = 3+8, (2,0) = 5+12, (2,1) = 15+24 | zeros
    assert dot_interaction(features).numpy().tolist() == [[1, 2, 11, 17, 39, 0, 0, 0]]


@pytest.mark.parametrize("shape", [(4, 0, 5), (4, 5, 0)])
def test_no_vector_and_no_value_are_refused(shape):
    with pytest.raises(
        ValueError, match=r"features: its shape is \(4, ., .\), expected at least one vector of at least"
    ):
        dot_interaction(tf.zeros(shape))


def test_criteo_shape_is_480_wide():
    assert dot_interaction(tf.zeros([3, 27, 128])).shape == (3, 480)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 5), st.integers(1, 20), st.integers(1, 33), st.integers(0, 2**31))
def test_forward_and_gradient_equal_float64(batch, count, width, seed):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(batch, count, width))
    features = tf.constant(values)
    with tf.GradientTape() as tape:
        tape.watch(features)
        output = dot_interaction(features)
    expected = reference(values)
    np.testing.assert_allclose(output.numpy(), expected, rtol=1e-12, atol=1e-12)

    upstream = rng.normal(size=expected.shape)
    gradient = tape.gradient(output, features, output_gradients=tf.constant(upstream)).numpy()
    wanted = np.zeros_like(values)
    wanted[:, 0] += upstream[:, :width]
    pair = width
    for i in range(count):
        for j in range(i):
            wanted[:, i] += upstream[:, pair, None] * values[:, j]
            wanted[:, j] += upstream[:, pair, None] * values[:, i]
            pair += 1
    np.testing.assert_allclose(gradient, wanted, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("dtype, tolerance", [(tf.float16, 2e-3), (tf.bfloat16, 2e-2)])
def test_half_precision_stays_near_float64(dtype, tolerance):
    values = np.random.default_rng(0).normal(size=(4, 9, 16))
    output = tf.cast(dot_interaction(tf.cast(tf.constant(values), dtype)), tf.float64).numpy()
    np.testing.assert_allclose(output, reference(values), rtol=tolerance, atol=tolerance * 16)
