"""TensorFlow's GPU ops of embedding rows: registered in the library, and their own text with emulated CUDA kernels."""

import shutil

import numpy as np
import pytest
import tensorflow as tf
from support import row_gpu_op
from tensorflow.python.framework import kernels as registered

from dlrm_tf2 import ops
from dlrm_tf2.embedding import DistributedEmbedding, TableConfig, make_plan
from dlrm_tf2.ops import embedding_rows
from dlrm_tf2.ops.embedding_rows import Bags, IdTensors, SlabVariables
from dlrm_tf2.optim import Optimizer
from dlrm_tf2.runtime.comm import SingleProcess

pytestmark = pytest.mark.skipif(not ops.available(), reason=f"no native ops: {ops.why_unavailable()}")
TABLES = [
    TableConfig("a", 50, 8, combiner="mean", features=("one", "any")),
    TableConfig("b", 9, 8, combiner="sum"),
    TableConfig("c", 30, 3),
]
BAG = Bags(0, first_row=0, num_ids=5, first_id=0, last_id=5, ids=0, hotness=1, column=0, lengths=0, weights=-1, mean=0,
           vectors=0, vectors_column=0, feature="f")  # fmt: skip


@pytest.mark.parametrize("op", row_gpu_op.OPS)
def test_a_library_with_cuda_has_the_ops_for_gpus(op):
    if not hasattr(ops.kernels(), "dlrm_embedding_check_cuda"):
        pytest.skip("the op library was built without nvcc")
    found = [
        (kernel.device_type, kernel.constraint[0].allowed_values.list.type[0], sorted(kernel.host_memory_arg))
        for kernel in registered.get_registered_kernels_for_op(op).kernel
        if not kernel.label
    ]
    on_host = {
        "DlrmEmbeddingLookup": ["slabs"],
        "DlrmEmbeddingUpdate": ["learning_rate", "slabs", "slots", "step"],
        "DlrmEmbeddingSum": [],
    }
    types = (tf.float32, tf.float16, tf.bfloat16)
    expected = [("GPU", dtype.as_datatype_enum, on_host[op]) for dtype in types]
    assert sorted(one for one in found if one[0] == "GPU") == sorted(expected)


@pytest.fixture(scope="module")
def emulated(tmp_path_factory):
    if shutil.which("g++") is None:
        pytest.skip("no g++")
    row_gpu_op.load(tmp_path_factory.mktemp("emulated_ops"))
    return row_gpu_op.emulated


def train(compiled, dtype, wire_dtype, optimizer):
    """(losses of 3 steps, rows of all tables and slots)"""
    layer = DistributedEmbedding(
        TABLES, make_plan(TABLES, 1), comm=SingleProcess(), seed=3, optimizer=Optimizer(optimizer), dtype=dtype,
        hotness={"any": None, "b": 2}, weighted=["any"], wire_dtype=wire_dtype, embedding_op="native",
    )  # fmt: skip

    def step(ids, number):
        lookup = layer.lookup(ids)
        with tf.GradientTape() as tape:
            tape.watch(lookup.vectors)
            loss = tf.reduce_mean(tf.cast(layer.exchange(lookup), tf.float32) ** 3)
        check = layer.apply_gradient(
            lookup, tape.gradient(loss, lookup.vectors), learning_rate=tf.constant(0.1), step=number
        )
        return loss + check

    step, losses, rng = compiled(step), [], np.random.default_rng(4)
    for number in range(1, 4):
        lengths = rng.integers(0, 4, 40)
        ids = {
            "one": rng.integers(0, 50, 40), "any": (rng.integers(0, 50, lengths.sum()), lengths),
            "b": rng.integers(0, 9, (40, 2)), "c": rng.integers(0, 30, 40),
        }  # fmt: skip
        ids = layer.ids(ids, global_weights={"any": rng.normal(size=lengths.sum())})
        losses.append(float(step(ids, tf.constant(number, tf.int64))))
    tables = {
        (slot, shard): layer.read_rows(shard, slot, start=shard.rows[0], stop=shard.rows[1])
        for shard in layer.plan.shards
        for slot in layer.slots
    }
    return losses, tables


@pytest.mark.long
@pytest.mark.parametrize(
    "dtype, wire_dtype, optimizer",
    [("float32", "float32", "adagrad"), ("bfloat16", "bfloat16", "adam"), ("float32", "float16", "rowwise_adagrad")],
)
def test_training_has_the_bits_of_the_cpu(emulated, dtype, wire_dtype, optimizer):
    losses, tables = train(emulated, dtype, wire_dtype, optimizer)
    expected, expected_tables = train(tf.function, dtype, wire_dtype, optimizer)
    assert losses == expected and not np.isnan(losses).any()
    for key, rows in tables.items():
        np.testing.assert_array_equal(rows, expected_tables[key], err_msg=str(key))


