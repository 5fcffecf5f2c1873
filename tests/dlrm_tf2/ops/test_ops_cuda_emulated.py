"""The CUDA kernels' own text, run on the processor by cuda_emulator.h: indices, barriers, alignment, every shape.

No speed and no real GPU in here: bench/gpu checks the compiled kernels where there is one.
"""

import ctypes
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.numpy_interaction import DTYPES, assert_near, every_pattern, forward, gradient, stored, widened

HERE, SOURCE = Path(__file__).parents[2] / "support", Path(__file__).parents[3] / "dlrm_tf2" / "ops" / "src"
BEST, GENERAL, TENSOR = -1, 0, 1
BAD_ARGUMENT, TOO_LARGE = 1, 4
pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="no g++")


@pytest.fixture(scope="module")
def kernels(tmp_path_factory):
    library = tmp_path_factory.mktemp("emulated") / "libemulated.so"
    sources = [
        HERE / "cuda_emulator" / "emulated_kernels.cc",
        *(SOURCE / "dot_interaction" / f"dot_interaction_cpu{part}.cc" for part in ("", "_scalar")),
        SOURCE / "errors.cc",
        SOURCE / "instruction_sets.cc",
    ]
    subprocess.run(["g++", "-O2", "-std=c++17", "-fPIC", "-shared", "-I", SOURCE, "-o", library, *sources], check=True)
    kernels = ctypes.CDLL(str(library))
    kernels.path = library
    kernels.dlrm_dot_interaction_output_width.restype = ctypes.c_int64
    kernels.dlrm_dot_interaction_output_width.argtypes = [ctypes.c_int64] * 2
    rest = [ctypes.c_int64] * 3 + [ctypes.c_int] * 2 + [ctypes.c_void_p]
    kernels.dlrm_dot_interaction_cuda.argtypes = [ctypes.c_void_p] * 2 + rest
    kernels.dlrm_dot_interaction_gradient_cuda.argtypes = [ctypes.c_void_p] * 3 + rest
    kernels.emulate_gpu(90, 227 * 1024, 1)
    return kernels


def placed(memory: np.ndarray, misaligned: int) -> np.ndarray:
    """The same values at an address that is a multiple of 16, plus `misaligned`."""
    buffer = np.full(memory.nbytes + 64, 0xFF, np.uint8)
    start = -buffer.ctypes.data % 16 + 16 + misaligned
    copy = buffer[start : start + memory.nbytes].view(memory.dtype).reshape(memory.shape)
    copy[...] = memory
    return copy


class Poisoned:
    """An output that starts as NaN, between guards."""

    def __init__(self, shape, dtype, misaligned=0):
        self.memory = placed(np.full(shape, -1, np.int16 if dtype != "float32" else np.int32), misaligned)
        self.dtype = dtype

    @property
    def address(self):
        return self.memory.ctypes.data

    def values(self):
        guard = self.memory.base
        while guard.base is not None:
            guard = guard.base
        start = self.memory.ctypes.data - guard.ctypes.data
        assert (guard[:start] == 0xFF).all() and (guard[start + self.memory.nbytes :] == 0xFF).all()
        bits = self.memory.view(np.uint16 if self.dtype != "float32" else np.uint32)
        return widened(bits if self.dtype == "bfloat16" else bits.view(self.dtype), self.dtype)


def check(kernels, batch, count, width, dtype, kernel, seed=0, misaligned=0):
    rng = np.random.default_rng(seed)
    features = placed(stored(rng.normal(size=(batch, count, width)), dtype), misaligned)
    exact = widened(features, dtype)
    expected = forward(exact)
    arguments = batch, count, width, DTYPES[dtype], kernel, None
    output = Poisoned(expected.shape, dtype, misaligned)
    assert kernels.dlrm_dot_interaction_cuda(features.ctypes.data, output.address, *arguments) == 0
    assert_near(output.values(), expected, dtype, width)

    upstream = placed(stored(rng.normal(size=expected.shape), dtype), misaligned)
    found = Poisoned(features.shape, dtype, misaligned)
    assert (
        kernels.dlrm_dot_interaction_gradient_cuda(
            features.ctypes.data, upstream.ctypes.data, found.address, *arguments
        )
        == 0
    )
    assert_near(found.values(), gradient(exact, widened(upstream, dtype)), dtype, count)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@settings(deadline=None, max_examples=25)
