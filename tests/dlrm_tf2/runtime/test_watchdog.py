"""A job that makes no progress or has lost a rank ends with a line that names the rank and its activity."""

import threading
import time

import pytest

from dlrm_tf2.job import program
from dlrm_tf2.runtime import watchdog
from dlrm_tf2.runtime.activity import Activity
from dlrm_tf2.runtime.comm import SingleProcess

PATIENCE_S = 30  # seconds that a test waits for a line, which comes much sooner


@pytest.fixture(autouse=True)
def hurry(monkeypatch):
    for name in ("_PERIOD_S", "_GONE_AFTER_S", "_FAILED_AFTER_S", "_SILENT_AFTER_S", "_WARNED_AFTER_S"):
        monkeypatch.setattr(watchdog, name, getattr(watchdog, name) / 5)


class Rank:
    """A watchdog of a rank, the line that it ended with, and its activity."""

    def __init__(self, comm, timeout_s):
        self.line, self.peer_is_lost, self.ended = None, None, threading.Event()
        self.activity = Activity()
        self.activity.begin("training step 1")
        self.watchdog = watchdog.Watchdog(comm, timeout_s, end=self.end, activity=self.activity).__enter__()

    def end(self, line, peer_is_lost):
        self.line, self.peer_is_lost = line, peer_is_lost
        self.ended.set()

    def works_until(self, event):
        """Makes progress until the event is set."""
        while not event.wait(0.05):
            self.activity.begin(f"training step {self.activity.count + 1}")

    def vanishes(self):
        """Ends as a killed process does, for the other ranks."""
        self.watchdog._ending.set()
        self.watchdog._thread.join()
        self.watchdog._socket.close()


def test_stall_timeout_s_of_a_process_that_hangs():
    rank = Rank(SingleProcess(), timeout_s=0.2)
    rank.activity.begin("waiting for the data of step 8")
    assert rank.ended.wait(PATIENCE_S)
    assert rank.line.endswith("s (--stall_timeout_s 0.2) while waiting for the data of step 8")
    assert rank.line.startswith("no progress for ") and rank.peer_is_lost is False


def test_stall_timeout_s_while_the_ranks_join():
    lines, ended = [], threading.Event()
    with watchdog.joining(rank=1, timeout_s=0.05, end=lambda line, _: (lines.append(line), ended.set())):
        assert ended.wait(PATIENCE_S)
    assert lines == ["rank 1: not all ranks have started after 0.05 s (--stall_timeout_s 0.05)"]


@pytest.mark.parametrize("stall_timeout_s", [0, 600])
def test_gloo_waits_for_a_late_rank_no_longer_than_its_own_time(stall_timeout_s):
    lines, ended = [], threading.Event()

    def end(line, _):
        lines.append(line)
        ended.set()

    with watchdog.joining(1, stall_timeout_s, end=end, gloo_timeout_s=1):
        assert ended.wait(PATIENCE_S)
    assert lines == ["rank 1: not all ranks have started after 0.5 s (horovodrun --gloo-timeout-seconds 1)"]


def test_ranks_that_have_joined_in_time_or_may_take_any_are_left_alone():
    lines = []
    with watchdog.joining(rank=1, timeout_s=0.2, end=lambda line, _: lines.append(line)):
        pass
    with watchdog.joining(rank=1, timeout_s=0, end=lambda line, _: lines.append(line)):
        time.sleep(0.4)
    assert lines == []


def test_stall_timeout_s_0_and_progress_are_left_alone():
    patient, busy = Rank(SingleProcess(), timeout_s=0), Rank(SingleProcess(), timeout_s=0.5)
    over = threading.Timer(1.2, lambda: None)
    over.start()
    busy.works_until(over.finished)
    for rank in (patient, busy):
        rank.watchdog.__exit__(None)
        assert rank.line is None


def test_the_rank_that_is_behind_is_named_by_the_others(run_ranks):
    def work(comm):
        rank = Rank(comm, timeout_s=1.0)
        rank.activity.begin("waiting for the data of step 2")
        if comm.rank != 1:
            rank.activity.begin("training step 2")
        assert rank.ended.wait(PATIENCE_S)
        return rank.line

    lines = run_ranks(3, work)
    for rank in (0, 2):
        assert lines[rank].startswith(f"rank {rank}: no progress for ") and "while training step 2; " in lines[rank]
    assert all("; rank 1 is behind: waiting for the data of step 2 for " in line for line in lines)


def test_ranks_that_wait_for_one_that_works_are_left_alone(run_ranks):
    """For example while one rank saves more than the others."""

    def work(comm):
        rank = Rank(comm, timeout_s=0.6)
        for _ in range(15):
            time.sleep(0.1)
            if comm.rank == 1:
                rank.activity.since = time.monotonic()
        rank.watchdog.__exit__(None)
        return rank.line

    assert run_ranks(2, work) == [None, None]


