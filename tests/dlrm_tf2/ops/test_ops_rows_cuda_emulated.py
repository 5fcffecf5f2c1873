"""The embedding rows' CUDA kernels, their own text run on the processor, against the numpy twin: bit for bit.

No speed and no real GPU in here: bench/gpu checks the compiled kernels where there is one.
"""

import ctypes
import shutil
import sys
import time
from types import SimpleNamespace

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import row_cuda_kernels as cuda
from support.row_kernels import (
    KINDS,
    BadId,
    Bags,
    CBags,
    Rows,
    Step,
    Workspace,
    c_arrays,
    lookup,
    numpy_lookup,
    numpy_update,
)

from dlrm_tf2 import ops

WIDTHS = (1, 3, 8, 16, 17, 64, 128, 129, 256)
VECTORS, TABLES = ("float32", "float16", "bfloat16"), ("float32", "bfloat16")
BAD_ARGUMENT, TOO_LARGE = 1, 4
pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="no g++")


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    return cuda.build(tmp_path_factory.mktemp("emulated_rows"))


def copied(slabs):
    return [Rows(cuda.aligned(s.weights), [cuda.aligned(slot) for slot in s.slots], s.shards) for s in slabs]


def check_lookup(library, slabs, bags, array):
    expected = numpy_lookup(slabs, bags)
    array.view(np.uint8)[...] = 0xFF
    cuda.call(library, "lookup", slabs, bags)
    for bag, vectors in zip(bags, expected, strict=True):
        np.testing.assert_array_equal(cuda.bits(bag.vectors), cuda.bits(vectors.astype(array.dtype)))
    rest = array[:, sum(bag.vectors.shape[1] for bag in bags) :]
    assert (rest.copy().view(np.uint8) == 0xFF).all()


def check_update(library, slabs, bags, step, num_steps=2):
    expected = copied(slabs)
    for number in range(step.step, step.step + num_steps):
        of_number = Step(step.kind, step=number)
        numpy_update(expected, bags, of_number)
        assert cuda.call(library, "update", slabs, bags, step=of_number)
    assert_same(slabs, expected)


def assert_same(slabs, expected):
    for found, wanted in zip(slabs, expected, strict=True):
        np.testing.assert_array_equal(cuda.bits(found.weights), cuda.bits(wanted.weights))
        for slot, wanted_slot in zip(found.slots, wanted.slots, strict=True):
            np.testing.assert_array_equal(cuda.bits(slot), cuda.bits(wanted_slot))


@pytest.mark.parametrize("table_dtype", TABLES)
@pytest.mark.parametrize("vectors_dtype", VECTORS)
@pytest.mark.parametrize("width", WIDTHS)
def test_lookup_equals_numpy(library, width, vectors_dtype, table_dtype):
    rng = np.random.default_rng(width)
    case = cuda.random_case(rng, [width], table_dtype=table_dtype, vectors_dtype=vectors_dtype, forms=cuda.FORMS)
    check_lookup(library, *case)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("width", WIDTHS)
def test_update_equals_numpy(library, width, kind):
    rng = np.random.default_rng(width)
    number = WIDTHS.index(width) + KINDS[kind]
    table_dtype, vectors_dtype = TABLES[number % 2], VECTORS[number % 3]
    slabs, bags, _ = cuda.random_case(rng, [width], table_dtype=table_dtype, vectors_dtype=vectors_dtype, kind=kind)
    check_update(library, slabs, bags, Step(kind, step=int(rng.integers(1, 5))))


def draw_case(seed, widths, **choices):
    rng = np.random.default_rng(seed)
    choices["misaligned"] = choices["misaligned"] * (4 if choices["table_dtype"] == "float32" else 2)
    return cuda.random_case(
        rng, widths, num_samples=int(rng.integers(0, 30)), num_rows=int(rng.integers(1, 60)), **choices
    )


CASES = {
    "seed": st.integers(0, 2**31),
    "widths": st.lists(st.sampled_from(WIDTHS), min_size=1, max_size=3),
    "table_dtype": st.sampled_from(TABLES),
    "vectors_dtype": st.sampled_from(VECTORS),
    "misaligned": st.sampled_from([0, 0, 1]),
}


@settings(deadline=None, max_examples=15)
@given(**CASES)
def test_lookups_of_several_slabs(library, seed, widths, **choices):
    check_lookup(library, *draw_case(seed, widths, **choices))


