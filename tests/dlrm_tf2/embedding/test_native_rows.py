"""The layer with the native ops: the formulas in numpy, TensorFlow's ops, and any number of ranks."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.embedding_case import assembled, draw, train, train_reference

from dlrm_tf2 import ops
from dlrm_tf2.embedding import DistributedEmbedding, TableConfig, make_plan
from dlrm_tf2.embedding.native_rows import choose_op
from dlrm_tf2.optim import Optimizer
from dlrm_tf2.runtime.comm import SingleProcess

pytestmark = pytest.mark.skipif(not ops.available(), reason=f"no native ops: {ops.why_unavailable()}")
OPTIMIZERS = ["sgd", "adagrad", "rowwise_adagrad", "adam"]


def tables_of(case, run_ranks, steps, **settings):
    """(losses, tables) of a training on the case's ranks, in float32."""
    if case.plan.world_size == 1:
        ranks = [train(case, SingleProcess(), steps, dtype="float32", **settings)]
    else:
        ranks = run_ranks(case.plan.world_size, lambda comm: train(case, comm, steps, dtype="float32", **settings))
    parts = {}
    for rank in ranks:
        if isinstance(rank, BaseException):
            raise rank
        parts |= rank[1]
    return ranks[0][0], assembled(case, parts)


def check_close(found, wanted, relative, absolute):
    np.testing.assert_allclose(found[0], wanted[0], rtol=relative, atol=absolute)
    assert found[1].keys() == wanted[1].keys()
    for key, table in found[1].items():
        np.testing.assert_allclose(table, wanted[1][key], relative, absolute, err_msg=str(key))


@settings(deadline=None, max_examples=6, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 10**6), world_size=st.integers(1, 3))
def test_native_equals_tensorflow_and_numpy(run_ranks, seed, world_size):
    case = draw(seed, world_size)
    native = tables_of(case, run_ranks, 2, embedding_op="native")
    check_close(native, train_reference(case, 2), 2e-4, 2e-5)
    check_close(native, tables_of(case, run_ranks, 2, embedding_op="tensorflow"), 1e-4, 1e-5)


@pytest.mark.long
@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 10**9), world_size=st.integers(1, 5))
def test_native_equals_tensorflow_and_numpy_many_times(run_ranks, seed, world_size):
    test_native_equals_tensorflow_and_numpy.hypothesis.inner_test(run_ranks, seed, world_size)


def one_step(embedding_op, optimizer="sgd", dtype="float32", ids=(0, 3, 5), steps=1):
    """The weights of a table of 6 rows and 5 columns after steps with gradients of different sizes."""
    tables = [TableConfig("t", 6, 5, features=("t",))]
    layer = DistributedEmbedding(
        tables, make_plan(tables, 1), comm=SingleProcess(), seed=4, optimizer=Optimizer(optimizer), dtype=dtype,
        embedding_op=embedding_op,
    )  # fmt: skip
    scale = tf.constant(np.linspace(0.5, 1.7, 5), tf.float32)
    for number in range(1, steps + 1):
        packed = layer.ids({"t": np.array(ids)})
        layer.train_step(packed, lambda vectors: tf.reduce_sum(vectors["t"] ** 2 * scale, 1), learning_rate=0.3,
                         step=number)  # fmt: skip
    (shard,) = layer.plan.shards
    return layer.read_rows(shard, "weights", start=0, stop=6)


def test_sgd_on_one_id_a_row_has_the_bits_of_tensorflow():
    np.testing.assert_array_equal(one_step("native"), one_step("tensorflow"))


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_one_step_of_each_optimizer(optimizer):
    np.testing.assert_allclose(one_step("native", optimizer), one_step("tensorflow", optimizer), 1e-6, 1e-7)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_bfloat16_tables_round_by_the_same_random_bits(optimizer):
    """The weights differ where the float32 numbers before the rounding differ in their last bits: seldom, and by 1."""
    native, tensorflow = (
        one_step("native", optimizer, "bfloat16", steps=3),
        one_step("tensorflow", optimizer, "bfloat16", steps=3),
    )
    assert np.mean(native == tensorflow) > 0.9
    np.testing.assert_allclose(native, tensorflow, rtol=2**-7)
    np.testing.assert_array_equal(native.view(np.uint32) & 0xFFFF, 0)  # every weight is a bfloat16


def test_sgd_on_bfloat16_has_the_bits_of_tensorflow():
    np.testing.assert_array_equal(
        one_step("native", dtype="bfloat16", steps=4), one_step("tensorflow", dtype="bfloat16", steps=4)
    )


def test_an_id_out_of_range_is_refused_by_name():
    """Where ids reach the lookup unchecked, as a dataset's ids do."""
    tables = [TableConfig("t", 6, 4)]
    layer = DistributedEmbedding(tables, make_plan(tables, 1), comm=SingleProcess(), seed=0, embedding_op="native")
    ids = layer.ids({"t": [1, 2, 3]})
    wrong = ids._replace(global_ids=ids.global_ids._replace(fixed=tf.constant([[1], [6], [3]], tf.int32)))
    with pytest.raises(tf.errors.InvalidArgumentError, match="feature 't': its id 6 in sample 1 .* from 0 to 5"):
        layer.lookup(wrong)


def test_float64_tables_are_refused_for_the_native_op():
    tables = [TableConfig("t", 6, 4)]
    with pytest.raises(ValueError, match="--embedding_op native: they have no float64 tables"):
        DistributedEmbedding(
            tables, make_plan(tables, 1), comm=SingleProcess(), seed=0, dtype="float64", embedding_op="native"
        )


def test_the_choice_on_a_gpu(monkeypatch):
    def choose(embedding_op="auto", **choices):
        return choose_op(embedding_op, device="gpu", comm=SingleProcess(), **choices)

    monkeypatch.setattr(ops, "why_no_cuda", lambda: None)
    assert choose() == ("native", "embedding: the native ops on the GPU")
    assert choose("native", dtype="bfloat16") == ("native", "embedding: the native ops on the GPU, as asked")
    assert choose("tensorflow")[0] == choose(dtype="float64")[0] == "tensorflow"
    chosen, line = choose(on_host=True)
    assert chosen == "tensorflow" and "--cpu_offloading_threshold_gb leaves some to the host" in line
    monkeypatch.setattr(ops, "why_no_cuda", lambda: "it was built without CUDA")
    assert choose() == ("tensorflow", "embedding: TensorFlow's ops; it was built without CUDA")
    with pytest.raises(ValueError, match="--embedding_op native: it was built without CUDA"):
        choose("native")
