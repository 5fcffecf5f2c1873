"""The kernels of embedding rows on each instruction set of this processor: the bits of numpy, for any threads."""

import copy

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import row_kernels
from support.row_kernels import KINDS, BadId, Bags, Rows, Shard, Step, Workspace, dtype_of

from dlrm_tf2 import ops
from dlrm_tf2.runtime import instruction_sets

pytestmark = pytest.mark.skipif(not ops.available(), reason=f"the op library is not built: {ops.why_unavailable()}")
FOUND = instruction_sets.of_processor()
INSTRUCTION_SETS = [number for number, name in enumerate(instruction_sets.NAMES) if name in FOUND]
TYPES = ["float32", "float16", "bfloat16"]
WIDTHS = [1, 3, 8, 16, 17, 32, 64, 128, 129, 256]


def bits(array):
    return array.view(f"u{array.itemsize}")


def random_case(rng, weights_type, vectors_type, kind, widths=WIDTHS):
    """Slabs of several tables, each looked up by several bags of every form."""
    slabs, bags, num_samples = [], [], int(rng.integers(0, 120))
    for number in range(rng.integers(1, 4)):
        width, first_row, shards = int(rng.choice(widths)), 0, []
        for _ in range(rng.integers(1, 4)):
            num_rows = int(rng.integers(1, 60))
            shards.append(Shard(first_row, *(int(rng.integers(0, n)) for n in (1000, 50, 2**63))))
            for _ in range(rng.integers(1, 3)):
                bags.append(random_bags(rng, number, num_samples, first_row, num_rows, width, vectors_type))
            first_row += num_rows
        weights = rng.normal(size=(first_row, width)).astype(dtype_of(weights_type))
        num_slots = {"sgd": 0, "adagrad": 1, "rowwise_adagrad": 1, "adam": 2}[kind]
        slot_width = 1 if kind == "rowwise_adagrad" else width
        slots = [rng.random((first_row, slot_width)).astype(np.float32) for _ in range(num_slots)]
        slabs.append(Rows(weights, slots, shards))
    return slabs, bags


def random_bags(rng, slab, num_samples, first_row, num_rows, width, vectors_type):
    before, after = (int(n) for n in rng.integers(0, 3, 2))  # ids of other shards
    num_ids, row_splits = before + num_rows + after, None
    dtype = rng.choice([np.int32, np.int64])
    if rng.random() < 0.5:
        hotness = int(rng.integers(1, 4))
        ids = rng.integers(0, num_ids, (num_samples, hotness + 3)).astype(dtype)[:, 1 : 1 + hotness]
        count = num_samples * hotness
    else:
        row_splits = np.concatenate([[0], np.cumsum(rng.integers(0, 5, num_samples))]).astype(np.int64)
        count = int(row_splits[-1])
        ids = rng.integers(0, num_ids, count).astype(dtype)
    return Bags(
        slab, ids, rng.normal(size=(num_samples, width + 5)).astype(dtype_of(vectors_type))[:, 2 : 2 + width], num_ids,
        first_row=first_row - before, shard=(before, before + num_rows), row_splits=row_splits,
        weights=rng.random(count).astype(np.float32) if rng.random() < 0.4 else None, mean=bool(rng.integers(2)),
    )  # fmt: skip


def check_lookup(slabs, bags, vectors_type, instruction_set):
    wanted = [vectors.astype(dtype_of(vectors_type)) for vectors in row_kernels.numpy_lookup(slabs, bags)]
    row_kernels.lookup(slabs, bags, instruction_set=instruction_set)
    for one, vectors in zip(bags, wanted, strict=True):
        np.testing.assert_array_equal(bits(one.vectors), bits(vectors))


def check_update(slabs, bags, step, instruction_set, num_threads):
    wanted = copy.deepcopy(slabs)
    row_kernels.numpy_update(wanted, bags, step)
    with Workspace() as workspace:
        finite = workspace.update(slabs, bags, step, instruction_set=instruction_set, num_threads=num_threads)
    assert finite
    for slab, of_numpy in zip(slabs, wanted, strict=True):
        for array, numpy_array in zip([slab.weights, *slab.slots], [of_numpy.weights, *of_numpy.slots], strict=True):
            np.testing.assert_array_equal(bits(array), bits(numpy_array))


