"""What other implementations of hybrid-parallel embeddings got wrong, as tests of this one.

Source: defects found in NVIDIA's distributed-embeddings and SparseOperationKit by running or reading them.
"""

import numpy as np
import pytest
import tensorflow as tf
from support.embedding_case import assembled, draw, train, train_reference

from dlrm_tf2.embedding.layer import DistributedEmbedding
from dlrm_tf2.optim import Optimizer
from dlrm_tf2.runtime.comm import SingleProcess
from dlrm_tf2.sharding.plan import Shard, ShardingPlan, make_plan
from dlrm_tf2.sharding.tables import TableConfig


def one_rank(table, optimizer=None, **settings):
    plan = ShardingPlan(1, (Shard(table.name, 0, rows=(0, table.num_rows), columns=(0, table.embedding_dim)),))
    return DistributedEmbedding([table], plan, comm=SingleProcess(), seed=0, optimizer=optimizer, **settings)


def result(embedding, ids, **given):
    return embedding.exchange(embedding.lookup(embedding.ids(ids, **given)))


def test_merged_column_slices_with_shared_features_keep_their_widths(run_ranks):
    """Features [0, 0, 1, 1, 0] of tables 10000 x 4 and 1000 x 8, on 8 ranks: the widths came out 4, 0, 12, 12, 0."""
    tables = [
        TableConfig("wide", 1000, embedding_dim=8, combiner=None, features=("c", "d")),
        TableConfig("long", 10000, embedding_dim=4, combiner=None, features=("a", "b", "e")),
    ]
    plan = make_plan(tables, 8, strategy="memory_balanced", column_slice_threshold=100)
    ids = {name: np.array([3, 7, 7, 1, 9, 2, 5, 6]) + number for number, name in enumerate("abcde")}

    def work(comm):
        embedding = DistributedEmbedding(tables, plan, comm=comm, seed=0)
        given = {name: ids[name] for name in embedding.global_features}
        return {name: part.numpy() for name, part in embedding.split(result(embedding, given, global_batch=8)).items()}

    parts = run_ranks(8, work)
    for table in tables:
        whole = one_rank(table)
        alone = whole.split(result(whole, {name: ids[name] for name in table.features}))
        for name in table.features:
            found = np.concatenate([part[name] for part in parts])
            assert found.shape == (8, table.embedding_dim)
            np.testing.assert_array_equal(found, alone[name].numpy())


def test_weights_go_into_uneven_merged_slices(run_ranks):
    """1000 x 64, 10000 x 16 and 1000 x 16 on 8 ranks: weights were cut evenly, the slices were not."""
    tables = [TableConfig("a", 1000, 64), TableConfig("b", 10000, 16), TableConfig("c", 1000, 16)]
    plan = make_plan(tables, 8, strategy="memory_optimized", column_slice_threshold=10000)
    wanted = {table.name: np.random.default_rng(1).random((table.num_rows, table.embedding_dim), np.float32)
              for table in tables}  # fmt: skip
    ids = {name: np.arange(0, 992, 31) for name in "abc"}

    def work(comm):
        embedding = DistributedEmbedding(tables, plan, comm=comm, seed=0, initialize=False)
        for shard in plan.of_rank(comm.rank):
            part = wanted[shard.table][slice(*shard.rows), slice(*shard.columns)]
            embedding.write_rows(shard, "weights", start=shard.rows[0], values=part)
        given = {name: ids[name] for name in embedding.global_features}
        return result(embedding, given, global_batch=32).numpy()

    found = np.concatenate(run_ranks(8, work))
    np.testing.assert_array_equal(found, np.concatenate([wanted[name][ids[name]] for name in "abc"], axis=1))


