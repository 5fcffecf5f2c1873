"""Sums by row, row splits and the status of the CUDA kernels, run on the processor: the bits of numpy."""

import ctypes
import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import row_cuda_kernels as cuda
from support.row_kernels import BadId, Bags, Workspace, numpy_sums

from dlrm_tf2 import ops

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="no g++")


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    return cuda.build(tmp_path_factory.mktemp("emulated_rows"))


def check_sums(library, slab, bags, **choices):
    rows, sums = cuda.sum_by_row(library, slab, bags, **choices)
    expected = numpy_sums(bags, 0)
    assert sorted(rows.tolist()) == sorted(expected)
    wanted = np.array([expected[row] for row in rows.tolist()], np.float32).reshape(sums.shape)
    np.testing.assert_array_equal(cuda.bits(sums), cuda.bits(wanted))


@settings(deadline=None, max_examples=25)
@given(
    seed=st.integers(0, 2**31),
    width=st.sampled_from([1, 3, 8, 17, 64, 128, 129]),
    vectors_dtype=st.sampled_from(["float32", "float16", "bfloat16"]),
    misaligned=st.sampled_from([0, 0, 4]),
)
def test_sums_equal_numpy(library, seed, width, vectors_dtype, misaligned):
    rng = np.random.default_rng(seed)
    num_samples, num_rows = int(rng.integers(0, 30)), int(rng.integers(1, 60))
    slabs, bags, _ = cuda.random_case(rng, [width], table_dtype="float32", vectors_dtype=vectors_dtype,
                                      num_samples=num_samples, num_rows=num_rows)  # fmt: skip
    check_sums(library, slabs[0], bags, misaligned=misaligned)


def hot_rows(rng, num_rows, width):
    """Row i occurs counts[i] times: around the length of a chunk. `num_rows` decides where a sort ends."""
    counts = [255, 256, 257, 1, 0, 513, 900]
    ids = rng.permutation(np.repeat(np.arange(len(counts)), counts)).astype(np.int32)[:, None]
    size = rng.normal(size=(len(ids), width)) * 10.0 ** rng.integers(-3, 4, (len(ids), 1))
    slab = cuda.random_slab(rng, num_rows, width=width, table_dtype="float32", kind="sgd")
    return slab, [Bags(0, ids, cuda.aligned(size.astype(np.float32)), num_ids=num_rows)]


@pytest.mark.parametrize("num_rows", [7, 8])
@pytest.mark.parametrize("width", [8, 17])
def test_long_and_short_runs(library, width, num_rows):
    check_sums(library, *hot_rows(np.random.default_rng(0), num_rows, width))


def test_the_bits_of_the_cpu(library):
    if not (ops.LIBRARY_FOLDER / "libdlrm_kernels.so").is_file():
        pytest.skip("kernels not built")
    slab, bags = hot_rows(np.random.default_rng(1), 8, 16)
    rows, sums = cuda.sum_by_row(library, slab, bags)
    with Workspace() as workspace:
        cpu_rows, cpu_sums = workspace.sum_by_row(slab, bags)
    np.testing.assert_array_equal(np.sort(rows), np.sort(cpu_rows))
    np.testing.assert_array_equal(cuda.bits(sums[np.argsort(rows)]), cuda.bits(cpu_sums[np.argsort(cpu_rows)]))


def test_a_bad_id_has_no_sum(library):
    slab = cuda.random_slab(np.random.default_rng(2), 5, width=4, table_dtype="float32", kind="sgd")
    bags = Bags(0, np.array([[0], [5], [0]]), cuda.aligned(np.ones((3, 4), np.float32)), num_ids=5)
    with pytest.raises(BadId) as error:
        cuda.sum_by_row(library, slab, [bags])
    assert error.value.args == (0, 1, 5)


def splits_of(library, lengths, num_ids):
    """(row splits, status)"""
    lengths, status = np.asarray(lengths, np.int32), cuda.CStatus()
    splits = np.full(len(lengths) + 2, -7, np.int64)
    code = library.dlrm_embedding_row_splits_cuda(
        lengths.ctypes.data, len(lengths), num_ids, 3, splits.ctypes.data, status, None
    )
    assert code == 0 and splits[-1] == -7
    return splits[:-1], status


@pytest.mark.parametrize("num_samples", [0, 1, 3, 4, 1023, 1024, 1025, 5000])
def test_row_splits(library, num_samples):
    lengths = np.random.default_rng(num_samples).integers(0, 4, num_samples)
    splits, status = splits_of(library, lengths, lengths.sum())
    np.testing.assert_array_equal(splits, np.concatenate([[0], np.cumsum(lengths)]))
    assert not status.found_bad_id


@pytest.mark.parametrize(
    "lengths, num_ids, splits, complaint",
    [
        ([2, 1], 4, [0, 2, 3], (-1, 3)),
        ([2, 1, 2], 4, [0, 2, 3, 4], (-1, 5)),
        ([2, -5, 2], 4, [0, 2, 2, 4], (1, -5)),
        ([2**31 - 1, 2**31 - 1, 3], 2**32 + 1, [0, 2**31 - 1, 2**32 - 2, 2**32 + 1], None),
    ],
)
def test_wrong_lengths_are_named_and_never_lead_past_the_ids(library, lengths, num_ids, splits, complaint):
    found, status = splits_of(library, lengths, num_ids)
    assert found.tolist() == splits
    assert status.found_bad_id == (2 if complaint else 0)
    assert complaint is None or (status.bad_id.bags, status.bad_id.sample, status.bad_id.id) == (3, *complaint)


def test_the_check_is_of_the_steps_since_the_last_one(library):
    status, check = cuda.CStatus(found_bad_id=1, not_finite=1), np.ones(1, np.float32)
    for expected in (np.nan, 0):
        assert library.dlrm_embedding_check_cuda(ctypes.byref(status), check.ctypes.data, None) == 0
        np.testing.assert_array_equal(check, [expected])
    assert status.found_bad_id == 1
