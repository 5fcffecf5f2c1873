"""Ranks are named with their hosts where the job has several hosts."""

from dlrm_tf2.runtime.rank_names import names_of


def test_ranks_of_one_host_and_of_several():
    assert names_of([1, 3], ["a"] * 4) == "rank 1, 3"
    hosts = ["a", "a", "b", "b"]
    assert names_of([3], hosts) == "rank 3 on b"
    assert names_of([0, 2, 3], hosts) == "rank 0 on a and rank 2, 3 on b"
