import pytest

from criteo_prep.machine import Processors
from dlrm_tf2.runtime.cores import idle_processors, threads_of_rank


@pytest.mark.parametrize("bound, machine, quota, ranks, share", [
    (32, 32, None, 1, 32),
    (32, 32, None, 4, 8),  # not bound: they share
    (1, 32, None, 2, 1),  # mpirun's default for two ranks: a core each
    (16, 32, None, 8, 4),  # bound to a socket, which four ranks share
    (8, 32, None, 4, 8),  # bound to their own
    (2, 2, None, 3, 1),
    (32, 32, 6.5, 2, 3),
    (32, 32, 0.5, 2, 1),
])  # fmt: skip
def test_share_of_a_rank(bound, machine, quota, ranks, share):
    assert threads_of_rank(Processors(bound, machine, quota), ranks) == share


def test_cores_that_the_launcher_leaves_without_work():
    assert idle_processors(Processors(1, 32), 2) == 30
    assert idle_processors(Processors(8, 32), 4) == idle_processors(Processors(32, 32), 4) == 0
    assert idle_processors(Processors(1, 32), 1) == 0  # a user's own binding