@given(st.integers(0, 6), st.integers(1, 32), st.integers(1, 20), st.integers(0, 2**31))
def test_tensor_core_kernels_equal_float64(kernels, dtype, batch, count, eighths, seed):
    check(kernels, batch, count, 8 * eighths, dtype, TENSOR, seed)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("count", [1, 2, 9, 16, 17, 27, 32])
def test_tensor_core_kernels_of_width_128(kernels, dtype, count):
    check(kernels, 5, count, 128, dtype, TENSOR)


@pytest.mark.parametrize("dtype", DTYPES)
@settings(deadline=None, max_examples=25)
@given(st.integers(0, 3), st.integers(1, 45), st.integers(1, 150), st.integers(0, 2**31))
def test_general_kernels_equal_float64(kernels, dtype, batch, count, width, seed):
    check(kernels, batch, count, width, dtype, GENERAL, seed)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "count, width",
    [
        (1, 1),
        (27, 128),
        (101, 24),
        # Where NVIDIA's op is silently wrong: F <= 16 in TF32, F > 32, D > 128, D not a multiple of 32 in its gradient.
        (11, 128),
        (16, 128),
        (33, 128),
        (27, 160),
        (27, 8),
        (27, 24),
        (27, 40),
        (27, 56),
        (27, 127),
    ],
)
def test_shapes_that_the_published_op_gets_wrong(kernels, dtype, count, width):
    check(kernels, 2, count, width, dtype, BEST)


@pytest.mark.parametrize("kernel", [GENERAL, TENSOR])
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_copy_keeps_its_bits(kernels, dtype, kernel):
    """Denormals, -0, infinities and NaNs, next to vectors of NaNs that arithmetic would spread."""
    if kernel == TENSOR and dtype == "float32":
        kernel = BEST
    bits = placed(every_pattern(dtype).reshape(-1, 1, 16)[::7], 0)
    for count in (1, 3):
        features = np.full((len(bits), count, 16), ~bits.dtype.type(0))
        features[:, :1] = bits
        features = placed(features, 0)
        output = placed(np.zeros((len(bits), 16 if count == 1 else 24), bits.dtype), 0)
        assert (
            kernels.dlrm_dot_interaction_cuda(
                features.ctypes.data, output.ctypes.data, len(bits), count, 16, DTYPES[dtype], kernel, None
            )
            == 0
        )
        np.testing.assert_array_equal(output[:, :16], bits[:, 0])
    features, gradient = placed(~bits, 0), placed(np.zeros_like(bits), 0)
    assert (
        kernels.dlrm_dot_interaction_gradient_cuda(
            features.ctypes.data, bits.ctypes.data, gradient.ctypes.data, len(bits), 1, 16, DTYPES[dtype], kernel, None
        )
        == 0
    )
    np.testing.assert_array_equal(gradient, bits)


@pytest.mark.parametrize("dtype", DTYPES)
def test_addresses_that_are_not_aligned(kernels, dtype):
    misaligned = 4 if dtype == "float32" else 2
    check(kernels, 2, 9, 16, dtype, BEST, misaligned=misaligned)
    refused = kernels.dlrm_dot_interaction_cuda(misaligned, 16, 2, 9, 16, DTYPES[dtype], TENSOR, None)
    assert refused == BAD_ARGUMENT


