"""The CPU kernels through their C interface, every instruction set of this machine, against float64 numpy."""

import ctypes
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.numpy_interaction import DTYPES, assert_near, every_pattern, forward, gradient, stored, typed, widened

from dlrm_tf2 import ops
from dlrm_tf2.runtime import instruction_sets as known_sets

pytestmark = pytest.mark.skipif(not (ops.LIBRARY_FOLDER / "libdlrm_kernels.so").is_file(), reason="kernels not built")
INSTRUCTION_SETS = dict(enumerate(known_sets.NAMES))
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

    def bits(self) -> np.ndarray:
        """The contents as unsigned integers; fails when a byte outside was written."""
        start = GUARD + 4
        assert (self._memory[:start] == 0xFF).all() and (self._memory[start + self._size :] == 0xFF).all()
        return self._memory[start : start + self._size].copy().view(self._item).reshape(self._shape)

    def values(self) -> np.ndarray:
        """The contents in float64; fails when a byte outside was written."""
        return widened(typed(self.bits(), self._dtype), self._dtype)


def unaligned(memory: np.ndarray) -> np.ndarray:
    """The same values at an address that is a multiple of 4 but not of 16."""
    buffer = np.empty(memory.nbytes + 36, np.uint8)
    start = -buffer.ctypes.data % 16 + 4
    copy = buffer[start : start + memory.nbytes].view(memory.dtype).reshape(memory.shape)
    copy[...] = memory
    return copy


def run_forward(features: np.ndarray, dtype: str, instruction_set: int, threads: int = 1) -> np.ndarray:
    return call_forward(features, dtype, instruction_set, threads).values()


def run_gradient(
    features: np.ndarray, upstream: np.ndarray, dtype: str, instruction_set: int, threads: int = 1
) -> np.ndarray:
    return call_gradient(features, upstream, dtype, instruction_set, threads).values()


def call_forward(features: np.ndarray, dtype: str, instruction_set: int, threads: int = 1) -> Guarded:
    count, width = features.shape[1:]
    output = Guarded((len(features), ops.kernels().dlrm_dot_interaction_output_width(count, width)), dtype)
    call_in_threads("dlrm_dot_interaction_cpu", (unaligned(features),), output, features.shape,
                    (DTYPES[dtype], instruction_set), threads)  # fmt: skip
    return output


def call_gradient(
    features: np.ndarray, upstream: np.ndarray, dtype: str, instruction_set: int, threads: int = 1
) -> Guarded:
    output = Guarded(features.shape, dtype)
    call_in_threads("dlrm_dot_interaction_gradient_cpu", (unaligned(features), unaligned(upstream)), output,
                    features.shape, (DTYPES[dtype], instruction_set), threads)  # fmt: skip
    return output


def call_in_threads(function: str, inputs: tuple, output: Guarded, shape: tuple, choices: tuple, threads: int) -> None:
    """Calls a kernel once in each thread, each thread with its part of the batch."""
    kernels, (batch, count, width) = ops.kernels(), shape
    pointers = [*(array.ctypes.data for array in inputs), output.address]
    ends = [batch * part // threads for part in range(threads + 1)]

    def call(part: int) -> int:
        return getattr(kernels, function)(*pointers, ends[part], ends[part + 1], count, width, *choices)

    with ThreadPoolExecutor(threads) as pool:
        codes = list(pool.map(call, range(threads)))
    assert set(codes) == {0}, [kernels.dlrm_error_text(code) for code in codes]


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
@pytest.mark.parametrize(
    "count, width",
    [
        (1, 1),
        (1, 128),
        (2, 1),
        (27, 128),
        (101, 256),
        # Where NVIDIA's op is silently wrong: F <= 16 in TF32, F > 32, D > 128, D not a multiple of 32 in its gradient.
        (11, 128),
        (16, 128),
        (33, 128),
        (27, 160),
        (27, 8),
        (27, 24),
        (27, 40),
        (27, 48),
        (27, 56),
        (27, 127),
    ],
)
def test_shapes_that_the_published_op_gets_wrong(dtype, instruction_set, count, width):
    check(3, count, width, dtype, instruction_set)


@pytest.mark.parametrize("instruction_set", instruction_sets(), ids=INSTRUCTION_SETS.get)
@pytest.mark.parametrize("dtype", DTYPES)
def test_same_bits_for_any_number_of_threads(dtype, instruction_set):
    rng = np.random.default_rng(1)
    features, upstream = (stored(rng.normal(size=(13, *shape)), dtype) for shape in ((27, 128), (480,)))
    output = call_forward(features, dtype, instruction_set).bits()
    gradient = call_gradient(features, upstream, dtype, instruction_set).bits()
    for threads in (2, 5):
        again = call_forward(features, dtype, instruction_set, threads).bits()
        np.testing.assert_array_equal(again, output)
        again = call_gradient(features, upstream, dtype, instruction_set, threads).bits()
        np.testing.assert_array_equal(again, gradient)


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
        features.ctypes.data,
        upstream.ctypes.data,
        memory.ctypes.data + start,
        0,
        *features.shape,
        DTYPES[dtype],
        instruction_set,
    )
    assert code == 0
    found, end = memory[start : start + features.nbytes].copy(), start + features.nbytes
    np.testing.assert_array_equal(widened(found.view(features.dtype).reshape(features.shape), dtype), wanted)
    assert (memory[:start] == 0xFF).all() and (memory[end:] == 0xFF).all()


