"""The speed of the network is one number for all ranks; on one host there is none."""

import pytest

from dlrm_tf2.runtime.comm import SingleProcess
from dlrm_tf2.runtime.network import gbit_of_hosts


@pytest.mark.parametrize("world_size, local_size", [(2, 1), (4, 2), (6, 2)])
def test_all_ranks_know_the_same_number(run_ranks, world_size, local_size):
    def measure(comm):
        comm.local_size, comm.local_rank = local_size, comm.rank % local_size
        return gbit_of_hosts(comm)

    first, *others = run_ranks(world_size, measure)
    assert first > 0 and others == [first] * (world_size - 1)


def test_one_host_has_no_network(run_ranks):
    assert run_ranks(2, gbit_of_hosts) == [None, None] and gbit_of_hosts(SingleProcess()) is None


def test_ranks_that_are_not_numbered_host_by_host_have_no_number(run_ranks):
    def measure(comm):
        comm.local_size, comm.local_rank = 2, comm.rank // 2
        return gbit_of_hosts(comm)

    assert run_ranks(4, measure) == [None] * 4


def test_hosts_with_different_numbers_of_ranks_have_no_number(run_ranks):
    def measure(comm):
        comm.local_size, comm.local_rank = (1, 0) if comm.rank == 0 else (2, comm.rank - 1)
        return gbit_of_hosts(comm)

    assert run_ranks(3, measure) == [None] * 3
