"""The AVX-512 kernels' own text on a processor with AVX2, through avx512_emulator/: what they compute, not how fast."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import test_ops_kernels as kernel_tests
import test_ops_rows as row_tests
import test_ops_weight_gradient as weight_tests
from support.numpy_interaction import DTYPES

from dlrm_tf2 import ops
from dlrm_tf2.runtime import instruction_sets

EMULATOR = Path(__file__).parents[2] / "support" / "avx512_emulator"
SOURCE = Path(__file__).parents[3] / "dlrm_tf2" / "ops" / "src"
FOUND = instruction_sets.of_processor()
AVX512 = (2, 3)
pytestmark = [
    pytest.mark.skipif(shutil.which("g++") is None, reason="no g++"),
    pytest.mark.skipif("avx2" not in FOUND, reason="this processor has no AVX2"),
    pytest.mark.skipif("avx512_bf16" in FOUND, reason="this processor runs the AVX-512 kernels themselves"),
]


@pytest.fixture(scope="module", autouse=True)
def emulated(tmp_path_factory):
    """Puts the emulated library in the place of the one that was built."""
    folder = tmp_path_factory.mktemp("emulated")
    subprocess.run(
        ["g++", "-O0", "-std=c++17", "-fPIC", "-shared", "-Wno-psabi", "-mavx2", "-mfma", "-mf16c", "-DDLRM_X86",
         "-D__builtin_cpu_supports(name)=1", "-I", EMULATOR, "-I", SOURCE, "-o", folder / "libdlrm_kernels.so",
         "-ffp-contract=off", *SOURCE.glob("*/*_cpu*.cc"), *SOURCE.glob("*.cc")],
        check=True,
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ops, "LIBRARY_FOLDER", folder)
        yield


@pytest.mark.long
@pytest.mark.parametrize("instruction_set", AVX512, ids=kernel_tests.INSTRUCTION_SETS.get)
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_shape_class_equals_float64(dtype, instruction_set):
    for seed, count in enumerate((1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 16, 26, 27, 28, 33, 40)):
        for width in (1, 15, 16, 17, 31, 32, 33, 48, 63, 64, 96, 127, 128, 160):
            kernel_tests.check(2, count, width, dtype, instruction_set, seed)


@pytest.mark.parametrize("instruction_set", AVX512, ids=kernel_tests.INSTRUCTION_SETS.get)
@pytest.mark.parametrize("dtype", DTYPES)
def test_copies_sums_and_threads(dtype, instruction_set):
    kernel_tests.test_a_copy_keeps_its_bits(dtype, instruction_set)
    if dtype != "float32":
        kernel_tests.test_every_half_is_read_and_written_as_it_is(dtype, instruction_set)
    if dtype != "float16":
        kernel_tests.test_denormals_that_are_taken_for_zero_cost_less_than_two_least_normal_numbers_a_term(
            dtype, instruction_set
        )
    kernel_tests.test_same_bits_for_any_number_of_threads(dtype, instruction_set)
    kernel_tests.test_a_large_gradient_that_passes_the_caches_by_has_the_same_bits(dtype, instruction_set)
    kernel_tests.test_nan_and_infinity_arrive(dtype, instruction_set)


@pytest.mark.parametrize("instruction_set", AVX512, ids=kernel_tests.INSTRUCTION_SETS.get)
@pytest.mark.parametrize("case", kernel_tests.ROUNDED_SUMS)
def test_the_gradient_of_row_0_rounds_once_to_nearest_even(case, instruction_set):
    kernel_tests.test_the_gradient_of_row_0_rounds_once_to_nearest_even(*case, instruction_set)


@pytest.mark.parametrize("weights_type", ["float32", "bfloat16"])
def test_embedding_rows_have_the_bits_of_numpy(weights_type):
    for seed, kind in enumerate(row_tests.KINDS):
        rng, vectors_type = np.random.default_rng(seed), row_tests.TYPES[seed % 3]
        slabs, bags = row_tests.random_case(rng, weights_type, vectors_type, kind)
        gradients = [one.vectors.copy() for one in bags]
        row_tests.check_lookup(slabs, bags, vectors_type, AVX512[0])
        for one, gradient in zip(bags, gradients, strict=True):
            one.vectors[:] = gradient
        weight_tests.check(slabs, bags, AVX512[0])
        row_tests.check_update(slabs, bags, row_tests.Step(kind, step=3), AVX512[0], 2)