def test_a_rank_that_is_not_heard_of_any_more_is_named(run_ranks):
    """For example when the rank is stopped or its machine is gone: the only sign is silence."""
    stopped = threading.Event()

    def work(comm):
        rank = Rank(comm, timeout_s=2.0)
        if comm.rank == 1:
            time.sleep(0.4)  # long enough to be heard of once
            rank.watchdog._ending.set()
            rank.watchdog._thread.join()
            stopped.wait(PATIENCE_S)
            return None
        assert rank.ended.wait(PATIENCE_S)
        left = rank.watchdog.who_left(0)
        stopped.set()
        assert rank.peer_is_lost is True
        return rank.line, left

    line, left = run_ranks(2, work)[0]
    assert left.startswith("rank 1 was last heard of ")  # explains a time-out of the exchange with the rank
    assert "while training step 1; rank 1 was last heard of " in line and line.endswith("training step 1")


def test_silence_is_reported_once_before_the_job_ends_with_the_host(run_ranks, monkeypatch):
    """A launcher may end the job before --stall_timeout_s, and names no rank."""
    lines, over = [], threading.Event()
    monkeypatch.setattr(watchdog.terminal, "warn", lines.append)
    monkeypatch.setattr(watchdog, "this_host", lambda: threading.current_thread().name)

    def work(comm):
        threading.current_thread().name = f"host{comm.rank}"
        rank = Rank(comm, timeout_s=0)
        if comm.rank == 2:
            time.sleep(0.4)
            rank.watchdog._ending.set()
            rank.watchdog._thread.join()
        else:
            deadline = time.monotonic() + PATIENCE_S
            while not lines and time.monotonic() < deadline:
                time.sleep(0.05)
            time.sleep(0.5)
        over.wait(0.5)
        rank.watchdog._ending.set()

    run_ranks(3, work)
    (line,) = lines
    assert line.startswith("dlrm_tf2: rank 0 on host0: rank 2 on host2 was last heard of 2 s ago, training step 1")


def test_a_job_that_was_stopped_as_a_whole_goes_on(monkeypatch):
    """For example when SLURM suspends it: the time in which this process was stopped does not count."""
    monkeypatch.setattr(watchdog, "_ASLEEP_AFTER_S", 1.0)
    rank = Rank(SingleProcess(), timeout_s=1.5)
    send = rank.watchdog._send
    rank.watchdog._send = lambda doing: (time.sleep(2.0), send(doing), setattr(rank.watchdog, "_send", send))
    assert not rank.ended.wait(2.5)
    assert rank.ended.wait(PATIENCE_S)  # stopped once, and hanging since then


def test_a_rank_that_was_killed_is_named_at_once(run_ranks):
    def work(comm):
        rank = Rank(comm, timeout_s=0)
        if comm.rank == 1:
            rank.activity.begin("saving a checkpoint")
            time.sleep(0.4)
            return rank.vanishes()
        assert rank.ended.wait(PATIENCE_S)
        assert rank.peer_is_lost is True
        return rank.line, rank.watchdog.who_left()

    line, left = run_ranks(2, work)[0]
    assert line == "rank 0: rank 1 is gone; its last activity: saving a checkpoint"
    assert left == "rank 1 is gone; its last activity: saving a checkpoint"


def test_ranks_that_end_one_after_the_other_miss_none(run_ranks):
    def work(comm):
        with_end = Rank(comm, timeout_s=0)
        time.sleep(0.5 * comm.rank)
        with_end.watchdog.__exit__(None)
        time.sleep(0.8)
        return with_end.line

    assert run_ranks(2, work) == [None, None]


def test_a_rank_that_fails_is_named_when_the_exchange_with_it_fails(run_ranks):
    def work(comm):
        rank = Rank(comm, timeout_s=0)
        if comm.rank == 1:
            return rank.watchdog.__exit__(ValueError)
        return rank.watchdog.who_left(PATIENCE_S)

    assert run_ranks(2, work)[0] == "rank 1 failed, and its message says why"


@pytest.mark.parametrize(
    "message, who_left, reason",
    [
        (
            "Horovod has been shut down. This was caused by",
            "",
            "the job was ended by another rank: its message says why",
        ),
        (
            "Graph execution error:\n\nRead error: Connection reset by peer",
            "rank 3 is gone",
            "the job was ended by another rank: rank 3 is gone",
        ),
        ("Graph execution error:\n\nout of memory\n\t [[node]]", "", "TensorFlow stopped: out of memory"),
        (
            "Graph execution error:\n\nDetected at node x defined at (most recent):\n  File a, line 9, in b\n\n"
            "OOM when allocating\n\t [[{{node x}}]]\nHint: If you want to see\n [Op:__inference__step_7579]",
            "",
            "TensorFlow stopped: OOM when allocating",
        ),
    ],
)
def test_the_reason_of_a_failed_exchange(message, who_left, reason):
    assert program.reason_of(message, who_left) == reason