@pytest.mark.parametrize("instruction_set", INSTRUCTION_SETS, ids=instruction_sets.NAMES.__getitem__)
@pytest.mark.parametrize("weights_type", ["float32", "bfloat16"])
@settings(deadline=None, max_examples=12)
@given(seed=st.integers(0, 2**32), vectors_type=st.sampled_from(TYPES), kind=st.sampled_from(list(KINDS)))
def test_lookup_and_update_have_the_bits_of_numpy(instruction_set, weights_type, seed, vectors_type, kind):
    rng = np.random.default_rng(seed)
    slabs, bags = random_case(rng, weights_type, vectors_type, kind)
    gradients = [one.vectors.copy() for one in bags]
    check_lookup(slabs, bags, vectors_type, instruction_set)
    for one, gradient in zip(bags, gradients, strict=True):
        one.vectors[:] = gradient
    check_update(slabs, bags, Step(kind, step=int(rng.integers(1, 9))), instruction_set, int(rng.integers(1, 4)))


def one_table(num_rows, width, ids, kind="adagrad", vectors_type="float32", seed=0):
    """A table, and the bags of one feature."""
    rng = np.random.default_rng(seed)
    slots = [rng.random((num_rows, width)).astype(np.float32)] if kind != "sgd" else []
    vectors = rng.normal(size=(len(ids), width)).astype(dtype_of(vectors_type))
    weights = rng.normal(size=(num_rows, width)).astype(np.float32)
    return [Rows(weights, slots)], [Bags(0, ids, vectors, num_rows)]


@pytest.mark.parametrize("num_rows", [5, 100_000], ids=["small table", "large table"])
@pytest.mark.parametrize("width", [3, 16, 128])
@pytest.mark.parametrize("num_threads", [1, 3])
def test_one_id_for_a_whole_batch(num_rows, width, num_threads):
    """Long runs of one row: their chunks of 256 are summed apart, and by several threads."""
    ids = np.full((9001, 1), 3, np.int32)
    ids[::1000] = 1
    slabs, bags = one_table(num_rows, width, ids)
    check_update(slabs, bags, Step("adagrad"), -1, num_threads)


def test_sums_of_a_hot_row_by_hand():
    """512 gradients of 1 and one of 2**-12, which a float32 sum of all in a row keeps only in chunks."""
    slabs, bags = one_table(70_000, 1, np.full((513, 1), 60_000, np.int64), kind="sgd")
    slabs[0].weights[60_000] = 0
    bags[0].vectors[:] = 1
    bags[0].vectors[512] = 2**-12
    with Workspace() as workspace:
        workspace.update(slabs, bags, Step("sgd", learning_rate=1))
    assert slabs[0].weights[60_000, 0] == -(512 + 2**-12)


@pytest.mark.parametrize("width", [8, 16, 40])
def test_many_occurrences_have_the_same_bits_for_any_number_of_threads(width):
    """Large enough that a table is divided between threads."""
    rng = np.random.default_rng(1)
    ids = (rng.random((70_000, 5)) ** 3 * 90_000).astype(np.int32)
    results = []
    for num_threads in (1, 2, 5):
        slabs, bags = one_table(90_000, width, ids)
        with Workspace() as workspace:
            workspace.update(slabs, bags, Step("adagrad"), num_threads=num_threads)
        results.append(slabs[0].weights)
    np.testing.assert_array_equal(bits(results[0]), bits(results[1]))
    np.testing.assert_array_equal(bits(results[0]), bits(results[2]))


