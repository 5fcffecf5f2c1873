"""The CPU kernels through their C interface, every instruction set of this machine, against float64 numpy."""

import ctypes

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.numpy_interaction import DTYPES, assert_near, forward, gradient, stored, widened

from dlrm_tf2 import ops

pytestmark = pytest.mark.skipif(not (ops.LIBRARY_FOLDER / "libdlrm_kernels.so").is_file(), reason="kernels not built")
INSTRUCTION_SETS = {0: "scalar", 1: "avx2", 2: "avx512", 3: "avx512_bf16"}
GUARD = 64  # bytes before and after each output that must stay as they are


def instruction_sets() -> list[int]:
    if not (ops.LIBRARY_FOLDER / "libdlrm_kernels.so").is_file():
        return [0]
    return list(range(ops.kernels().dlrm_cpu_instruction_set() + 1))


class Guarded:
    """An output buffer poisoned with NaN, between guards, at an address that is no multiple of 16."""

    def __init__(self, shape: tuple[int, ...], dtype: str):
        self._item = np.dtype("uint16" if dtype != "float32" else "uint32")
        self._shape, self._dtype = shape, dtype
        self._size = int(np.prod(shape)) * self._item.itemsize
        self._memory = np.full(self._size + 2 * GUARD + 4, 0xFF, np.uint8)

    @property
    def address(self) -> int:
        return self._memory.ctypes.data + GUARD + 4

    def values(self) -> np.ndarray:
        """The contents in float64; fails when a byte outside was written."""
        start = GUARD + 4
        assert (self._memory[:start] == 0xFF).all() and (self._memory[start + self._size :] == 0xFF).all()
        inside = self._memory[start : start + self._size].copy()
        bits = inside.view(self._item).reshape(self._shape)
        return widened(bits if self._dtype == "bfloat16" else bits.view(self._dtype), self._dtype)


def unaligned(memory: np.ndarray) -> np.ndarray:
    """The same values at an address that is a multiple of 4 but not of 16."""
    buffer = np.empty(memory.nbytes + 36, np.uint8)
    start = -buffer.ctypes.data % 16 + 4
    copy = buffer[start : start + memory.nbytes].view(memory.dtype).reshape(memory.shape)
    copy[...] = memory
    return copy


def run_forward(features: np.ndarray, dtype: str, instruction_set: int, parts: int = 1) -> np.ndarray:
    batch, count, width = features.shape
    kernels = ops.kernels()
    output = Guarded((batch, kernels.dlrm_dot_interaction_output_width(count, width)), dtype)
    source = unaligned(features)
    for part in range(parts):
        code = kernels.dlrm_dot_interaction_cpu(
            source.ctypes.data, output.address, batch * part // parts, batch * (part + 1) // parts, count, width,
            DTYPES[dtype], instruction_set)
        assert code == 0, kernels.dlrm_error_text(code)
    return output.values()


def run_gradient(features: np.ndarray, upstream: np.ndarray, dtype: str, instruction_set: int) -> np.ndarray:
    batch, count, width = features.shape
    kernels, output = ops.kernels(), Guarded(features.shape, dtype)
    source, up = unaligned(features), unaligned(upstream)
    code = kernels.dlrm_dot_interaction_gradient_cpu(
        source.ctypes.data, up.ctypes.data, output.address, 0, batch, count, width, DTYPES[dtype], instruction_set)
    assert code == 0, kernels.dlrm_error_text(code)
    return output.values()


def check(batch: int, count: int, width: int, dtype: str, instruction_set: int, seed: int = 0) -> None:
    rng = np.random.default_rng(seed)
    features = stored(rng.normal(size=(batch, count, width)), dtype)
    exact = widened(features, dtype)
    expected = forward(exact)
    assert_near(run_forward(features, dtype, instruction_set), expected, dtype, width)

    upstream = stored(rng.normal(size=expected.shape), dtype)
    wanted = gradient(exact, widened(upstream, dtype))
    assert_near(run_gradient(features, upstream, dtype, instruction_set), wanted, dtype, count)