@settings(deadline=None, max_examples=15)
@given(kind=st.sampled_from(list(KINDS)), **CASES)
def test_updates_of_several_slabs(library, seed, widths, kind, **choices):
    slabs, bags, _ = draw_case(seed, widths, kind=kind, **choices)
    check_update(library, slabs, bags, Step(kind, step=1 + seed % 9))


@pytest.mark.long
@settings(deadline=None, max_examples=300)
@given(kind=st.sampled_from(list(KINDS)), **CASES)
def test_many_more_cases(library, seed, widths, kind, **choices):
    slabs, bags, array = draw_case(seed, widths, kind=kind, **choices)
    check_update(library, slabs, bags, Step(kind, step=1 + seed % 9))
    check_lookup(library, slabs, bags, array)


def one_row_case(rng, counts, width, *, kind, table_dtype="float32", vectors_dtype="float32"):
    """counts[i] occurrences of row i, mixed; the gradients' sizes differ, so that every order has its own sum."""
    ids = rng.permutation(np.repeat(np.arange(len(counts)), counts)).astype(np.int32)[:, None]
    size = rng.normal(size=(len(ids), width)) * 10.0 ** rng.integers(-3, 4, (len(ids), 1))
    slab = cuda.random_slab(rng, len(counts), width=width, table_dtype=table_dtype, kind=kind)
    vectors = cuda.aligned(size.astype(vectors_dtype if vectors_dtype != "bfloat16" else ml_dtypes.bfloat16))
    return [slab], [Bags(0, ids, vectors, num_ids=len(counts))]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("width", [8, 17])
def test_runs_around_the_length_of_a_chunk(library, width, kind):
    rng = np.random.default_rng(0)
    slabs, bags = one_row_case(rng, [255, 256, 257, 1, 0, 512, 513, 900], width, kind=kind)
    check_update(library, slabs, bags, Step(kind), num_steps=1)


@pytest.mark.parametrize("table_dtype, vectors_dtype", [("float32", "bfloat16"), ("bfloat16", "float16")])
def test_one_id_for_a_whole_batch(library, table_dtype, vectors_dtype):
    rng = np.random.default_rng(1)
    slabs, bags = one_row_case(
        rng, [5000], 128, kind="rowwise_adagrad", table_dtype=table_dtype, vectors_dtype=vectors_dtype
    )
    check_update(library, slabs, bags, Step("rowwise_adagrad"), num_steps=1)


def test_long_runs_of_weighted_bags(library):
    """Factors belong to occurrences, also where a run is cut into chunks."""
    rng = np.random.default_rng(2)
    slabs, bags = one_row_case(rng, [700, 40], 8, kind="adagrad")
    bags[0].weights = rng.normal(size=740).astype(np.float32)
    check_update(library, slabs, bags, Step("adagrad"), num_steps=1)


def test_more_bags_than_one_parcel_holds(library):
    rng = np.random.default_rng(3)
    slabs, bags, array = cuda.random_case(
        rng, [4, 8], table_dtype="float32", vectors_dtype="float32", kind="adagrad", forms=["one"] * 35, num_samples=3
    )
    assert len(bags) * ctypes.sizeof(CBags) > 2 * 4096
    check_update(library, slabs, bags, Step("adagrad"))
    check_lookup(library, slabs, bags, array)


@pytest.mark.parametrize("kind", KINDS)
def test_same_bits_in_every_order_of_threads_and_as_on_the_cpu(library, kind):
    if not (ops.LIBRARY_FOLDER / "libdlrm_kernels.so").is_file():
        pytest.skip("kernels not built")
    rng = np.random.default_rng(4)
    slabs, bags, array = cuda.random_case(
        rng, [16, 24], table_dtype="bfloat16", vectors_dtype="bfloat16", kind=kind, forms=["one", "fixed"],
        num_samples=600, num_rows=5,
    )  # fmt: skip
    expected = copied(slabs)
    with Workspace() as workspace:
        workspace.update(expected, bags, Step(kind, step=3))
    gradients = array.copy()
    lookup(expected, bags)
    pooled = array.copy()
    for seed in range(3):
        library.emulate_gpu(cuda.SHARED_BYTES, seed)
        array[...] = gradients
        found = copied(slabs)
        assert cuda.call(library, "update", found, bags, step=Step(kind, step=3))
        assert_same(found, expected)
        cuda.call(library, "lookup", found, bags)
        np.testing.assert_array_equal(cuda.bits(array), cuda.bits(pooled))


