"""The AVX-512 kernels' own text on a processor with AVX2, through avx512_emulator/: what they compute, not how fast."""

import shutil
import subprocess
from pathlib import Path

import pytest
import test_ops_kernels as kernel_tests
from support.numpy_interaction import DTYPES

from dlrm_tf2 import ops

EMULATOR = Path(__file__).parents[2] / "support" / "avx512_emulator"
SOURCE = Path(__file__).parents[3] / "dlrm_tf2" / "ops" / "src"
FLAGS = set(Path("/proc/cpuinfo").read_text().split()) if Path("/proc/cpuinfo").is_file() else set()
AVX512 = (2, 3)
pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(shutil.which("g++") is None, reason="no g++"),
    pytest.mark.skipif("avx2" not in FLAGS, reason="this processor has no AVX2"),
    pytest.mark.skipif("avx512_bf16" in FLAGS, reason="this processor runs the AVX-512 kernels themselves"),
]


@pytest.fixture(scope="module", autouse=True)
def emulated(tmp_path_factory):
    """Puts the emulated library in the place of the one that was built."""
    folder = tmp_path_factory.mktemp("emulated")
    subprocess.run(
        ["g++", "-O1", "-std=c++17", "-fPIC", "-shared", "-Wno-psabi", "-mavx2", "-mfma", "-mf16c", "-DDLRM_X86",
         "-D__builtin_cpu_supports(name)=1", "-I", EMULATOR, "-o", folder / "libdlrm_kernels.so",
         *SOURCE.glob("dot_interaction_cpu*.cc"), SOURCE / "errors.cc"],
        check=True,
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ops, "LIBRARY_FOLDER", folder)
        yield


@pytest.mark.parametrize("instruction_set", AVX512, ids=kernel_tests.INSTRUCTION_SETS.get)
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_shape_class_equals_float64(dtype, instruction_set):
    for seed, count in enumerate((1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 16, 26, 27, 28, 33, 40)):
        for width in (1, 15, 16, 17, 31, 32, 33, 48, 63, 64, 96, 127, 128, 160):
            kernel_tests.check(2, count, width, dtype, instruction_set, seed)


@pytest.mark.parametrize("instruction_set", AVX512, ids=kernel_tests.INSTRUCTION_SETS.get)
def test_conversions_ends_and_cuts(instruction_set):
    kernel_tests.test_every_half_is_read_and_written_as_it_is(instruction_set)
    for dtype in DTYPES:
        kernel_tests.test_same_bits_however_the_batch_is_cut(dtype, instruction_set)
        kernel_tests.test_a_large_gradient_that_passes_the_caches_by_has_the_same_bits(dtype, instruction_set)
        kernel_tests.test_nan_and_infinity_arrive(dtype, instruction_set)