@pytest.mark.parametrize("instruction_set", instruction_sets(), ids=INSTRUCTION_SETS.get)
@pytest.mark.parametrize("dtype", DTYPES)
@settings(deadline=None, max_examples=40)
@given(st.integers(0, 4), st.integers(1, 40), st.integers(1, 140), st.integers(0, 2**31))
def test_any_shape_equals_float64(dtype, instruction_set, batch, count, width, seed):
    check(batch, count, width, dtype, instruction_set, seed)


@pytest.mark.parametrize("instruction_set", instruction_sets(), ids=INSTRUCTION_SETS.get)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("count, width", [
    (1, 1), (1, 128), (2, 1), (27, 128), (101, 256),
    # Where NVIDIA's op is silently wrong: F <= 16 in TF32, F > 32, D > 128, D not a multiple of 32 in its gradient.
    (11, 128), (16, 128), (33, 128), (27, 160), (27, 8), (27, 24), (27, 40), (27, 48), (27, 56), (27, 127),
])
def test_shapes_that_the_published_op_gets_wrong(dtype, instruction_set, count, width):
    check(3, count, width, dtype, instruction_set)


@pytest.mark.parametrize("instruction_set", instruction_sets(), ids=INSTRUCTION_SETS.get)
@pytest.mark.parametrize("dtype", DTYPES)
def test_same_bits_however_the_batch_is_cut(dtype, instruction_set):
    features = stored(np.random.default_rng(1).normal(size=(13, 27, 128)), dtype)
    whole = run_forward(features, dtype, instruction_set)
    np.testing.assert_array_equal(run_forward(features, dtype, instruction_set, parts=5), whole)


@pytest.mark.parametrize("instruction_set", instruction_sets(), ids=INSTRUCTION_SETS.get)
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_large_gradient_that_passes_the_caches_by_has_the_same_bits(dtype, instruction_set):
    rng = np.random.default_rng(3)
    features = stored(rng.normal(size=(700, 27, 128)), dtype)  # 4 MiB and more in every type
    upstream = stored(rng.normal(size=(700, 480)), dtype)
    wanted = run_gradient(features, upstream, dtype, instruction_set)  # whose address rules that out
    memory = np.full(features.nbytes + 192, 0xFF, np.uint8)
    start = -memory.ctypes.data % 64 + 64  # and this one allows it
    code = ops.kernels().dlrm_dot_interaction_gradient_cpu(
        features.ctypes.data, upstream.ctypes.data, memory.ctypes.data + start, 0, *features.shape, DTYPES[dtype],
        instruction_set)
    assert code == 0
    found, end = memory[start : start + features.nbytes].copy(), start + features.nbytes
    np.testing.assert_array_equal(widened(found.view(features.dtype).reshape(features.shape), dtype), wanted)
    assert (memory[:start] == 0xFF).all() and (memory[end:] == 0xFF).all()


@pytest.mark.parametrize("instruction_set", instruction_sets(), ids=INSTRUCTION_SETS.get)
def test_every_half_is_read_and_written_as_it_is(instruction_set):
    """F = 1 copies, so the gradient of F = 1 is its upstream, converted to float32 and back: the identity on halves."""
    bits = np.arange(2**16, dtype=np.uint16)
    for dtype in ("float16", "bfloat16"):
        halves = bits if dtype == "bfloat16" else bits.view(np.float16)
        values = widened(halves, dtype)
        numbers = np.isfinite(values)
        upstream = np.where(numbers, bits, 0).astype(np.uint16).reshape(-1, 16)
        typed = upstream if dtype == "bfloat16" else upstream.view(np.float16)
        features = np.zeros((len(upstream), 1, 16), typed.dtype)
        found = run_gradient(features, typed, dtype, instruction_set).reshape(-1)
        np.testing.assert_array_equal(found, np.where(numbers, values, 0.0))


