"""Ranks of a host request rows in common: each row enters the host once, and all ranks train what numpy does."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.counting_comm import CountingComm
from support.dynamic_case import RankOfSetup, Setup
from support.embedding_case import Case, draw, train
from support.numpy_embedding import Sample
from test_layer import check

from dlrm_tf2.embedding import DynamicTableConfig
from dlrm_tf2.embedding.collectives import Collectives
from dlrm_tf2.embedding.relay import Relay
from dlrm_tf2.optim import Optimizer
from dlrm_tf2.sharding.plan import Shard, ShardingPlan, samples_of_rank
from dlrm_tf2.sharding.tables import TableConfig


def requesting(seed, world_size):
    """A case that requests rows once."""
    case = draw(seed, world_size, data_parallel_input=True)
    return replace(case, deduplicated=frozenset(case.hotness))


def on_hosts(run_ranks, num_hosts):
    """run_ranks on so many hosts."""
    return lambda size, work: run_ranks(size, lambda comm: work(CountingComm(comm, size // num_hosts)))


@pytest.mark.parametrize("world_size, num_hosts, seed", [(4, 2, 1), (6, 2, 2), (6, 3, 3), (4, 2, 5)])
def test_ranks_on_hosts_train_what_numpy_does(run_ranks, world_size, num_hosts, seed):
    check(requesting(seed, world_size), on_hosts(run_ranks, num_hosts), 4)


@pytest.mark.long
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 10**9), shape=st.sampled_from([(4, 2), (6, 2), (6, 3), (8, 2)]))
def test_ranks_on_hosts_train_what_numpy_does_many_times(run_ranks, seed, shape):
    world_size, num_hosts = shape
    check(requesting(seed, world_size), on_hosts(run_ranks, num_hosts), 4)


def test_a_row_enters_a_host_once(run_ranks):
    """Two hosts of two ranks. Of each table, a host's ranks ask for its different ids, and both ask for some."""
    tables = tuple(TableConfig(f"t{number}", 30, width) for number, width in enumerate((4, 4, 2)))
    owners = (0, 3, 2)  # hosts 0, 1, 1
    shards = [
        Shard(table.name, rank, (0, 30), (0, table.embedding_dim)) for table, rank in zip(tables, owners, strict=True)
    ]
    names = [table.name for table in tables]
    case = Case(
        tables,
        dict.fromkeys(names, 1),
        weighted=frozenset(),
        plan=ShardingPlan(4, tuple(shards)),
        optimizer=Optimizer("sgd"),
        data_parallel_input=True,
        deduplicated=frozenset(names),
        global_batch=50,
        seed=3,
    )

    def work(comm):
        comm = CountingComm(comm, 2)
        train(case, comm, 1)
        return sum(comm.sent_bytes.values())

    sent = run_ranks(4, work)
    batch, expected, without = case.batch(1)[0], [0, 0], 0
    for table, owner in zip(tables, owners, strict=True):
        host, other, vector = owner // 2, 1 - owner // 2, table.embedding_dim * 8  # bytes, of float64
        of_ranks = [
            set(batch[table.name].ids[slice(*samples_of_rank(50, 4, rank))]) for rank in (2 * other, 2 * other + 1)
        ]
        different = len(set.union(*of_ranks))
        expected[host] += different * vector
        expected[other] += different * (8 + vector)  # numbers of rows, and gradients
        without += sum(map(len, of_ranks)) * (8 + 2 * vector)
    assert [sent[0] + sent[1], sent[2] + sent[3]] == expected
    assert sum(expected) < 0.8 * without  # what the ranks would send if each requested rows for itself


def test_relayed_rows_by_hand(run_ranks):
    """Rank 1 of hosts {0, 1} and {2, 3} relays rows of ranks 1 and 3 for ranks 0 and 1."""
    # By owner: rows of ranks 0, 2, 1 and 3.
    asked = [([], [], [5, 2], [2]), ([8], [], [2], [2, 9]), ([], [], [], []), ([], [], [], [])]

    def work(comm):
        relay = Relay(Collectives(CountingComm(comm, 2)), "test")
        assert relay.owners == [0, 2, 1, 3]
        rows = np.array([row for of_owner in asked[comm.rank] for row in of_owner], np.int64)
        rows, counts, relayed = relay.request(rows, np.array([len(part) for part in asked[comm.rank]], np.int32))
        vectors = relay.vectors(np.stack([rows, counts.numpy().repeat(counts)], axis=1), relayed)
        ones = np.ones([len(vectors), 1], np.float32)
        return [part.numpy().tolist() for part in (rows, counts, vectors, relay.sums(ones, relayed, len(rows)))]

    of_ranks = run_ranks(4, work)
    assert of_ranks[0][:2] == [[8], [1, 0, 0, 0]]
    assert of_ranks[1][:2] == [[5, 2, 2, 9], [0, 2, 0, 2]]
    assert of_ranks[2][:2] == of_ranks[3][:2] == [[], [0, 0, 0, 0]]
    assert of_ranks[0][2] == [[5, 2], [2, 2], [2, 2]]  # what rank 0 asked for, by owner
    assert of_ranks[1][2] == [[8, 1], [2, 2], [2, 2], [9, 2]]
    assert of_ranks[0][3] == [[1]] and of_ranks[1][3] == [[1], [2], [2], [1]]


def test_a_key_enters_a_host_once(run_ranks):
    """Two hosts of two ranks, all of which have the same keys of a dynamic table."""
    table, keys = (
        DynamicTableConfig("t", 4096, embedding_dim=4, combiner="sum", bucket_capacity=64),
        np.arange(100) * 7919,
    )
    case = Setup((table,), {"t": 1}, optimizer=Optimizer("sgd"))

    def work(comm):
        comm = CountingComm(comm, 2)
        rank = RankOfSetup(case, comm)
        rank.train({"t": Sample(np.tile(keys, 4), np.ones(400, int))}, 1)
        of_keys = sum(sent for name, sent in comm.sent_bytes.items() if name.startswith("embedding.keys_"))
        return of_keys, set(rank.stored("t"))

    ranks = run_ranks(4, work)
    sent, owned = ([of_rank[part] for of_rank in ranks] for part in (0, 1))
    on_hosts = [len(owned[0] | owned[1]), len(owned[2] | owned[3])]
    assert sum(on_hosts) == 100 and all(on_hosts)
    for host, own in enumerate(on_hosts):
        # A vector of each own key; and of each other key its request, which is two numbers, and its gradient.
        assert sent[2 * host] + sent[2 * host + 1] == own * 16 + (100 - own) * (16 + 16)
