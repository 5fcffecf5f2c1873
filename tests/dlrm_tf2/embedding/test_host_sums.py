"""Gradients of replicated rows are added up inside a host before they travel, and all ranks get the same."""

import numpy as np
import pytest
from support.counting_comm import CountingComm
from support.embedding_case import draw
from test_layer import check

from dlrm_tf2.embedding.collectives import Collectives
from dlrm_tf2.embedding.host_sums import HostSums

WIDTH = 3


def drawn(rank, num_rows=40):
    """Some rows, each once, and their gradients; one of the ranks has none."""
    rng = np.random.default_rng(rank)
    rows = rng.choice(num_rows, 0 if rank == 1 else 25, replace=False).astype(np.int64)
    return rows, rng.integers(-9, 9, (len(rows), WIDTH)).astype(np.float64)


@pytest.mark.parametrize("world_size, local_size", [(2, 1), (2, 2), (4, 2), (6, 3), (6, 2)])
def test_all_ranks_get_the_sums_of_all(run_ranks, world_size, local_size):
    expected = np.zeros([40, WIDTH])
    for rank in range(world_size):
        np.add.at(expected, drawn(rank)[0], drawn(rank)[1])

    def work(comm):
        comm = CountingComm(comm, local_size)
        found = HostSums(Collectives(comm)).to_all_ranks(*drawn(comm.rank), "test")
        return [part.numpy() for part in found], sum(comm.sent_bytes.values())

    results = run_ranks(world_size, work)
    for (rows, gradients), _ in results:
        found = np.zeros_like(expected)
        np.add.at(found, rows, gradients)
        assert (found == expected).all()
        assert (rows == results[0][0][0]).all() and (gradients == results[0][0][1]).all()
    for first in range(0, world_size, local_size):
        used = {int(row) for rank in range(first, first + local_size) for row in drawn(rank)[0]}
        sent = sum(num_bytes for _, num_bytes in results[first : first + local_size])
        assert sent == len(used) * (world_size // local_size - 1) * (8 + 8 * WIDTH)


@pytest.mark.parametrize("seed", [4, 20])
@pytest.mark.parametrize("world_size", [4, 6])
def test_ranks_on_two_hosts_train_what_numpy_does(run_ranks, world_size, seed):
    case = draw(seed, world_size)
    assert case.plan.replicated

    def run_on_hosts(size, work):
        return run_ranks(size, lambda comm: work(CountingComm(comm, size // 2)))

    check(case, run_on_hosts, 4)
