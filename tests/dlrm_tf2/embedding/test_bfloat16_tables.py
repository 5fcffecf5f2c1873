"""16-bit tables: the random bits, and trainings that do not depend on plan, ranks and interruptions, bit for bit."""

from types import SimpleNamespace

import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf
from support import row_kernels
from support.embedding_case import assembled

from dlrm_tf2 import ops
from dlrm_tf2.checkpoint import load_checkpoint, save_checkpoint
from dlrm_tf2.embedding import DistributedEmbedding, ShardingPlan, TableConfig, make_plan
from dlrm_tf2.embedding.rounding import rounded, table_key
from dlrm_tf2.optim import Optimizer
from dlrm_tf2.runtime.comm import SingleProcess
from dlrm_tf2.sharding.plan import Shard, samples_of_rank

OPTIMIZERS = ["sgd", "adagrad", "rowwise_adagrad", "adam"]
TABLES = (TableConfig("a", 24, 6, "sum", ("a", "again")), TableConfig("b", 9, 5), TableConfig("c", 40, 6, "mean"))
HOTNESS = {"a": 2, "again": 1, "b": 1, "c": 4}
BATCH = 16


def cut(world_size, by):
    """Every table cut into as many pieces as there are ranks."""
    shards = []
    for table in TABLES:
        size = table.num_rows if by == "rows" else table.embedding_dim
        for rank in range(world_size):
            part = rank * size // world_size, (rank + 1) * size // world_size
            rows, columns = (0, table.num_rows), (0, table.embedding_dim)
            shards.append(Shard(table.name, rank, *((part, columns) if by == "rows" else (rows, part))))
    return ShardingPlan(world_size, tuple(shards))


PLANS = {
    "tables": lambda world_size: make_plan(TABLES, world_size, strategy="memory_optimized"),
    "columns": lambda world_size: cut(world_size, "columns"),
    "rows": lambda world_size: cut(world_size, "rows"),
    "replicated": lambda world_size: make_plan(TABLES, world_size, data_parallel_threshold=10**6),
}


def layer_of(comm, plan, *, optimizer, seed=7, **settings):
    made_of = {"optimizer": Optimizer(optimizer), "hotness": HOTNESS, "dtype": "bfloat16"}
    return DistributedEmbedding(TABLES, plan, comm=comm, seed=seed, **made_of, **settings)


def train(layer, comm, steps):
    """Steps whose gradients are powers of two, so that their sums are exact in any order."""
    first, last = samples_of_rank(BATCH, comm.size, comm.rank)
    for step in steps:
        rng = np.random.default_rng(step)
        ids = {
            feature: (rng.random((BATCH, HOTNESS[feature])) ** 2 * table.num_rows).astype(np.int32)
            for table in TABLES
            for feature in table.features
        }
        coefficients = 2.0 ** rng.integers(-2, 3, (BATCH, layer.width)) * rng.choice([-1, 1], (BATCH, layer.width))
        mine = tf.constant(coefficients[first:last], tf.float32)

        def loss(vectors, mine=mine):
            return tf.reduce_sum(tf.concat(list(vectors.values()), 1) * mine, 1)

        packed = layer.ids(
            {name: ids[name] for name in layer.global_features},
            {name: ids[name][first:last] for name in layer.sample_features},
            global_batch=BATCH,
        )
        layer.train_step(packed, loss, learning_rate=0.3, step=tf.constant(float(step)))


def parts_of(layer):
    """(slot, shard) -> its numbers."""
    return {
        (slot, shard): layer.read_rows(shard, slot, start=shard.rows[0], stop=shard.rows[1])
        for shard in layer.plan.of_rank(layer.rank)
        for slot in layer.slots
    }


def on_ranks(run_ranks, world_size, work):
    """The whole tables after work(comm), which returns the layer, on each rank."""
    results = run_ranks(world_size, lambda comm: parts_of(work(comm)))
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return assembled(SimpleNamespace(tables=TABLES), {key: part for parts in results for key, part in parts.items()})


def check_equal(found, wanted):
    assert found.keys() == wanted.keys()
    for key, table in found.items():
        np.testing.assert_array_equal(table, wanted[key], err_msg=str(key))


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("embedding_op", ["native", "tensorflow"])
def test_any_plan_on_any_ranks_has_the_bits_of_one_rank(run_ranks, optimizer, embedding_op):
    if embedding_op == "native" and not ops.available():
        pytest.skip(f"no native ops: {ops.why_unavailable()}")

    def tables_of(world_size, plan, **settings):
        def work(comm):
            layer = layer_of(comm, plan, optimizer=optimizer, embedding_op=embedding_op, **settings)
            assert layer.native == (embedding_op == "native")
            train(layer, comm, (1, 2, 3))
            return layer

        return on_ranks(run_ranks, world_size, work)

    alone = tables_of(1, make_plan(TABLES, 1))
    for name, of_ranks in PLANS.items():
        if name == "columns" and optimizer == "rowwise_adagrad":
            continue  # refused, see test_refusals.py
        for world_size, data_parallel_input in ((3, False), (2, True)):
            check_equal(tables_of(world_size, of_ranks(world_size), data_parallel_input=data_parallel_input), alone)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_restored_on_other_ranks_it_has_the_bits_of_a_training_that_was_not_interrupted(run_ranks, tmp_path, optimizer):
    def uninterrupted(comm):
        layer = layer_of(comm, make_plan(TABLES, 1), optimizer=optimizer)
        train(layer, comm, (1, 2, 3, 4))
        return layer

    def interrupted(comm):
        layer = layer_of(comm, PLANS["rows"](2), optimizer=optimizer)
        train(layer, comm, (1, 2))
        save_checkpoint(tmp_path / "saved", comm, dense={}, embedding=layer, document={})
        return layer

    def restored(comm):
        layer = layer_of(comm, PLANS["tables"](3), optimizer=optimizer, initialize=False)
        load_checkpoint(tmp_path / "saved", comm, dense={}, embedding=layer)
        train(layer, comm, (3, 4))
        return layer

    halfway = on_ranks(run_ranks, 2, interrupted)
    end = on_ranks(run_ranks, 3, restored)
    check_equal(end, on_ranks(run_ranks, 1, uninterrupted))
    assert (end["weights", "a"] != halfway["weights", "a"]).any()