def test_copied_rows_and_sums_keep_the_sign_of_zero(library):
    slab = Rows(cuda.aligned(np.full((2, 8), -0.0, np.float32)))
    vectors = cuda.aligned(np.ones((3, 8), np.float32))
    bags = Bags(0, np.array([0, 0, 1], np.int32), vectors, num_ids=2, row_splits=np.array([0, 1, 3, 3]))
    cuda.call(library, "lookup", [slab], [bags])
    np.testing.assert_array_equal(np.signbit(vectors), np.array([[True], [True], [False]]) & np.ones((3, 8), bool))
    assert (vectors == 0).all()


@pytest.mark.parametrize("bad", [-1, 7, 2**31 - 1, -(2**31)])
@pytest.mark.parametrize("form", ["one", "fixed", "ragged"])
def test_a_bad_id_is_named_and_counts_as_a_row_of_zeros(library, form, bad):
    rng = np.random.default_rng(5)
    slab = cuda.random_slab(rng, 7, width=8, table_dtype="float32", kind="sgd")
    ids = rng.integers(0, 7, (6, 1 if form == "one" else 2))
    splits = np.arange(7) * 2 if form == "ragged" else None
    kinds = dict(num_ids=7, row_splits=splits)
    shape = (-1,) if form == "ragged" else ids.shape
    vectors = cuda.aligned(np.ones((6, 8), np.float32))
    good = Bags(0, ids.reshape(shape), vectors.copy(), **kinds)
    ids = ids.copy()
    ids[4, -1] = bad
    case = [slab], [good, Bags(0, ids.reshape(shape), vectors, **kinds)]
    with pytest.raises(BadId) as error:
        cuda.call(library, "lookup", *case)
    assert error.value.args == (1, 4, bad)
    expected = numpy_lookup([slab], [good])[0]
    expected[4] = slab.weights[ids[4, 0]] if form != "one" else 0
    np.testing.assert_array_equal(vectors, expected)

    before = slab.weights.copy()
    vectors[...] = good.vectors[...] = 1
    with pytest.raises(BadId) as error:
        cuda.call(library, "update", *case, step=Step("sgd", learning_rate=1))
    assert error.value.args == (1, 4, bad)
    occurrences = np.bincount(np.concatenate([good.ids.ravel(), ids[ids != bad]]), minlength=7)
    np.testing.assert_allclose(slab.weights, before - occurrences[:, None], rtol=1e-6, atol=1e-6)


def test_the_status_stays_until_it_is_cleared(library):
    slab = Rows(cuda.aligned(np.ones((2, 4), np.float32)))
    vectors, ids = cuda.aligned(np.ones((1, 4), np.float32)), np.zeros((1, 1), np.int64)
    bags, status = [Bags(0, ids, vectors, num_ids=2)], cuda.CStatus()
    assert cuda.call(library, "update", [slab], bags, step=Step("sgd"), status=status)
    vectors[0, 2] = np.inf
    assert not cuda.call(library, "update", [slab], bags, step=Step("sgd"), status=status)
    vectors[0, 2] = 0
    ids[...] = 1
    assert not cuda.call(library, "update", [slab], bags, step=Step("sgd"), status=status)
    assert cuda.call(library, "update", [slab], bags, step=Step("sgd"))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("table_dtype", TABLES)
@pytest.mark.parametrize("wrong", [np.inf, -np.inf, np.nan])
def test_numbers_that_are_not_finite_are_found(library, wrong, table_dtype, kind):
    rng = np.random.default_rng(6)
    slabs, bags, array = cuda.random_case(
        rng, [8, 3], table_dtype=table_dtype, vectors_dtype="float32", kind=kind, forms=["one"]
    )
    bags[1].ids[...] = bags[1].shard[1] - 1
    assert cuda.call(library, "update", slabs, bags, step=Step(kind))
    bags[1].vectors[-1, 2] = wrong
    assert not cuda.call(library, "update", slabs, bags, step=Step(kind))


