"""TensorFlow's GPU ops of the hash table: registered in the library, and their own text with emulated CUDA kernels."""

import shutil
from functools import partial

import numpy as np
import pytest
import tensorflow as tf
from support import index_gpu_op
from support.dynamic_case import RankOfSetup, Setup
from tensorflow.python.framework import kernels as registered

from dlrm_tf2 import ops
from dlrm_tf2.embedding import DynamicTableConfig
from dlrm_tf2.ops import hash_table
from dlrm_tf2.ops.embedding_rows import SlabVariables
from dlrm_tf2.ops.hash_table import IndexRules, KeyIndex
from dlrm_tf2.runtime.comm import SingleProcess
from dlrm_tf2.sharding.buckets import Buckets
from dlrm_tf2.sharding.dynamic_tables import AfterCount, AfterSteps, Initializer

pytestmark = pytest.mark.skipif(not ops.available(), reason=f"no native ops: {ops.why_unavailable()}")
BUCKETS = Buckets(4, 30)
RULES = [
    IndexRules("lfu", admit_after=2, counter=("exact", 90), log_erased=True),
    IndexRules("custom", admit_after=2, counter=("sketch", 900)),
    IndexRules("timestamp", log_erased=True),
]


@pytest.mark.parametrize("op", index_gpu_op.ON_HOST)
def test_a_library_with_cuda_has_the_ops_for_gpus(op):
    if not hasattr(ops.kernels(), "dlrm_initialize_rows_cuda"):
        pytest.skip("the op library was built without nvcc")
    found = [
        sorted(kernel.host_memory_arg)
        for kernel in registered.get_registered_kernels_for_op(op).kernel
        if kernel.device_type == "GPU"
    ]
    assert found == [index_gpu_op.ON_HOST[op]]


@pytest.fixture(scope="module")
def emulated(tmp_path_factory):
    if shutil.which("g++") is None:
        pytest.skip("no g++")
    index_gpu_op.load(tmp_path_factory.mktemp("emulated_index_ops"))
    return index_gpu_op.emulated


def int64(numbers):
    return tf.constant(numbers, tf.int64)


def calls(run, index, other):
    """What every verb answers, call after call; `other`: an empty index that takes over what the first one has."""
    rng = np.random.default_rng(2)
    for step in range(1, 7):
        keys = int64(rng.integers(-120, 120, 90))
        scores = int64(rng.integers(0, 9, 90)) if index.rules.score == "custom" else int64(step)
        yield run(lambda k=keys, n=step, s=scores: hash_table.find_or_insert(index, k, step=int64(n), scores=s))
        yield run(lambda k=keys: hash_table.find(index, k + 3))
        yield run(lambda k=keys: hash_table.erase(index, k[:9]))
        yield run(lambda k=keys, s=scores: hash_table.assign(index, k[50:], scores=k[50:] % 7, steps=k[50:] % 5 + 1))
        yield run(lambda n=step: hash_table.expire(index, int64(n - 3)))
        yield run(lambda: (hash_table.counters(index), hash_table.size(index), hash_table.bucket_of(int64([5, -9]), 3)))
        yield by_key(run(lambda: hash_table.erased(index, int64(2))))
    run(lambda: hash_table.trim_erased(index, int64(6)))
    yield by_key(run(lambda: hash_table.erased(index, int64(0))))
    listed = run(lambda: hash_table.export_batch(index, int64(0), int64(BUCKETS.num_rows)))
    counted = run(lambda: hash_table.export_admission(index))
    yield *listed, *counted, run(lambda: hash_table.export_batch(index, int64(40), int64(9)))
    yield run(lambda: hash_table.assign(other, listed.keys, scores=listed.scores, steps=listed.steps))
    run(lambda: hash_table.assign_admission(other, *counted))
    yield run(lambda: hash_table.export_admission(other))
    run(lambda: hash_table.clear(index))
    yield run(lambda: (hash_table.size(index), hash_table.counters(index), hash_table.erased(index, int64(0))))


def by_key(log):
    return [np.sort(np.stack(log), axis=1)]


@pytest.mark.long
@pytest.mark.parametrize("rules", RULES, ids=lambda rules: rules.score)
def test_every_verb_answers_as_on_the_cpu(emulated, rules):
    every = range(BUCKETS.num_buckets)
    on_gpu = calls(emulated, *(index_gpu_op.index_of(BUCKETS, every, rules) for _ in range(2)))
    on_cpu = calls(lambda function: function(), *(KeyIndex(BUCKETS, every, rules) for _ in range(2)))
    for number, (found, expected) in enumerate(zip(on_gpu, on_cpu, strict=True)):
        for one, other in zip(tf.nest.flatten(found), tf.nest.flatten(expected), strict=True):
            np.testing.assert_array_equal(one, other, err_msg=f"call {number}")