@pytest.mark.parametrize("dtype", DTYPES)
def test_little_shared_memory_takes_the_columns_in_chunks(kernels, dtype):
    kernels.emulate_gpu(75, 6 * 1024, 1)
    try:
        check(kernels, 2, 27, 128, dtype, BEST)  # 5 columns of float32 a chunk; dots beside them, or not
        check(kernels, 2, 60, 50, dtype, BEST)
        wide = 1, 2000, 8, DTYPES[dtype], BEST, None
        assert kernels.dlrm_dot_interaction_cuda(16, 16, *wide) == TOO_LARGE
        assert kernels.dlrm_dot_interaction_gradient_cuda(16, 16, 16, *wide) == TOO_LARGE
    finally:
        kernels.emulate_gpu(90, 227 * 1024, 1)


@pytest.mark.parametrize(
    "capability, dtype, served",
    [
        (70, "float16", False),
        (75, "float16", True),
        (75, "bfloat16", False),
        (80, "bfloat16", True),
        (90, "float32", False),
    ],
)
def test_tensor_cores_serve_what_they_have(kernels, capability, dtype, served):
    kernels.emulate_gpu(capability, 64 * 1024, 1)
    try:
        code = kernels.dlrm_dot_interaction_cuda(16, 16, 0, 27, 128, DTYPES[dtype], TENSOR, None)
        assert code == (0 if served else BAD_ARGUMENT)
        check(kernels, 2, 20, 24, dtype, BEST)
    finally:
        kernels.emulate_gpu(90, 227 * 1024, 1)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_same_bits_in_every_order_of_threads(kernels, dtype):
    features = placed(stored(np.random.default_rng(0).normal(size=(3, 27, 128)), dtype), 0)
    found = set()
    for seed in range(4):
        kernels.emulate_gpu(90, 227 * 1024, seed)
        output = Poisoned((3, 480), dtype)
        assert (
            kernels.dlrm_dot_interaction_cuda(
                features.ctypes.data, output.address, 3, 27, 128, DTYPES[dtype], BEST, None
            )
            == 0
        )
        found.add(output.memory.tobytes())
    assert len(found) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        (-1, 4, 4, 0, -1),
        (1, 0, 4, 0, -1),
        (1, 4, 0, 0, -1),
        (1, 4, 4, 3, -1),
        (1, 4, 4, 0, 2),
        (2**31, 4, 4, 0, -1),
        (1, 2**16, 4, 0, -1),
        (1, 33, 128, 1, TENSOR),
        (1, 27, 127, 1, TENSOR),
    ],
)
def test_bad_arguments_are_refused(kernels, arguments):
    assert kernels.dlrm_dot_interaction_cuda(16, 16, *arguments, None) == BAD_ARGUMENT
    assert kernels.dlrm_dot_interaction_gradient_cuda(16, 16, 16, *arguments, None) == BAD_ARGUMENT


class HostDevice:
    """The GPU check's device, in this process's memory."""

    def upload(self, values):
        return placed(values.view(np.uint8).reshape(-1), 0)

    def poisoned(self, num_bytes):
        return placed(np.full(num_bytes, 0xFF, np.uint8), 0)

    def address(self, memory):
        return memory.ctypes.data

    def download(self, memory):
        return memory

    def wait(self):
        pass


def test_the_gpu_check_passes_right_kernels_and_finds_wrong_ones(kernels, monkeypatch):
    monkeypatch.syspath_prepend(str(SOURCE.parents[2] / "bench" / "gpu"))
    for name in ("device", "times", "check"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    import check
    import device

    right = device.Kernels(kernels.path)
    # The general kernel takes 4 counts, 3 widths, 3 types; the tensor cores' 3 of the counts, 2 widths, 2 types.
    found = check.check_grid(HostDevice(), right, check.small_grid())
    assert found == {"checked": 2 * (4 * 3 * 3 + 3 * 2 * 2), "wrong": []}

    monkeypatch.setattr(device, "output_width", lambda count, width: (width + count * (count - 1) // 2 + 15) // 8 * 8)
    found = check.check_grid(HostDevice(), right, [((2, 5, 8), "float32", "general", 0)])
    assert len(found["wrong"]) == 1 and "(2, 5, 8) float32 general" in found["wrong"][0]
