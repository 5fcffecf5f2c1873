"""The kernel of the gradients of ids' weights, on each instruction set: the bits of numpy, for any threads."""

import ctypes

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.row_kernels import POINTER, BadId, Bags, CBadId, Rows, c_arrays, factors_of, library, type_of
from test_ops_rows import INSTRUCTION_SETS, TYPES, bits, one_table, random_case

from dlrm_tf2 import ops
from dlrm_tf2.runtime import instruction_sets

pytestmark = pytest.mark.skipif(not ops.available(), reason=f"the op library is not built: {ops.why_unavailable()}")


def weight_gradients(slabs, bags, *, samples=None, instruction_set=-1):
    """For each bag, float32 [ids]: the gradients of its weights, by a call for each range of samples; None without."""
    c_slabs, c_bags, kept = c_arrays(slabs, bags)
    found = [None if bag.weights is None else np.zeros_like(bag.weights) for bag in bags]
    pointers = (POINTER * len(bags))(*(None if one is None else one.ctypes.data for one in found))
    bad, ranges = CBadId(), samples or [(0, len(bags[0].vectors))]
    for first, last in ranges:
        code = library().dlrm_embedding_weight_gradient_cpu(
            c_slabs, ctypes.c_int64(len(slabs)), c_bags, ctypes.c_int64(len(bags)), ctypes.c_int64(first),
            ctypes.c_int64(last), type_of(bags), instruction_set, pointers, ctypes.byref(bad),
        )  # fmt: skip
        if code == 5:
            raise BadId(bad.bags, bad.sample, bad.id)
        assert code == 0, code
    del kept
    return found


def numpy_dot(row, vector):
    """16 sums of every 16th column, then these by halves; float32."""
    sums = np.zeros(16, np.float32)
    for column, product in enumerate(row.astype(np.float32) * vector.astype(np.float32)):
        sums[column % 16] += product
    for half in (8, 4, 2, 1):
        sums[:half] += sums[half : 2 * half]
    return sums[0]


def numpy_weight_gradients(slabs, bags):
    results = []
    for bag in bags:
        of_bags = [np.zeros(0, np.float32)]
        for sample, (ids, weights) in enumerate(bag.of_samples() if bag.weights is not None else []):
            table, (first, last) = slabs[bag.slab].weights, bag.ids_of_shard
            here = [first <= one < last for one in ids]
            dots = [
                numpy_dot(table[bag.first_row + one], bag.vectors[sample]) if inside else np.float32(0)
                for one, inside in zip(ids, here, strict=True)
            ]
            if bag.mean:
                factors, total, of_vector = factors_of(bag, weights, len(ids)), np.float32(0), np.float32(0)
                for weight in weights:
                    total += weight
                for factor, one, inside in zip(factors, dots, here, strict=True):
                    of_vector += factor * one if inside else np.float32(0)
                dots = [np.float32(0) if total == 0 else (one - of_vector) / total for one in dots]
            of_bags.append(np.array(dots, np.float32))
        results.append(None if bag.weights is None else np.concatenate(of_bags))
    return results


def check(slabs, bags, instruction_set):
    """The bits of numpy, in one call and in two."""
    found, count = weight_gradients(slabs, bags, instruction_set=instruction_set), len(bags[0].vectors)
    parts = [(count // 3, count), (0, count // 3)]
    in_parts = weight_gradients(slabs, bags, samples=parts, instruction_set=instruction_set)
    for one, other, wanted in zip(found, in_parts, numpy_weight_gradients(slabs, bags), strict=True):
        if wanted is not None:
            np.testing.assert_array_equal(bits(one), bits(wanted))
            np.testing.assert_array_equal(bits(other), bits(wanted))


@pytest.mark.parametrize("instruction_set", INSTRUCTION_SETS, ids=instruction_sets.NAMES.__getitem__)
@pytest.mark.parametrize("weights_type", ["float32", "bfloat16"])
@settings(deadline=None, max_examples=8)
@given(seed=st.integers(0, 2**32), vectors_type=st.sampled_from(TYPES))
def test_gradients_of_weights_have_the_bits_of_numpy(instruction_set, weights_type, seed, vectors_type):
    check(*random_case(np.random.default_rng(seed), weights_type, vectors_type, "sgd"), instruction_set)


@pytest.mark.parametrize(
    "mean, wanted",
    [(False, [21, 43, 10]), (True, [-22 / 9, 44 / 9, 0])],  # dots 21 and 43, of the mean 85 / 3; the total weight is 3
    ids=["sum", "mean"],
)
def test_gradients_by_hand(mean, wanted):
    """Samples of two ids, of none and of one."""
    slabs = [Rows(np.array([[1, 2], [3, 4], [5, 6]], np.float32))]
    gradients = np.array([[1, 10], [7, 7], [2, 0]], np.float32)
    bags = [
        Bags(0, np.array([0, 1, 2], np.int32), gradients, 3, row_splits=np.array([0, 2, 2, 3]),
             weights=np.array([2, 1, 4], np.float32), mean=mean)
    ]  # fmt: skip
    (found,) = weight_gradients(slabs, bags)
    np.testing.assert_allclose(found, wanted, rtol=1e-6)


def test_weights_that_add_up_to_zero_have_no_gradient_in_a_mean():
    slabs, bags = one_table(9, 5, np.array([[2, 7]], np.int32))
    bags[0].weights, bags[0].mean = np.array([0.5, -0.5], np.float32), True
    np.testing.assert_array_equal(weight_gradients(slabs, bags)[0], 0)


def test_an_id_out_of_range_is_named():
    slabs, bags = one_table(9, 5, np.array([[2], [9]], np.int64))
    bags[0].weights = np.ones(2, np.float32)
    with pytest.raises(BadId) as error:
        weight_gradients(slabs, bags)
    assert error.value.args == (0, 1, 9)