@pytest.mark.parametrize("instruction_set", instruction_sets(), ids=INSTRUCTION_SETS.get)
@pytest.mark.parametrize("dtype, values", [
    # 1 + 2^-11 lies between two halves: to even. 65519 rounds down, 65520 up to infinity. 3 * 2^-25: a denormal.
    ("float16", {1 + 2.0**-11: 1.0, 1 + 3 * 2.0**-11: 1 + 2.0**-9, 65519.0: 65504.0, 65520.0: np.inf,
                 3 * 2.0**-25: 2.0**-23, 2.0**-25: 0.0}),
    ("bfloat16", {1 + 2.0**-8: 1.0, 1 + 3 * 2.0**-8: 1 + 2.0**-6}),
])
def test_dots_round_to_nearest_even(instruction_set, dtype, values):
    for value, expected in values.items():
        # a * 1 + b * 1 with both parts exact in the type, and the sum not.
        high = min(widened(stored(np.array([value]), dtype), dtype)[0], 65504.0)
        parts = np.array([[[high, value - high], [1.0, 1.0]]])
        found = run_forward(stored(parts, dtype), dtype, instruction_set)[0, 2]
        kept = widened(stored(parts, dtype), dtype)[0, 0].sum()
        if kept == value:  # both parts were exact, so that only the last rounding is tested
            assert found == expected, (value, found, expected)


@pytest.mark.parametrize("instruction_set", instruction_sets(), ids=INSTRUCTION_SETS.get)
@pytest.mark.parametrize("dtype", DTYPES)
def test_nan_and_infinity_arrive(dtype, instruction_set):
    values = np.ones((2, 3, 20))
    values[0, 1, 19], values[1, 2, 0] = np.nan, np.inf
    found = run_forward(stored(np.nan_to_num(values, nan=1, posinf=1), dtype), dtype, instruction_set)
    assert np.isfinite(found).all()
    memory = stored(values, dtype)
    if dtype == "bfloat16":
        memory[0, 1, 19] = 0x7FC0
    found = run_forward(memory, dtype, instruction_set)
    assert np.isnan(found[0, [20, 22]]).all() and found[0, 21] == 20  # dots (1,0), (2,1); not (2,0)
    assert np.isinf(found[1, [21, 22]]).all() and found[1, 20] == 20


@pytest.mark.parametrize("dtype", DTYPES)
def test_gradient_is_the_finite_difference(dtype):
    rng = np.random.default_rng(2)
    features = np.round(rng.normal(size=(1, 5, 6)), 2)
    exact = widened(stored(features, dtype), dtype)
    upstream = widened(stored(rng.normal(size=forward(exact).shape), dtype), dtype)
    found = run_gradient(stored(exact, dtype), stored(upstream, dtype), dtype, -1)
    step = 1e-3
    for index in np.ndindex(exact.shape):
        up, down = exact.copy(), exact.copy()
        up[index] += step
        down[index] -= step
        slope = np.sum((forward(up) - forward(down)) * upstream) / (2 * step)
        assert found[index] == pytest.approx(slope, rel=2e-2 if dtype != "float32" else 1e-5, abs=1e-2)


@pytest.mark.parametrize("arguments, expected", [
    ((0, 1, 0, 4, 0, -1), b"out of range"), ((0, 1, 4, 0, 0, -1), b"out of range"),
    ((2, 1, 4, 4, 0, -1), b"out of range"), ((0, 1, 4, 4, 3, -1), b"out of range"),
    ((-1, 1, 4, 4, 0, -1), b"out of range"),
    ((0, 1, 4, 4, 0, 9), b"instruction set"),
])
def test_bad_arguments_are_refused_before_memory_is_touched(arguments, expected):
    kernels = ops.kernels()
    code = kernels.dlrm_dot_interaction_cpu(ctypes.c_void_p(0), ctypes.c_void_p(0), *arguments)
    assert code != 0 and expected in kernels.dlrm_error_text(code)