@pytest.mark.long
def test_wrong_arguments_are_named(emulated):
    index = index_gpu_op.index_of(BUCKETS, range(1, 3), IndexRules(admit_after=2, counter=("sketch", 900)))
    keys = np.arange(40)
    bad, of_buckets = int64(keys), BUCKETS.bucket_of(keys)
    good = int64(keys[(of_buckets > 0) & (of_buckets < 3)])
    for call in (
        lambda: hash_table.find_or_insert(index, bad, step=int64(1), scores=int64(1)),
        lambda: hash_table.assign(index, bad, scores=bad, steps=bad),
        lambda: hash_table.erase(index, bad),
    ):
        with pytest.raises(tf.errors.InvalidArgumentError, match="must be sent to the index of their bucket"):
            emulated(call)
    for call, message in (
        (lambda: hash_table.find_or_insert(index, good, step=int64(-1), scores=int64(1)), "steps must be from 0"),
        (lambda: hash_table.export_batch(index, int64(0), int64(999)), "expected rows from 0 to 119"),
        (lambda: hash_table.assign_admission(index, int64([7000]), int64([1])), "not a cell of the sketch"),
    ):
        with pytest.raises(tf.errors.InvalidArgumentError, match=message):
            emulated(call)
    emulated(lambda: hash_table.assign(index, good, scores=good, steps=good))
    found = emulated(lambda: hash_table.find(index, bad)).numpy()
    assert (found >= 0).sum() == len(good)  # it does not wait for the GPU
    with pytest.raises(tf.errors.InvalidArgumentError, match="must be sent to the index of their bucket"):
        emulated(lambda: hash_table.size(index))
    assert emulated(lambda: hash_table.size(index)) == len(good)


@pytest.mark.long
def test_first_values_are_those_of_the_cpu(emulated):
    rows, keys = int64([4, 1]), int64([9, -8])

    def made(run):
        slab = SlabVariables(tf.Variable(tf.ones([6, 5])), [tf.Variable(tf.ones([6]))], [])
        run(lambda: hash_table.initialize_rows(
            slab, rows, keys=keys, initializer=Initializer("normal", 0.0, 1.0), seed=3, initial_state=[0.25]
        ))  # fmt: skip
        return slab.weights.numpy(), slab.slots[0].numpy()

    for found, expected in zip(made(emulated), made(lambda function: function()), strict=True):
        np.testing.assert_array_equal(found, expected)
        assert (found.reshape(6, -1)[[0, 2, 3, 5]] == 1).all() and (found.reshape(6, -1)[[1, 4]] != 1).all()


TABLES = (
    DynamicTableConfig("d", 60, 8, features=("d",), score="step", admission=AfterCount(2), expiry=AfterSteps(3)),
    DynamicTableConfig("e", 40, 8, combiner="sum", features=("e",), score="timestamp"),
)


def train(run):
    """(losses, what is stored) of a layer whose graphs run(function, ...) calls."""
    setup = Setup(TABLES, {"d": 1, "e": None}, settings={"safe_check": "count", "log_erased": True})
    rank, rng, losses, stored = RankOfSetup(setup, SingleProcess()), np.random.default_rng(1), [], {}
    rank._compiled = lambda *arguments: run(rank._step, *arguments)
    for number in range(1, 6):
        losses.append(rank.train(setup.batch(rng, 40, lambda _, n: rng.integers(-50, 50, n)), number))
        run(partial(rank.embedding.expire, number, number * 10**9))
    for name, table in rank.embedding.dynamic_tables.items():
        first, stop = table.shard.rows
        listed = run(partial(hash_table.export_batch, table.index, int64(first), int64(stop - first)))
        stored[name] = [*listed, *(table.read(listed.rows.numpy(), slot) for slot in rank.embedding.slots)]
    return losses, stored


@pytest.mark.long
def test_a_layer_trains_as_on_the_cpu(emulated, monkeypatch):
    """Losses, stored keys, weights and state, with eviction, admission and expiry going on."""
    losses, stored = train(lambda function, *arguments: tf.function(function, autograph=False)(*arguments))
    monkeypatch.setattr("dlrm_tf2.embedding.dynamic.table.KeyIndex", index_gpu_op.index_of)
    found_losses, found = train(emulated)
    assert losses == found_losses and len(set(losses)) == 5
    for name, lists in stored.items():
        for one, other in zip(found[name], lists, strict=True):
            np.testing.assert_array_equal(one, other, err_msg=name)
