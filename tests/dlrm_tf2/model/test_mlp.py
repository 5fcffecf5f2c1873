"""The first values of an MLP."""

import numpy as np
import pytest

from dlrm_tf2.model.mlp import INITS, Mlp

INPUTS, UNITS = 300, 200


def _made(init: str, seed: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Kernel and bias of one layer."""
    mlp = Mlp("mlp", INPUTS, dims=(UNITS,), relu_at_end=True, seed=seed, init=init)
    return mlp.kernels[0].numpy(), mlp.biases[0].numpy()


def test_linear_is_uniform_as_in_torch_nn_linear():
    """Bounds, mean and deviation of the uniform distribution in +-1 / sqrt(inputs)."""
    limit = 1 / np.sqrt(INPUTS)
    kernel, bias = _made("linear")
    for values in (kernel, bias):
        assert np.abs(values).max() <= limit
        assert np.abs(values).max() > 0.95 * limit
    assert abs(kernel.mean()) < 0.01 * limit
    assert kernel.std() == pytest.approx(limit / np.sqrt(3), rel=0.01)


def test_glorot_is_normal_with_the_deviation_of_inputs_and_units():
    kernel, bias = _made("glorot")
    assert kernel.std() == pytest.approx(np.sqrt(2 / (INPUTS + UNITS)), rel=0.01)
    assert bias.std() == pytest.approx(np.sqrt(1 / UNITS), rel=0.2)


@pytest.mark.parametrize("init", INITS)
def test_the_seed_decides_the_values(init):
    assert all(map(np.array_equal, _made(init), _made(init)))
    assert not np.array_equal(_made(init)[0], _made(init, seed=6)[0])