@pytest.mark.parametrize("instruction_set", instruction_sets(), ids=INSTRUCTION_SETS.get)
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_copy_keeps_its_bits(dtype, instruction_set):
    """Denormals, -0, infinities and every kind of NaN, next to vectors of NaNs that arithmetic would spread."""
    bits = every_pattern(dtype).reshape(-1, 1, 16)
    for count in (1, 3):
        features = np.full((len(bits), count, 16), ~bits.dtype.type(0))
        features[:, :1] = bits
        output = call_forward(typed(features, dtype), dtype, instruction_set).bits()
        np.testing.assert_array_equal(output[:, :16], bits[:, 0])
    gradient = call_gradient(typed(~bits, dtype), typed(bits[:, 0], dtype), dtype, instruction_set).bits()
    np.testing.assert_array_equal(gradient, bits)


@pytest.mark.parametrize("instruction_set", instruction_sets(), ids=INSTRUCTION_SETS.get)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_every_half_is_read_and_written_as_it_is(dtype, instruction_set):
    """Sums of one term that is not zero: read as float32, times 1, rounded to the type again."""
    bits = every_pattern(dtype)
    bits[~np.isfinite(widened(typed(bits, dtype), dtype))] = 0
    halves = bits.reshape(-1, 16)
    wanted = widened(typed(halves, dtype), dtype)
    if dtype == "bfloat16":  # the contract leaves open whether a sum keeps denormals
        halves[abs(wanted) < 2.0**-126], wanted[abs(wanted) < 2.0**-126] = 0, 0.0
    one, zeros = stored(np.ones((len(halves), 1)), dtype), np.zeros_like(halves)

    # Row 1 of the gradient is 1 * row 0 of the features; row 0 is its upstream + 1 * row 1 of the features.
    features = typed(np.stack([halves, zeros], axis=1), dtype)
    padding = np.zeros((len(halves), 7), halves.dtype)
    upstream = typed(np.concatenate([halves, one.view(halves.dtype), padding], axis=1), dtype)
    found = run_gradient(features, upstream, dtype, instruction_set)
    np.testing.assert_array_equal(found, np.stack([wanted, wanted], axis=1))

    # The dot of each value with 1.
    features = np.zeros((len(bits), 2, 1), bits.dtype)
    features[:, 0, 0], features[:, 1] = halves.reshape(-1), one.view(bits.dtype)[0]
    found = run_forward(typed(features, dtype), dtype, instruction_set)
    np.testing.assert_array_equal(found[:, 1], wanted.reshape(-1))


@pytest.mark.parametrize("instruction_set", instruction_sets(), ids=INSTRUCTION_SETS.get)
@pytest.mark.parametrize(
    "dtype, values",
    [
        # 1 + 2^-11 lies between two halves: to even. 65519 rounds down, 65520 up to infinity. 3 * 2^-25: a denormal.
        (
            "float16",
            {
                1 + 2.0**-11: 1.0,
                1 + 3 * 2.0**-11: 1 + 2.0**-9,
                65519.0: 65504.0,
                65520.0: np.inf,
                3 * 2.0**-25: 2.0**-23,
                2.0**-25: 0.0,
            },
        ),
        ("bfloat16", {1 + 2.0**-8: 1.0, 1 + 3 * 2.0**-8: 1 + 2.0**-6}),
    ],
)
def test_dots_round_to_nearest_even(instruction_set, dtype, values):
    for value, expected in values.items():
        # a * 1 + b * 1 with both parts exact in the type, and the sum not.
        high = min(widened(stored(np.array([value]), dtype), dtype)[0], 65504.0)
        parts = np.array([[[high, value - high], [1.0, 1.0]]])
        found = run_forward(stored(parts, dtype), dtype, instruction_set)[0, 2]
        kept = widened(stored(parts, dtype), dtype)[0, 0].sum()
        if kept == value:  # both parts were exact, so that only the last rounding is tested
            assert found == expected, (value, found, expected)


