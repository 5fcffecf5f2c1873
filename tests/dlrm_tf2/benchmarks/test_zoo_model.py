"""The synthetic model against numpy, on one rank and on several, with every published optimizer and kind of input."""

import numpy as np
import pytest
import tensorflow as tf
from support.numpy_zoo import LEARNING_RATE, NumpyZoo

from dlrm_tf2.benchmarks.zoo import TableGroup, ZooModel
from dlrm_tf2.benchmarks.zoo_data import ZooData
from dlrm_tf2.benchmarks.zoo_model import OPTIMIZERS, SyntheticModel, average_pooled
from dlrm_tf2.benchmarks.zoo_phases import phase_times
from dlrm_tf2.data.batches import RankShare
from dlrm_tf2.model.dlrm import ComputeSettings
from dlrm_tf2.runtime.comm import SingleProcess
from dlrm_tf2.sharding.plan import make_plan
from dlrm_tf2.training.step import TrainingStep

# 2 * 4 + 3 * 3 = 17 columns in windows of 5: four windows, the first with 4 and the last with 3 existing columns.
ZOO = ZooModel(
    "test", (TableGroup(1, (1, 3), 50, 4), TableGroup(3, (1,), 9, 3)), num_numerical=3, mlp_dims=(6, 4, 1), pooling=5
)
BATCH, STEPS, SEED = 21, 5, 4


def data_of(share):
    return ZooData(ZOO, share, batch_size=BATCH, alpha=1.05, seed=SEED)


def make(comm, optimizer, dp_input=False, **plan):
    settings = ComputeSettings(optimizer=OPTIMIZERS[optimizer][0], data_parallel_input=dp_input)
    sharding = make_plan(ZOO.tables, comm.size, hotness=ZOO.hotness, optimizer=optimizer, **plan)
    model = SyntheticModel(ZOO, sharding, comm=comm, seed=SEED, settings=settings)
    embedding = model.embedding
    data = data_of(RankShare(comm.rank, comm.size, embedding.global_features, embedding.sample_features))
    return model, [data.batch(number) for number in range(2)]


def weights_of(model):
    """Name -> the MLP's variables, and the rows of this rank by shard."""
    dense = {variable.name.removesuffix(":0"): variable.numpy() for variable in model.dense_variables}
    embedding = model.embedding
    parts = {
        shard: embedding.read_rows(shard, "weights", start=shard.rows[0], stop=shard.rows[1])
        for shard in embedding.plan.of_rank(embedding.rank)
    }
    return dense, parts


def whole(parts):
    """Table name -> the table, from its rectangles."""
    tables = {table.name: np.full((table.num_rows, table.embedding_dim), np.nan) for table in ZOO.tables}
    for shard, rows in parts.items():
        tables[shard.table][slice(*shard.rows), slice(*shard.columns)] = rows
    return tables


def train(comm, optimizer, dp_input, **plan):
    model, batches = make(comm, optimizer, dp_input, **plan)
    before, step, losses = weights_of(model), TrainingStep(model), []
    pairs = step.with_next(batches[number % 2] for number in range(STEPS))
    for number, (batch, next_batch) in enumerate(pairs, 1):
        result = step(batch, OPTIMIZERS[optimizer][1], step=number, next_batch=next_batch)
        losses.append(step.outcome(result).loss)
    return losses, before, weights_of(model)


def reference(optimizer, dense, tables):
    """(losses, weights) of the same steps in numpy, from the initial weights."""
    weights = {name: array.astype(np.float64) for name, array in (dense | tables).items()}
    zoo, data, losses = NumpyZoo(ZOO, optimizer, weights), data_of(RankShare(sample_features=tuple(ZOO.hotness))), []
    for number in range(STEPS):
        batch = data.batch(number % 2)
        stops = np.cumsum(list(ZOO.hotness.values()))
        ids = dict(zip(ZOO.hotness, np.split(batch.ids.local_ids.fixed, stops[:-1], axis=1), strict=True))
        losses.append(zoo.step(number + 1, batch.label, batch.numerical, ids))
    return losses, weights


@pytest.mark.parametrize("optimizer, world_size, dp_input, plan", [
    ("sgd", 1, False, {}),
    ("sgd", 3, True, {"row_slice_threshold": 100}),
    ("adagrad", 2, False, {"column_slice_threshold": 50}),
    ("adagrad", 2, True, {"data_parallel_threshold": 30}),
    ("adam", 1, True, {}),
    ("adam", 2, True, {}),
])  # fmt: skip
def test_steps_equal_numpy(run_ranks, optimizer, world_size, dp_input, plan):
    def work(comm):
        return train(comm, optimizer, dp_input, **plan)

    ranks = [work(SingleProcess())] if world_size == 1 else run_ranks(world_size, work)
    for rank in ranks:
        if isinstance(rank, BaseException):
            raise rank
    joined = [whole({shard: rows for rank in ranks for shard, rows in rank[when][1].items()}) for when in (1, 2)]
    losses, weights = reference(optimizer, ranks[0][1][0], joined[0])
    assert OPTIMIZERS[optimizer][1] == LEARNING_RATE[optimizer]
    for found, _, (dense, _) in ranks:
        np.testing.assert_allclose(found, losses, rtol=2e-4)
        for name, array in dense.items():
            np.testing.assert_allclose(array, weights[name], rtol=1e-3, atol=2e-5, err_msg=name)
    for name, table in joined[1].items():
        np.testing.assert_allclose(table, weights[name], rtol=1e-3, atol=2e-5, err_msg=name)
        assert np.abs(table - joined[0][name]).max() > 1e-4, "the table was not trained"


@pytest.mark.parametrize("columns, window", [(17, 5), (12, 4), (13, 7), (6, 7), (8, 3)])
def test_pooling_is_tensorflows(columns, window):
    vectors = np.random.default_rng(columns).normal(size=(3, columns)).astype(np.float32)
    expected = tf.nn.avg_pool1d(vectors[:, :, np.newaxis], window, window, padding="SAME")[:, :, 0]
    np.testing.assert_allclose(average_pooled(tf.constant(vectors), window), expected, rtol=1e-5, atol=1e-6)


def test_padding_does_not_count_in_a_mean():
    found = average_pooled(tf.constant([[1.0, 2.0, 3.0, 10.0, 20.0]]), 4)  # 1 column of padding left, 2 right
    np.testing.assert_allclose(found, [[2.0, 15.0]])


def test_the_phases_run_alone_on_all_ranks(run_ranks):
    def work(comm):
        model, batches = make(comm, "adagrad", dp_input=True, row_slice_threshold=100)
        return phase_times(model, batches[0], 1e-3)

    first, second = run_ranks(2, work)
    assert list(first) == ["lookup", "exchange", "dense", "update"] and min(first.values()) > 0
    assert first == second  # of the slowest rank
