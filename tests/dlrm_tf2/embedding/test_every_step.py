"""Every rank takes part in every exchange of every step, also where TensorFlow knows all shapes and some values."""

import numpy as np
import pytest
import tensorflow as tf

from dlrm_tf2.embedding import DistributedEmbedding, ShardingPlan, TableConfig, make_plan
from dlrm_tf2.optim import Optimizer
from dlrm_tf2.runtime.comm import SingleProcess
from dlrm_tf2.sharding.plan import Shard, samples_of_rank

ROWS, BATCH, STEPS = 20, 8, 3
TABLES = [TableConfig("t", ROWS, 1)]


def square(vectors):
    return (vectors["t"][:, 0] - 1) ** 2


def linear(vectors):
    return 3 * vectors["t"][:, 0]


def by_rows(world_size):
    """The rows on ranks 0 and 1, half each: with data-parallel input, ids and single rows travel."""
    half = ROWS // 2
    shards = Shard("t", 0, rows=(0, half), columns=(0, 1)), Shard("t", 1, rows=(half, ROWS), columns=(0, 1))
    return ShardingPlan(world_size, shards)


def train(comm, loss_of_samples, compiled=True, data_parallel_input=False, plan=None):
    """The loss of each step, with ids of a shape that the graph knows."""
    layer = DistributedEmbedding(
        TABLES,
        plan or make_plan(TABLES, comm.size),
        comm=comm,
        seed=1,
        optimizer=Optimizer("sgd"),
        data_parallel_input=data_parallel_input,
    )

    def step(ids):
        return layer.train_step(ids, loss_of_samples, learning_rate=0.5).loss

    step = tf.function(step, autograph=False) if compiled else step
    start, stop = samples_of_rank(BATCH, comm.size, comm.rank)
    losses = []
    for number in range(STEPS):
        ids = np.random.default_rng(number).integers(0, ROWS, BATCH)
        given = layer.ids(
            {name: ids for name in layer.global_features},
            {name: ids[start:stop] for name in layer.sample_features},
            global_batch=BATCH,
        )
        losses.append(float(step(given)))
    return losses


@pytest.mark.parametrize("loss_of_samples", [square, linear])
@pytest.mark.parametrize("data_parallel_input", [False, True])
def test_a_rank_without_tables_takes_part_in_every_step(run_ranks, loss_of_samples, data_parallel_input):
    alone = train(SingleProcess(), loss_of_samples)
    assert len(set(alone)) == STEPS
    for losses in run_ranks(2, lambda comm: train(comm, loss_of_samples, True, data_parallel_input)):
        np.testing.assert_allclose(losses, alone, rtol=1e-5)


def test_single_rows_travel_in_every_step(run_ranks):
    alone = train(SingleProcess(), linear)
    for losses in run_ranks(3, lambda comm: train(comm, linear, True, True, by_rows(3))):
        np.testing.assert_allclose(losses, alone, rtol=1e-5)


def test_a_step_in_eager_mode_is_the_same(run_ranks):
    alone = train(SingleProcess(), square, compiled=False)
    for losses in run_ranks(2, lambda comm: train(comm, square, compiled=False)):
        np.testing.assert_allclose(losses, alone, rtol=1e-5)


def test_an_exchange_of_constants_whose_result_nobody_uses_runs_in_every_step(run_ranks):
    """The ids are constants of the graph, and the step returns something else."""

    def work(comm):
        layer = DistributedEmbedding(
            TABLES, make_plan(TABLES, comm.size), comm=comm, seed=1, optimizer=Optimizer("sgd")
        )
        ids = layer.ids({name: np.arange(BATCH) for name in layer.global_features}, global_batch=BATCH)

        @tf.function(autograph=False)
        def step():
            layer.train_step(ids, linear, learning_rate=1.0)
            return tf.constant(1)

        for _ in range(STEPS):
            step()
        return [layer.read_rows(shard, "weights", start=0, stop=ROWS).copy() for shard in layer.plan.of_rank(comm.rank)]

    (table,), _ = sorted(run_ranks(2, work), key=len, reverse=True)
    ((alone,),) = run_ranks(1, work)
    np.testing.assert_allclose(table, alone, rtol=1e-5)
    assert np.abs(table[:BATCH] - table[BATCH:].mean()).min() > 1  # each of them was moved by 3 * 3 / 8


def test_a_model_that_diverges_has_no_finite_loss(run_ranks):
    """An update of infinity on the one rank that has the table makes the loss nan on all of them."""

    def work(comm):
        layer = DistributedEmbedding(
            TABLES, make_plan(TABLES, comm.size), comm=comm, seed=1, optimizer=Optimizer("sgd")
        )
        ids = layer.ids({name: np.arange(BATCH) for name in layer.global_features}, global_batch=BATCH)
        return float(layer.train_step(ids, linear, learning_rate=np.inf).loss)

    assert np.isnan(run_ranks(2, work)).all()