@pytest.mark.parametrize("name", ["lookup", "update"])
def test_bad_arguments_are_refused(library, name):
    rng = np.random.default_rng(7)
    slabs, bags, _ = cuda.random_case(rng, [4], table_dtype="bfloat16", vectors_dtype="float32", forms=["ragged"])
    c_slabs, c_bags, kept = c_arrays(slabs, bags)
    needed, memory, status = ctypes.c_int64(), cuda.Memory(1 << 20), cuda.CStatus()
    arrays = c_slabs, 1, c_bags, 1
    step = [cuda.COptimizer(0, 0.1, 0, 0, 0, 1)] if name == "update" else []
    count = getattr(library, f"dlrm_embedding_{name}_cuda_bytes")
    run = getattr(library, f"dlrm_embedding_{name}_cuda")
    assert count(*arrays, ctypes.byref(needed)) == 0
    for vectors_type, address, num_bytes in (
        (3, memory.address, needed.value),
        (0, memory.address + 16, needed.value),
        (0, memory.address, needed.value - 1),
    ):
        assert run(*arrays, *step, vectors_type, address, num_bytes, status, None) == BAD_ARGUMENT
    c_bags[0].all_ids = -1
    assert count(*arrays, ctypes.byref(needed)) == BAD_ARGUMENT
    c_bags[0].all_ids, c_slabs[0].num_shards = 2**31, 0
    assert name == "lookup" or count(*arrays, ctypes.byref(needed)) == TOO_LARGE
    c_bags[0].all_ids = 5
    if name == "update":
        assert run(*arrays, *step, 0, memory.address, 1 << 20, status, None) == BAD_ARGUMENT
        step[0].kind = 4
        assert run(*arrays, *step, 0, memory.address, 1 << 20, status, None) == BAD_ARGUMENT
    memory.check()
    del kept


def test_rows_that_are_too_wide_for_shared_memory_are_refused(library):
    rng = np.random.default_rng(8)
    library.emulate_gpu(48 * 1024, 1)
    try:
        for width, fits in ((1500, True), (2000, False)):
            case = cuda.random_case(
                rng, [width], table_dtype="float32", vectors_dtype="float32", kind="rowwise_adagrad", forms=["one"]
            )
            if fits:
                check_update(library, *case[:2], Step("rowwise_adagrad"), num_steps=1)
                continue
            with pytest.raises(cuda.Refused, match=str(TOO_LARGE)):
                cuda.call(library, "update", *case[:2], step=Step("rowwise_adagrad"))
    finally:
        library.emulate_gpu(cuda.SHARED_BYTES, 1)


class HostDevice:
    """The GPU check's device, in this process's memory."""

    def upload(self, values):
        return cuda.aligned(np.ascontiguousarray(values).view(np.uint8).reshape(-1))

    def poisoned(self, num_bytes):
        return cuda.aligned(np.full(num_bytes, 0xFF, np.uint8))

    def address(self, memory):
        return memory.ctypes.data

    def download(self, memory):
        return memory.copy()

    def wait(self):
        pass

    def random(self, num_bytes, dtype):
        return self.upload(np.random.default_rng(0).integers(0, 100, num_bytes, np.uint8))

    def copy(self, target, source):
        target[...] = source

    def event(self):
        return time.perf_counter()

    def elapsed_ms(self, start, end):
        return 1e3 * (end - start)


def test_the_gpu_check_passes_right_kernels_and_finds_wrong_ones(library, monkeypatch):
    monkeypatch.syspath_prepend(str(cuda.SOURCE.parents[2] / "bench" / "gpu"))
    for name in ("device", "driver", "times", "rows", "rows_numpy", "rows_check"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    import rows_check
    import rows_numpy

    kernels = SimpleNamespace(library=ctypes.CDLL(library._name))
    chosen = [(8, "float32", "float32", "adam", 0), (17, "float16", "float32", "adagrad", 400)]
    found = rows_check.check_grid(HostDevice(), kernels, [*rows_check.small_grid(), *chosen])
    assert found == {"checked": 3 * 14, "wrong": []}

    monkeypatch.setattr(rows_check, "PIECES", 2)
    monkeypatch.setattr(rows_check, "WIDTH", 8)
    monkeypatch.setattr(rows_check, "TABLE_ROWS", 40)
    timed = rows_check.measure(HostDevice(), kernels, batch=5)
    assert len(timed) == 2**4 and {row["kernel"]: row["goal"] for row in timed} == {"lookup": 0.75, "update": 0.6}
    assert all(row["of_copy"] > 0 for row in timed)

    monkeypatch.setattr(rows_numpy, "GAMMA", rows_numpy.GAMMA + np.uint64(2))
    found = rows_check.check_grid(HostDevice(), kernels, [(8, "bfloat16", "bfloat16", "adagrad", 10)])
    assert len(found["wrong"]) == 1 and "weights" in found["wrong"][0] and "expected 0x" in found["wrong"][0]
