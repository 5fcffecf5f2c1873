"""What contradicts itself is refused by name, and never trains something else in silence."""

import numpy as np
import pytest
import tensorflow as tf

from dlrm_tf2.embedding import DistributedEmbedding, TableConfig, make_plan
from dlrm_tf2.optim import Optimizer
from dlrm_tf2.runtime.comm import SingleProcess

TABLES = [TableConfig("a", 300, 2, "sum"), TableConfig("b", 9, 2, "sum")]


def layer(hotness=1, optimizer="sgd", weighted=(), plan=None):
    return DistributedEmbedding(
        TABLES,
        plan or make_plan(TABLES, 1),
        comm=SingleProcess(),
        seed=0,
        optimizer=Optimizer(optimizer) if optimizer else None,
        hotness={"a": hotness, "b": hotness},
        weighted=weighted,
    )


def ragged(ids, lengths):
    return np.array(ids), np.array(lengths)


@pytest.mark.parametrize("ids, reason", [
    # The sums over both features agree, so that every id would find a sample.
    ({"a": ragged([1, 2], [2, 1]), "b": ragged([3, 4], [1, 0])}, "'a': its row lengths must be 0 or more and add up"),
    ({"a": ragged([1, 2], [3, -1]), "b": ragged([3, 4], [1, 1])}, "'a': its row lengths must be 0 or more"),
    ({"a": ragged([1, 2], [1, 1]), "b": ragged([3], [1])}, "'b': its number of samples is wrong"),
    ({"a": ragged([1, 2], [1, 1]), "b": ragged([3], [1, 0, 0])}, "'b': its number of samples is wrong"),
])  # fmt: skip
def test_row_lengths_that_contradict_the_ids(ids, reason):
    with pytest.raises(tf.errors.InvalidArgumentError, match=reason):
        layer(None).ids(ids)


def test_another_number_of_samples_than_the_other_feature_or_the_global_batch_has():
    for ids, global_batch in (({"a": [1, 2], "b": [3]}, None), ({"a": [1, 2], "b": [3, 4]}, 3)):
        with pytest.raises(tf.errors.InvalidArgumentError, match="its number of samples is wrong"):
            layer().ids(ids, global_batch=global_batch)


def test_ids_are_integers():
    with pytest.raises(ValueError, match="feature 'a': ids of type float64; they must be integers"):
        layer().ids({"a": np.array([1.7]), "b": [1]})


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int16, np.int32, np.uint64])
def test_ids_of_a_type_that_does_not_hold_the_number_of_rows(dtype):
    embedding = layer()
    packed = embedding.ids({"a": np.array([100], dtype), "b": np.array([1], dtype)})
    assert packed.global_ids.fixed.numpy().tolist() == [[100, 1]]


@pytest.mark.parametrize("weighted, weights, error, reason", [
    ((), {"a": [5.0]}, ValueError, "feature 'a': has weights, but the layer was made without weighted"),
    (("a",), {}, ValueError, "feature 'a': has no weights, but is weighted"),
    (("a", "b"), {"a": [1.0, 2.0], "b": [1.0]}, tf.errors.InvalidArgumentError, "'a': it must have as many weights as"),
])  # fmt: skip
def test_weights_that_nobody_asked_for_or_that_are_missing(weighted, weights, error, reason):
    with pytest.raises(error, match=reason):
        layer(weighted=weighted).ids({"a": [1], "b": [2]}, global_weights=weights)


def test_a_plan_of_another_job():
    with pytest.raises(ValueError, match="the plan is for 2 ranks, but this job has 1"):
        layer(plan=make_plan(TABLES, 2))
    with pytest.raises(ValueError, match="table 'a': it has 600 elements, but its shards in the plan have 400"):
        layer(plan=make_plan([TableConfig("a", 200, 2), TABLES[1]], 1))


@pytest.mark.parametrize("optimizer, reason", [(None, "without an optimizer"), ("adam", "step is missing: adam needs")])
def test_a_step_that_cannot_be(optimizer, reason):
    embedding = layer(optimizer=optimizer)
    ids = embedding.ids({"a": [1], "b": [2]})
    with pytest.raises(ValueError, match=reason):
        embedding.train_step(ids, lambda vectors: vectors["a"][:, 0], learning_rate=0.1)


def test_a_loss_is_one_number_a_sample():
    embedding = layer()
    with pytest.raises(ValueError, match=r"shape \(\); it must return the loss of each sample"):
        embedding.train_step(
            embedding.ids({"a": [1], "b": [2]}), lambda vectors: tf.reduce_mean(vectors["a"]), learning_rate=0.1
        )