# dtype, upstream, weight, value, and upstream + weight * value in the type. Halfway between two numbers: to even.
ROUNDED_SUMS = [
    ("float16", 1.0, 2.0**-6, 2.0**-5, 1.0),
    ("float16", 1 + 2.0**-10, 2.0**-6, 2.0**-5, 1 + 2.0**-9),
    ("float16", 65504.0, 1.0, 16.0, np.inf),
    ("float16", 65504.0, 1.0, 15.0, 65504.0),
    ("float16", 2.0**-24, 2.0**-12, 2.0**-13, 2.0**-23),
    ("float16", 0.0, 2.0**-12, 2.0**-13, 0.0),
    ("bfloat16", 1.0, 2.0**-4, 2.0**-4, 1.0),
    ("bfloat16", 1 + 2.0**-7, 2.0**-4, 2.0**-4, 1 + 2.0**-6),
    ("bfloat16", -1 - 2.0**-7, 2.0**-4, -(2.0**-4), -1 - 2.0**-6),
]


@pytest.mark.parametrize("instruction_set", instruction_sets(), ids=INSTRUCTION_SETS.get)
@pytest.mark.parametrize("dtype, upstream, weight, value, expected", ROUNDED_SUMS)
def test_the_gradient_of_row_0_rounds_once_to_nearest_even(dtype, upstream, weight, value, expected, instruction_set):
    features = stored(np.array([[[0.0] * 8, [value] * 8]]), dtype)
    found = run_gradient(features, stored(np.array([[upstream] * 8 + [weight] + [0.0] * 7]), dtype), dtype,
                         instruction_set)  # fmt: skip
    np.testing.assert_array_equal(found[0, 0], expected)


@pytest.mark.parametrize("instruction_set", instruction_sets(), ids=INSTRUCTION_SETS.get)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_denormals_that_are_taken_for_zero_cost_less_than_two_least_normal_numbers_a_term(dtype, instruction_set):
    """As long as no factor is larger than 1. Whether a sum keeps denormals is left open."""
    rng = np.random.default_rng(4)
    features, upstream = (rng.uniform(-1, 1, shape) * 2.0 ** rng.integers(-134, -118, shape)
                          for shape in ((50, 5, 16), (50, 32)))  # fmt: skip
    upstream[:, 16:26] = rng.uniform(-1, 1, (50, 10))
    features, upstream = stored(features, dtype), stored(upstream, dtype)
    found = run_gradient(features, upstream, dtype, instruction_set)
    wanted = gradient(widened(features, dtype), widened(upstream, dtype))
    step = 2.0**-8 if dtype == "bfloat16" else 2.0**-20
    assert np.all(abs(found - wanted) <= step * abs(wanted) + 5 * 2 * 2.0**-126)  # 5 terms
    assert np.any(abs(wanted) > 2.0**-120) and np.any(abs(wanted) < 2.0**-126)


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


@pytest.mark.parametrize(
    "arguments, expected",
    [
        ((0, 1, 0, 4, 0, -1), b"out of range"),
        ((0, 1, 4, 0, 0, -1), b"out of range"),
        ((2, 1, 4, 4, 0, -1), b"out of range"),
        ((0, 1, 4, 4, 3, -1), b"out of range"),
        ((-1, 1, 4, 4, 0, -1), b"out of range"),
        ((0, 1, 4, 4, 0, 9), b"instruction set"),
    ],
)
def test_bad_arguments_are_refused_before_memory_is_touched(arguments, expected):
    kernels = ops.kernels()
    code = kernels.dlrm_dot_interaction_cpu(ctypes.c_void_p(0), ctypes.c_void_p(0), *arguments)
    assert code != 0 and expected in kernels.dlrm_error_text(code)


def test_minus_one_stands_for_the_chosen_instruction_set():
    kernels, rng = ops.kernels(), np.random.default_rng(5)
    features = stored(rng.normal(size=(5, 27, 128)), "float32")
    best = kernels.dlrm_cpu_instruction_set()
    assert kernels.dlrm_chosen_cpu_instruction_set() == best
    try:
        for instruction_set in range(best + 1):
            assert kernels.dlrm_choose_cpu_instruction_set(instruction_set) == 0
            assert kernels.dlrm_chosen_cpu_instruction_set() == instruction_set
            wanted = call_forward(features, "float32", instruction_set).bits()
            np.testing.assert_array_equal(call_forward(features, "float32", -1).bits(), wanted)
        for unknown in (best + 1, -2):
            assert b"instruction set" in kernels.dlrm_error_text(kernels.dlrm_choose_cpu_instruction_set(unknown))
            assert kernels.dlrm_chosen_cpu_instruction_set() == best
    finally:
        kernels.dlrm_choose_cpu_instruction_set(-1)


def test_the_kernels_and_linux_name_the_same_instruction_sets():
    assert [INSTRUCTION_SETS[number] for number in instruction_sets()] == list(known_sets.of_processor())
