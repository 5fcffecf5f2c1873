"""Work that fails on one rank fails on all ranks, with the reason and the ranks. Ranks are threads here."""

import pytest

from dlrm_tf2.runtime.agreement import on_all_ranks, on_rank_0
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