def test_samples_may_be_looked_up_in_any_parts():
    slabs, bags = random_case(np.random.default_rng(5), "float32", "float32", "sgd")
    row_kernels.lookup(slabs, bags)
    whole, count = [one.vectors.copy() for one in bags], len(bags[0].vectors)
    for one in bags:
        one.vectors[:] = np.nan
    for first, last in ((0, 1), (1, count // 2), (count // 2, count)):
        row_kernels.lookup(slabs, bags, samples=(first, last))
    for one, vectors in zip(bags, whole, strict=True):
        np.testing.assert_array_equal(one.vectors, vectors)


@pytest.mark.parametrize("instruction_set", INSTRUCTION_SETS)
@pytest.mark.parametrize("vectors_type", TYPES)
def test_vectors_of_a_large_batch_go_past_the_caches(vectors_type, instruction_set):
    """Pieces of whole cache lines are streamed, the others are not; all have the bits of the rows."""
    rng, dtype = np.random.default_rng(0), dtype_of(vectors_type)
    widths, num_samples, columns = [32, 48, 128], (1 << 17) // dtype.itemsize, 320
    memory = np.empty(num_samples * columns * dtype.itemsize + 64, np.uint8)  # 42 MB, in rows of whole cache lines
    matrix = memory[-memory.ctypes.data % 64 :][: num_samples * columns * dtype.itemsize].view(dtype)
    matrix = matrix.reshape(num_samples, columns)
    matrix[:] = 7
    slabs, bags, column, ids = [], [], 64, rng.integers(0, 50, (num_samples, 3)).astype(np.int32)
    for number, width in enumerate(widths):
        slabs.append(Rows(rng.normal(size=(50, width)).astype(np.float32)))
        bags.append(Bags(number, ids[:, number : number + 1], matrix[:, column : column + width], 50))
        column += width
    row_kernels.lookup(slabs, bags, instruction_set=instruction_set)
    expected = [slab.weights.astype(dtype)[ids[:, number]] for number, slab in enumerate(slabs)]
    np.testing.assert_array_equal(bits(matrix[:, 64:column]), bits(np.concatenate(expected, axis=1)))
    assert np.all(matrix[:, :64] == 7) and np.all(matrix[:, column:] == 7)


@pytest.mark.parametrize("wrong", [-1, 40, 2**31])
@pytest.mark.parametrize("ragged", [False, True])
def test_an_id_out_of_range_is_named(wrong, ragged):
    ids = np.arange(30, dtype=np.int64)[:, None]
    ids[17] = wrong
    slabs, bags = one_table(40, 4, ids)
    if ragged:
        bags[0].ids, bags[0].row_splits = np.ascontiguousarray(ids[:, 0]), np.arange(31, dtype=np.int64)
    before = slabs[0].weights.copy()
    for call in (lambda: row_kernels.lookup(slabs, bags), lambda: update_once(slabs, bags)):
        with pytest.raises(BadId) as error:
            call()
        assert error.value.args == (0, 17, wrong)
    np.testing.assert_array_equal(slabs[0].weights, before)  # nothing was updated


def update_once(slabs, bags):
    with Workspace() as workspace:
        return workspace.update(slabs, bags, Step("adagrad"))


@pytest.mark.parametrize("value", [np.inf, np.nan, 3e38])
@pytest.mark.parametrize("num_rows", [4, 5000])
def test_a_number_that_is_not_finite_is_reported(value, num_rows):
    slabs, bags = one_table(num_rows, 17, np.arange(4, dtype=np.int32)[:, None])
    assert update_once(slabs, bags)
    bags[0].vectors[2, 16] = value  # its square is infinite
    assert not update_once(slabs, bags)


def test_a_vector_of_one_row_keeps_its_bits():
    """NaN with a payload, denormals, -0."""
    slabs, bags = one_table(3, 5, np.array([[0], [1], [2]], np.int32))
    slabs[0].weights.view(np.uint32)[:] = np.array([[0x7FC12345], [0x80000000], [0x00000001]], np.uint32)
    row_kernels.lookup(slabs, bags)
    np.testing.assert_array_equal(bags[0].vectors.view(np.uint32), slabs[0].weights.view(np.uint32))
