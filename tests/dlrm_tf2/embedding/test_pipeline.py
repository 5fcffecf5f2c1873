"""The ids of the next batch travel while a batch is computed: at the same time, and with the same bits."""

import threading

import numpy as np
import pytest
import tensorflow as tf

from dlrm_tf2.embedding.id_exchange import ExchangedIds
from dlrm_tf2.embedding.layer import DistributedEmbedding
from dlrm_tf2.embedding.pipeline import Pipeline
from dlrm_tf2.optim import Optimizer
from dlrm_tf2.runtime.comm import SingleProcess
from dlrm_tf2.sharding.plan import Shard, ShardingPlan, samples_of_rank
from dlrm_tf2.sharding.tables import TableConfig

# By route: a whole table with several ids, any number of ids, rows cut in two, rows requested once, and a replica.
TABLES = [
    TableConfig("several", 30, 4),
    TableConfig("any", 20, 4, "mean"),
    TableConfig("by_rows", 24, 4),
    TableConfig("once", 12, 4),
    TableConfig("replica", 5, 2),
]
HOTNESS = {"several": 3, "any": None}
SHARDS = (
    Shard("several", 1, (0, 30), (0, 4)),
    Shard("any", 0, (0, 20), (0, 4)),
    Shard("by_rows", 0, (0, 10), (0, 4)),
    Shard("by_rows", 1, (10, 24), (0, 4)),
    Shard("once", 0, (0, 12), (0, 4)),
)
SIZES = (7, 12, 1, 9, 9, 4)  # of the batches; one sample is fewer than there are ranks


def layer_of(comm, data_parallel_input=True):
    replicas = tuple(Shard("replica", rank, (0, 5), (0, 2)) for rank in range(comm.size))
    return DistributedEmbedding(
        TABLES,
        ShardingPlan(comm.size, (*SHARDS, *replicas), frozenset({"replica"})),
        comm=comm,
        seed=1,
        optimizer=Optimizer("adagrad"),
        hotness=HOTNESS,
        data_parallel_input=data_parallel_input,
        deduplicated=["once"],
    )


def batches_of(layer, comm):
    """The ids of all batches, int32 as a dataset has them."""
    for number, size in enumerate(SIZES):
        rng, given = np.random.default_rng(number), {}
        start, stop = samples_of_rank(size, comm.size, comm.rank)
        for table in TABLES:
            hotness = HOTNESS.get(table.name, 1)
            lengths = rng.integers(0, 4, size) if hotness is None else np.full(size, hotness)
            ids = np.split((rng.random(lengths.sum()) ** 2 * table.num_rows).astype(np.int32), np.cumsum(lengths)[:-1])
            own = ids[start:stop]
            flat = np.concatenate([np.zeros(0, np.int32), *own])
            given[table.name] = flat.reshape(-1, hotness) if hotness else (flat, lengths[start:stop])
        yield tf.nest.map_structure(lambda ids: tf.cast(ids, tf.int32), layer.ids({}, given, global_batch=size))


def training_step(layer):
    def step(ids):
        lookup = layer.lookup(ids)
        with tf.GradientTape() as tape:
            tape.watch(lookup.vectors)
            result = layer.exchange(lookup)
            loss = tf.reduce_sum((result - 0.3) ** 2) / tf.cast(ids.global_ids.num_samples, tf.float32)
        layer.apply_gradient(lookup, tape.gradient(loss, lookup.vectors), learning_rate=0.1)
        return loss

    return step


def tables_of(layer):
    return [
        layer.read_rows(shard, slot, start=shard.rows[0], stop=shard.rows[1]).copy()
        for shard in layer.plan.of_rank(layer.rank)
        for slot in layer.slots
    ]


def train(comm, ahead, left_out=()):
    """(losses, tables) of a rank. The ids of the batches in `left_out` travel, but these batches are not trained on."""
    layer = layer_of(comm)
    pipeline, losses = Pipeline(layer, training_step(layer), inputs=[], ahead=ahead), []
    batches = [ids for ids in batches_of(layer, comm)]
    for number, (ids, next_ids) in enumerate(pipeline.with_next(batches)):
        if number not in left_out:
            losses.append(pipeline(ids, next_ids).numpy())
    return losses, tables_of(layer)