@pytest.mark.long
@pytest.mark.parametrize("dtype", [tf.float32, tf.float16, tf.bfloat16])
def test_sums_are_those_of_the_cpu(emulated, dtype):
    rng = np.random.default_rng(5)
    ids, lengths = tf.constant(rng.integers(0, 5, (700, 1))), tf.constant(rng.integers(0, 3, 700), tf.int32)
    any_ids = tf.constant(rng.integers(0, 5, int(tf.reduce_sum(lengths))), tf.int32)
    gradient = tf.cast(rng.normal(size=(700, 16)), dtype)
    bags = [BAG, BAG._replace(ids=1, hotness=-1, vectors_column=8, mean=1)]

    def sums():
        return embedding_rows.sum_by_row(
            bags, gradient, tensors=IdTensors([ids, any_ids], [lengths]), num_rows=5, width=8
        )

    (rows, found), (expected_rows, expected) = emulated(sums)(), sums()
    assert sorted(rows.numpy()) == [0, 1, 2, 3, 4]
    order, expected_order = np.argsort(rows), np.argsort(expected_rows)
    np.testing.assert_array_equal(found.numpy()[order], expected.numpy()[expected_order])


@pytest.mark.long
def test_a_wrong_id_is_named_by_a_later_step_once(emulated):
    weights = tf.Variable(tf.ones([5, 4]))
    slabs = [SlabVariables(weights, [], [])]

    def update(ids):
        return embedding_rows.update(
            slabs, [BAG], tensors=IdTensors([ids]), gradients=[tf.ones([3, 4])], optimizer=Optimizer("sgd"),
            rate_and_step=(tf.constant(0.5), tf.constant(1, tf.int64)),
        )  # fmt: skip

    def lookup(ids):
        return embedding_rows.lookup(slabs, [BAG], tensors=IdTensors([ids]), width=4, dtype=tf.float32)

    right, wrong = tf.constant([[0], [4], [4]]), tf.constant([[0], [7], [4]])
    before = weights.read_value()
    for function, expected in ((emulated(lookup), [[1] * 4, [0] * 4, [1] * 4]), (emulated(update), 0)):
        np.testing.assert_array_equal(function(wrong), expected)
        with pytest.raises(tf.errors.InvalidArgumentError) as error:
            function(right)
        assert "feature 'f': its id 7 in sample 1 of an earlier step is not a row of its table" in str(error.value)
        function(right)
    np.testing.assert_array_equal(weights[:, 0], [0, 1, 1, 1, -0.5])  # of the step with the wrong id, and of the last
    np.testing.assert_array_equal(before, np.ones([5, 4]))  # who read the variable keeps what was read
    with pytest.raises(tf.errors.InvalidArgumentError, match="its id 7 in sample 1 is not a row"):
        emulated(lambda: embedding_rows.sum_by_row([BAG], tf.ones([3, 4]), tensors=IdTensors([wrong]), num_rows=5,
                                                   width=4))()  # fmt: skip


@pytest.mark.long
def test_wrong_lengths_are_named_by_a_later_step(emulated):
    slabs, bag = [SlabVariables(tf.Variable(tf.ones([5, 4])), [], [])], BAG._replace(ids=1, hotness=-1)
    ids = [tf.zeros([2, 0], tf.int32), tf.constant([1, 2, 3])]

    def lookup(lengths):
        return embedding_rows.lookup(slabs, [bag], tensors=IdTensors(ids, [lengths]), width=4, dtype=tf.float32)

    function = emulated(lookup)
    for lengths, message in (([1, 1], "its row lengths add up to 2 of an earlier"), ([-1, 4], "length of row 0")):
        function(tf.constant(lengths))
        with pytest.raises(tf.errors.InvalidArgumentError, match=message):
            function(tf.constant([1, 2]))
    np.testing.assert_array_equal(function(tf.constant([1, 2]))[:, 0], [1, 2])


@pytest.mark.long
def test_numbers_that_are_not_finite_are_of_this_step_only(emulated):
    slabs = [SlabVariables(tf.Variable(tf.ones([5, 4])), [], [])]

    def update(gradient):
        return embedding_rows.update(
            slabs, [BAG], tensors=IdTensors([tf.constant([[3]])]), gradients=[gradient], optimizer=Optimizer("sgd"),
            rate_and_step=(tf.constant(0.5), tf.constant(1, tf.int64)),
        )  # fmt: skip

    function = emulated(update)
    assert function(tf.ones([1, 4])) == 0
    assert np.isnan(function(tf.constant([[0, np.inf, 0, 0]], tf.float32)))
    slabs[0].weights.assign(tf.ones([5, 4]))
    assert function(tf.ones([1, 4])) == 0