@pytest.mark.parametrize("combiner", ["sum", "mean"])
def test_empty_bags_are_zeros_and_take_no_gradient(combiner):
    """Lengths 2, 0, 1: as many ids as samples, which a shortcut took for one-hot; a mean over nothing was NaN."""
    embedding = one_rank(
        TableConfig("t", 9, embedding_dim=2, combiner=combiner, features=("f",)), Optimizer("sgd"), hotness={"f": None}
    )
    shard = embedding.plan.shards[0]
    before = embedding.read_rows(shard, "weights", start=0, stop=9).copy()
    lookup = embedding.lookup(embedding.ids({"f": (np.array([4, 1, 4]), np.array([2, 0, 1]))}))
    pooled = (before[4] + before[1]) * (0.5 if combiner == "mean" else 1)
    np.testing.assert_allclose(embedding.exchange(lookup).numpy(), [pooled, [0, 0], before[4]], rtol=1e-6)
    embedding.apply_gradient(
        lookup, [tf.ones_like(vectors) for vectors in lookup.vectors], learning_rate=tf.constant(0.5)
    )
    each = 0.5 if combiner == "mean" else 1.0
    wanted = before.copy()
    wanted[4] -= 0.5 * (each + 1)
    wanted[1] -= 0.5 * each
    np.testing.assert_allclose(embedding.read_rows(shard, "weights", start=0, stop=9), wanted, rtol=1e-6)


def test_random_lengths_with_empty_bags():
    """Of random bag lengths 0 to 4, those with an empty bag were cut at the wrong places."""
    embedding = one_rank(TableConfig("t", 50, embedding_dim=3, combiner="sum", features=("f",)), hotness={"f": None})
    table = embedding.read_rows(embedding.plan.shards[0], "weights", start=0, stop=50)
    rng = np.random.default_rng(0)
    for lengths in ([3, 0, 2, 4, 3, 3, 2], *(rng.integers(0, 5, 7) for _ in range(20))):
        ids = rng.integers(0, 50, sum(lengths))
        bags = np.split(ids, np.cumsum(lengths)[:-1])
        found = result(embedding, {"f": (ids, np.array(lengths))}).numpy()
        np.testing.assert_allclose(found, [table[bag].sum(axis=0) for bag in bags], rtol=1e-6, atol=1e-7)


def test_rows_land_where_they_belong_on_any_number_of_ranks(run_ranks):
    """A table of 24 rows, saved by 2 ranks and loaded by 1 or 3, had 20 and more of its rows elsewhere."""
    table = TableConfig("t", 24, 4)
    for world_size in (1, 2, 3, 5):
        plan = make_plan([table], world_size, row_slice_threshold=1)

        def work(comm, plan=plan):
            embedding = DistributedEmbedding([table], plan, comm=comm, seed=7)
            given = {name: np.arange(24) for name in embedding.global_features}
            return result(embedding, given, global_batch=24).numpy()

        found = np.concatenate(run_ranks(world_size, work))
        if world_size == 1:
            wanted = found
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_gradients_do_not_grow_with_the_number_of_ranks(run_ranks, world_size):
    """Table gradients that were summed over ranks without their share of the mean: a learning rate times the ranks."""
    case = draw(3, world_size, "sgd", False)
    wanted = train_reference(case, 1)[1]
    parts = {}
    for _, mine in run_ranks(world_size, lambda comm: train(case, comm, 1)):
        parts |= mine
    for key, table in assembled(case, parts).items():
        np.testing.assert_allclose(table, wanted[key], rtol=1e-9)


@pytest.mark.parametrize("optimizer", ["adagrad", "rowwise_adagrad", "adam"])
def test_rows_that_a_batch_does_not_name_stay_as_they_are(optimizer):
    """Adam as it is for whole variables goes on moving rows whose gradient is zero."""
    embedding = one_rank(TableConfig("t", 8, 2), Optimizer(optimizer))
    shard = embedding.plan.shards[0]
    for step, ids in enumerate(([1, 2], [2, 3], [3, 3]), 1):
        before = {slot: embedding.read_rows(shard, slot, start=0, stop=8).copy() for slot in embedding.slots}
        lookup = embedding.lookup(embedding.ids({"t": np.array(ids)}))
        embedding.apply_gradient(
            lookup, [tf.ones_like(lookup.vectors[0])], learning_rate=tf.constant(0.1), step=tf.constant(float(step))
        )
        for slot in embedding.slots:
            changed = np.any(embedding.read_rows(shard, slot, start=0, stop=8) != before[slot], axis=1)
            assert set(np.flatnonzero(changed)) == set(ids), slot


def test_ids_out_of_range_are_an_error_and_not_another_tables_row():
    embedding = one_rank(TableConfig("t", 8, 2))
    for bad in (8, -1):
        with pytest.raises(tf.errors.InvalidArgumentError, match="feature 't': its ids must be from 0 to 7"):
            embedding.ids({"t": np.array([0, bad])})