def same(mine, theirs):
    return all(np.array_equal(a, b) for a, b in zip([*mine[0], *mine[1]], [*theirs[0], *theirs[1]], strict=True))


@pytest.mark.parametrize("ranks", [2, 3])
@pytest.mark.parametrize("left_out", [(), (2, 3)])
def test_losses_and_tables_have_the_same_bits(run_ranks, ranks, left_out):
    waiting = run_ranks(ranks, lambda comm: train(comm, False, left_out))
    ahead = run_ranks(ranks, lambda comm: train(comm, True, left_out))
    assert len(set(map(str, ahead[0][0]))) == len(SIZES) - len(left_out)
    assert all(map(same, ahead, waiting))


def test_exchanged_ids_are_looked_up_as_the_ids_are_without_a_graph(run_ranks):
    def work(comm):
        layer = layer_of(comm)
        for ids in batches_of(layer, comm):
            exchanged = layer.exchange_ids(ids)
            assert isinstance(exchanged, ExchangedIds)
            for mine, theirs in zip(layer.lookup(exchanged).vectors, layer.lookup(ids).vectors, strict=True):
                np.testing.assert_array_equal(mine, theirs)
        return True

    assert run_ranks(2, work) == [True, True]


class Together:
    """A Comm of one rank in which, after the first exchange of ids, ids and vectors are under way at the same time.

    Ids do not arrive before the gradients of the vectors leave, and the vectors do not leave before the ids do.
    """

    def __init__(self, comm):
        self._comm, self.rank, self.size, self.allgather_object = comm, comm.rank, comm.size, comm.allgather_object
        self.local_rank, self.local_size = comm.local_rank, comm.local_size
        self._lock, self._count = threading.Lock(), {}
        self._ids_leave, self._gradients_leave = threading.Event(), threading.Event()
        self.met: list[bool] = []

    def alltoall(self, rows, splits, name):
        def reached(rows):
            with self._lock:
                self._count[name] = number = self._count.get(name, 0) + 1
            if name == "embedding.ids" and number == 2:
                self._ids_leave.set()
            elif name == "embedding.vectors" and number == 1:
                self.met.append(self._ids_leave.wait(60))
            elif name == "embedding.vector_gradients" and number == 1:
                self._gradients_leave.set()
            return rows

        def arrived(rows):
            if name == "embedding.ids" and self._count[name] == 2:
                self.met.append(self._gradients_leave.wait(60))
            return rows

        sent = tf.ensure_shape(tf.numpy_function(reached, [rows], rows.dtype, stateful=False), rows.shape)
        received, counts = self._comm.alltoall(sent, splits, name)
        received = tf.numpy_function(arrived, [received], rows.dtype, stateful=False)
        return tf.ensure_shape(received, [None, *rows.shape[1:]]), counts


def test_ids_travel_from_before_the_vectors_to_after_their_gradients(run_ranks):
    def work(comm):
        together = Together(comm)
        layer = layer_of(together)
        pipeline = Pipeline(layer, training_step(layer), inputs=[], ahead=True)
        first, second, *_ = batches_of(layer, comm)
        pipeline(first, second)
        return together.met

    assert run_ranks(2, work) == [[True, True]] * 2


def test_no_ids_go_ahead_where_none_travel(run_ranks):
    def pairs(comm, data_parallel_input, ahead=True):
        layer = layer_of(comm, data_parallel_input)
        return list(Pipeline(layer, training_step(layer), inputs=[], ahead=ahead).with_next("abc"))

    alone = [("a", None), ("b", None), ("c", None)]
    assert run_ranks(2, lambda comm: pairs(comm, True)) == [[("a", "b"), ("b", "c"), ("c", None)]] * 2
    assert run_ranks(2, lambda comm: pairs(comm, True, False)) == [alone] * 2
    assert run_ranks(2, lambda comm: pairs(comm, False)) == [alone] * 2
    one_rank = DistributedEmbedding(
        TABLES[4:], ShardingPlan(1, (Shard("replica", 0, (0, 5), (0, 2)),)), comm=SingleProcess(), seed=1
    )
    assert list(Pipeline(one_rank, one_rank.lookup, inputs=[], ahead=True).with_next("abc")) == alone
