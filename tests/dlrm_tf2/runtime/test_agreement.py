"""Work that fails on one rank fails on all ranks, with the reason and the ranks. Ranks are threads here."""

import threading

import pytest

from dlrm_tf2.runtime import agreement
from dlrm_tf2.runtime.agreement import check_same, on_all_ranks, on_rank_0
from dlrm_tf2.runtime.comm import SingleProcess


class Refused(ValueError):
    pass


def raising(error):
    raise error


def test_every_rank_gets_what_all_ranks_have(run_ranks):
    results = run_ranks(3, lambda comm: on_all_ranks(comm, "work", work=lambda: comm.rank**2, error=Refused))
    assert results == [[0, 1, 4]] * 3


def test_every_rank_gets_what_rank_0_has_and_the_others_do_nothing(run_ranks):
    did = []
    results = run_ranks(
        3, lambda comm: on_rank_0(comm, "work", work=lambda: did.append(comm.rank) or "done", error=Refused)
    )
    assert results == ["done"] * 3 and did == [0]


def test_all_ranks_say_which_of_them_failed_and_why(run_ranks):
    errors = {1: Refused("too small"), 2: OSError(28, "No space left on device"), 3: Refused("too small")}

    def work(comm):
        on_all_ranks(comm, "work", work=lambda: comm.rank in errors and raising(errors[comm.rank]), error=Refused)

    results = run_ranks(4, work)
    assert [type(error) for error in results] == [Refused] * 4
    assert {str(error) for error in results} == {
        "rank 1, 3: too small\nrank 2: OSError: [Errno 28] No space left on device"
    }
    assert [error.__cause__ for error in results] == [None, *errors.values()]


def test_rank_0_is_not_named_where_it_works_for_all(run_ranks):
    results = run_ranks(2, lambda comm: on_rank_0(comm, "work", work=lambda: raising(Refused("no")), error=Refused))
    assert [str(error) for error in results] == ["no"] * 2
    with pytest.raises(Refused, match="^ZeroDivisionError: division by zero$"):
        on_all_ranks(SingleProcess(), "work", work=lambda: 1 / 0, error=Refused)


def test_a_failed_rank_is_named_with_its_host(run_ranks, monkeypatch):
    monkeypatch.setattr(agreement, "this_host", lambda: f"host{threading.current_thread().name}")
    results = run_ranks(2, lambda comm: named_after(comm, lambda: on_all_ranks(
        comm, "work", work=lambda: comm.rank and raising(Refused("no")), error=Refused)))  # fmt: skip
    assert [str(error) for error in results] == ["rank 1 on host1: no"] * 2


def named_after(comm, work):
    threading.current_thread().name = str(comm.rank)
    return work()


def test_values_that_differ_are_named_with_their_ranks(run_ranks):
    def check(of_rank):
        return run_ranks(
            len(of_rank),
            lambda comm: check_same(comm, "same", values=of_rank[comm.rank], error=Refused, advice="Be equal."),
        )

    assert check([{"x": "1", "y": "2"}, {"x": "1"}, {"y": "2"}]) == [None] * 3  # not every rank has every value
    errors = check([{"x": "2", "y": "5"}, {"x": "1", "y": "5"}, {"x": "1", "y": "5"}])
    assert {(type(error), str(error)) for error in errors} == {
        (Refused, "x: 2 on rank 0; 1 on the 2 other ranks\nBe equal.")
    }
    assert str(check([{"x": "1"}, {"x": "2"}])[1]) == "x: 2 on rank 1; 1 on rank 0\nBe equal."