def test_another_seed_rounds_in_another_way():
    tables = []
    for seed in (7, 8):
        layer = layer_of(SingleProcess(), make_plan(TABLES, 1), optimizer="sgd", seed=seed)
        for shard in layer.plan.shards:
            layer.write_rows(shard, "weights", start=0, values=np.ones((shard.num_rows, shard.num_columns), np.float32))
        train(layer, SingleProcess(), [1])
        tables.append(parts_of(layer)["weights", layer.plan.shards[0]])
    assert (tables[0] != tables[1]).any()
    np.testing.assert_allclose(tables[0], tables[1], rtol=2**-7)


def test_a_step_without_its_number_is_refused():
    """Every step would round by the same random bits, and a weight would take the same way each time."""
    layer = layer_of(SingleProcess(), make_plan(TABLES, 1), optimizer="sgd")
    ids = layer.ids({feature: np.zeros((4, hotness), np.int32) for feature, hotness in HOTNESS.items()})
    with pytest.raises(ValueError, match="step is missing: the rounding of bfloat16 tables needs the number"):
        layer.train_step(ids, lambda vectors: tf.reduce_sum(vectors["b"], 1), learning_rate=0.1)


# The rounding itself.


compiled = tf.function(rounded)


def round_all(weights, *, first_row=0, first_column=0, step=1, table="t", seed=3):
    """float32 [rows, width] -> float32, rounded as the rows first_row.. and columns first_column.. of a table."""
    count = len(weights)
    return compiled(
        tf.constant(weights, tf.float32),
        keys=tf.fill([count], tf.constant(table_key(table, seed), tf.int64)),
        rows=tf.range(first_row, first_row + count, dtype=tf.int64),
        columns=tf.fill([count], tf.constant(first_column, tf.int64)),
        step=tf.constant(step, tf.int64),
    )


def mean_is(roundings, value, below, above):
    """Asserts that independent roundings of a value, to one of its neighbours, have the mean `value`: 5 sigma."""
    roundings = np.asarray(roundings, np.float64).ravel()
    assert set(roundings) <= {below, above}
    sigma = np.sqrt((value - below) * (above - value) / len(roundings))
    assert abs(roundings.mean() - value) <= 5 * sigma + 1e-12


@pytest.mark.parametrize("fraction", [1 / 65536, 0.01, 0.25, 0.5, 0.9, 65535 / 65536])
@pytest.mark.parametrize(
    "below, above", [(1.0, 1.0 + 2**-7), (-(2.0**-9), -(2.0**-9) + 2.0**-17), (2.0**-133, 2.0**-132)]
)
def test_the_mean_of_many_roundings_is_the_weight(fraction, below, above):
    """Over rows and columns, and over steps of one weight."""
    value = float(np.float32(below + fraction * (above - below)))
    of_places = round_all(np.full((2000, 100), value, np.float32)).numpy()
    mean_is(of_places, value, below, above)
    of_steps = [round_all(np.full((1, 3), value, np.float32), step=step).numpy()[0, 0] for step in range(1, 600)]
    mean_is(of_steps, value, below, above)


def test_numbers_that_16_bits_hold_stay_and_so_do_nan_and_infinity():
    rng = np.random.default_rng(0)
    held = rng.normal(size=(300, 7)).astype(ml_dtypes.bfloat16).astype(np.float32)
    held[0, :6] = 0.0, -0.0, np.nan, np.inf, -np.inf, float(ml_dtypes.finfo(ml_dtypes.bfloat16).max)
    for step in (0, 1, 2**40):
        found = round_all(held, step=step).numpy().astype(np.float32)
        np.testing.assert_array_equal(found.view(np.uint32)[~np.isnan(held)], held.view(np.uint32)[~np.isnan(held)])
        assert np.isnan(found[0, 2])


@pytest.mark.parametrize("step", [0, 1, 12_345, 2**40])
@pytest.mark.parametrize("table, seed", [("t", 0), ("cat_7", 2**63 - 1)])
@pytest.mark.parametrize("first_row, first_column", [(0, 0), (39_000_000, 64)])
def test_the_random_bits_are_those_of_numpy(step, table, seed, first_row, first_column):
    """By SplitMix64 and MurmurHash3's finalizer on Python's integers."""
    weights = np.random.default_rng(1).normal(size=(9, 5)).astype(np.float32)
    key = table_key(table, seed) % 2**64
    slab = row_kernels.Rows(weights, shards=[row_kernels.Shard(0, first_row, first_column, key)])
    expected = np.stack(
        [row_kernels.rounded(weights[row], row_kernels.random_of(slab, row, step)) for row in range(len(weights))]
    )
    found = round_all(weights, first_row=first_row, first_column=first_column, step=step, table=table, seed=seed)
    np.testing.assert_array_equal(found.numpy().view(np.uint16), expected.view(np.uint16))
