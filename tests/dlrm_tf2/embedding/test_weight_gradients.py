"""Gradients of the ids' weights: finite differences in numpy, on one rank and on several, by both kinds of ops."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.weight_gradient_case import check, draw_weighted, of_layer

from dlrm_tf2 import ops
from dlrm_tf2.embedding import DistributedEmbedding, TableConfig, make_plan
from dlrm_tf2.embedding import layer as layer_module
from dlrm_tf2.ops import embedding_rows
from dlrm_tf2.optim import Optimizer
from dlrm_tf2.runtime.comm import SingleProcess

EMBEDDING_OPS = ["tensorflow", *(["native"] if ops.available() else [])]
FORMS = [("float64", "tensorflow"), *((dtype, op) for dtype in ("float32", "bfloat16") for op in EMBEDDING_OPS)]
TOLERANCES = {"float64": (1e-6, 1e-8), "float32": (2e-4, 2e-5), "bfloat16": (2e-4, 2e-5)}  # relative, absolute


def ranks_of(case, run_ranks, dtype, embedding_op, **others):
    """What of_layer returns on each rank."""
    if case.plan.world_size == 1:
        return [of_layer(case, SingleProcess(), embedding_op=embedding_op, dtype=dtype, **others)]
    ranks = run_ranks(
        case.plan.world_size, lambda comm: of_layer(case, comm, embedding_op=embedding_op, dtype=dtype, **others)
    )
    for rank in ranks:
        if isinstance(rank, BaseException):
            raise rank
    return ranks


@settings(deadline=None, max_examples=14, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 10**6), world_size=st.sampled_from([1, 2, 2, 3]), form=st.sampled_from(FORMS))
def test_gradients_of_weights_equal_finite_differences(run_ranks, seed, world_size, form):
    case = draw_weighted(seed, world_size)
    check(case, ranks_of(case, run_ranks, *form), *TOLERANCES[form[0]])


@pytest.mark.long
@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 10**9), world_size=st.integers(1, 4), form=st.sampled_from(FORMS))
def test_gradients_of_weights_equal_finite_differences_many_times(run_ranks, seed, world_size, form):
    inner = test_gradients_of_weights_equal_finite_differences.hypothesis.inner_test
    inner(run_ranks, seed, world_size, form)


# In both, weights go to one rank only, and rows of another weighted feature are fetched.
@pytest.mark.parametrize("seed, embedding_op", [(79, "auto"), (180, "tensorflow")])
def test_in_a_compiled_step(run_ranks, seed, embedding_op):
    case = draw_weighted(seed, 2, data_parallel_input=True)
    check(case, ranks_of(case, run_ranks, "float32", embedding_op, compiled=True), *TOLERANCES["float32"])


def test_vectors_that_travel_in_16_bits(run_ranks):
    case = draw_weighted(79, 2, data_parallel_input=True)
    check(case, ranks_of(case, run_ranks, "float32", "auto", wire="float16"), 1e-2, 1e-2)


def one_table(combiner, embedding_op, rows, dtype="float32"):
    """A layer whose only table has these rows, and feature "t" any number of weighted ids."""
    tables = [TableConfig("t", *np.shape(rows), combiner=combiner, features=("t",))]
    layer = DistributedEmbedding(
        tables, make_plan(tables, 1, hotness={"t": 2}), comm=SingleProcess(), seed=0, hotness={"t": None},
        weighted=["t"], optimizer=Optimizer("sgd"), embedding_op=embedding_op, dtype=dtype,
    )  # fmt: skip
    layer.write_rows(layer.plan.shards[0], "weights", start=0, values=np.array(rows, np.float32))
    return layer


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("embedding_op", EMBEDDING_OPS)
@pytest.mark.parametrize("combiner, of_weights", [
    ("sum", [21, 43, 10, 4, 12]),
    ("mean", [-22 / 9, 44 / 9, 0, 0, 0]),  # dots 21 and 43, of the mean 85 / 3; the total weight is 3
])  # fmt: skip
def test_by_hand_with_the_update_of_the_same_step(combiner, of_weights, embedding_op, dtype):
    """Samples of two ids, of none, of one, and of two whose weights add up to 0, with which a mean is zeros."""
    layer = one_table(combiner, embedding_op, [[1, 2], [3, 4], [5, 6]], dtype)
    weights = tf.constant([2.0, 1.0, 4.0, 0.5, -0.5])
    upstream = tf.constant([[1.0, 10.0], [7.0, 7.0], [2.0, 0.0], [4.0, 0.0]])
    with tf.GradientTape() as tape:
        tape.watch(weights)
        ids = layer.ids({"t": (tf.constant([0, 1, 2, 0, 1]), [2, 0, 1, 2])}, global_weights={"t": weights})
        lookup = layer.lookup(ids)
        tape.watch(lookup.vectors)
        loss = tf.reduce_sum(layer.exchange(lookup) * upstream)
    by_vectors, by_weights = tape.gradient(loss, [lookup.vectors, weights])
    np.testing.assert_allclose(by_weights, of_weights, rtol=1e-6, atol=1e-6)
    layer.apply_gradient(lookup, by_vectors, learning_rate=1.0, step=tf.constant(1))
    row = layer.read_rows(layer.plan.shards[0], "weights", start=0, stop=1)[0]
    expected = [1 - 2 - 2, 2 - 20] if combiner == "sum" else [1 - 2 / 3, 2 - 20 / 3]
    np.testing.assert_allclose(row, expected, rtol=2**-7 if dtype == "bfloat16" else 1e-6)


@pytest.mark.skipif(not ops.available(), reason=f"no native ops: {ops.why_unavailable()}")
@pytest.mark.parametrize("seed, world_size, dtype", [(79, 2, "float32"), (5, 1, "bfloat16"), (6, 1, "float32")])
def test_what_stands_in_for_the_op_on_a_gpu(run_ranks, monkeypatch, seed, world_size, dtype):
    """There the lookup is native, and the gradients of weights are TensorFlow's."""
    case, calls = draw_weighted(seed, world_size), []
    in_tensorflow = embedding_rows.weight_gradients_in_tensorflow
    monkeypatch.setattr(
        embedding_rows,
        "weight_gradients_in_tensorflow",
        lambda *args, **named: calls.append(1) or in_tensorflow(*args, **named),
    )
    monkeypatch.setattr(layer_module, "choose_op", lambda *args, **named: ("native", ""))
    monkeypatch.setattr(tf.config, "get_visible_devices", lambda kind: ["a GPU"])
    check(case, ranks_of(case, run_ranks, dtype, "native"), *TOLERANCES[dtype])
    assert calls


@pytest.mark.skipif(not ops.available(), reason=f"no native ops: {ops.why_unavailable()}")
@pytest.mark.parametrize("watched", [False, True])
def test_a_step_that_watches_no_weights_computes_no_gradient_of_them(watched):
    layer = one_table("mean", "native", np.ones([3, 2]))

    @tf.function(autograph=False)
    def step(weights):
        with tf.GradientTape() as tape:
            if watched:
                tape.watch(weights)
            lookup = layer.lookup(layer.ids({"t": (tf.constant([0, 1]), [2])}, global_weights={"t": weights}))
            tape.watch(lookup.vectors)
            loss = tf.reduce_sum(layer.exchange(lookup))
        return tape.gradient(loss, [lookup.vectors, weights])[watched]

    graph = step.get_concrete_function(tf.TensorSpec([2])).graph
    assert ("DlrmEmbeddingWeightGradient" in {op.type for op in graph.get_operations()}) == watched
