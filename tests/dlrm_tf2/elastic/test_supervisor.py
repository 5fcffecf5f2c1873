"""What the supervisor does after each end of the ranks, with ranks that have no model (support/elastic_rank.py)."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from dlrm_tf2.elastic import __main__ as program
from dlrm_tf2.elastic import ranks, supervisor

RANK = Path(__file__).resolve().parents[2] / "support" / "elastic_rank.py"


@pytest.fixture
def run(tmp_path, capfd, monkeypatch):
    """`run(scenario, *flags)`: exit status, the ranks of each start, the last lines for the user."""
    monkeypatch.setattr(supervisor, "unreachable", lambda hosts: [])
    monkeypatch.setenv("PYTHONPATH", str(RANK.parents[2]))
    (file := tmp_path / "ranks").touch()

    def run(scenario, *flags):
        file.write_text("")
        command = [sys.executable, str(RANK), "rank", json.dumps(scenario), str(file)]
        launcher = ["--launcher", f"{sys.executable} {RANK} launch"]
        status = program.main([*launcher, "--hosts", "localhost:2,127.0.0.1:1", *flags, *command])
        lines = [json.loads(line) for line in file.read_text().splitlines()]
        starts = {}
        for start, rank, size, lost_step in lines:
            starts.setdefault(start, set()).add((rank, size, lost_step))
        return status, [sorted(starts[start]) for start in sorted(starts)], capfd.readouterr().err

    return run


def of(size, lost_step=None):
    """The ranks of a start."""
    return [(rank, size, lost_step) for rank in range(size)]


ALL_FINISH = {"0": "finishes", "1": "finishes", "2": "finishes"}


def test_a_job_without_faults_ends_with_its_ranks(run):
    assert run({0: ALL_FINISH})[:2] == (0, [of(3)])


def test_after_a_killed_rank_the_others_start_again_without_its_slot(run):
    status, starts, lines = run({0: {"1": "is killed"}, 1: ALL_FINISH})
    assert (status, starts) == (0, [of(3), of(2, 7)])
    assert "elastic: rank 1 on localhost is gone; its last activity: starting (step 7)" in lines


@pytest.mark.long
def test_a_silent_rank_is_lost_and_its_process_is_ended(run):
    status, starts, lines = run({0: {"2": "is stopped"}, 1: ALL_FINISH}, "--silence_s", "5")
    assert (status, starts) == (0, [of(3), of(2, 7)])
    assert "elastic: rank 2 on 127.0.0.1 was last heard of 5 s ago (step 7)" in lines


def test_a_host_that_cannot_be_reached_is_left_out_with_all_its_ranks(run, monkeypatch):
    answers = iter([[], ["localhost"], []])
    monkeypatch.setattr(supervisor, "unreachable", lambda hosts: next(answers, []))
    status, starts, _ = run({0: {"0": "is killed"}, 1: ALL_FINISH})
    assert (status, starts) == (0, [of(3), of(1, 7)])


@pytest.mark.parametrize("what, reason", [("fails", "the disk is full"), ("hangs", "no progress for 600 s")])
def test_an_error_of_a_rank_ends_the_job_with_its_message(run, what, reason):
    status, starts, lines = run({0: {"1": what}})
    assert (status, starts) == (1, [of(3)])
    assert f"elastic: rank 1 on localhost: {reason}" in lines
    assert "The checkpoint of step 5 is kept: the same command resumes from there." in lines


def test_a_rank_that_misses_another_before_the_supervisor_does_is_no_error(run):
    """A host that lost its power and is back refuses datagrams, while its old connection still seems to be there."""
    status, starts, lines = run({0: dict.fromkeys("012", "misses a rank"), 1: ALL_FINISH})
    assert (status, starts) == (0, [of(3), of(3, 7)])
    assert ": rank 3 on host3 is gone (step 7)" in lines


def test_a_slot_that_comes_back_is_taken_in_at_the_next_checkpoint(run):
    room = {"0": "makes room", "1": "makes room"}
    cooldown = ["--blacklist_cooldown_range", "1", "1"]
    status, starts, lines = run({0: {"2": "is killed"}, 1: room, 2: ALL_FINISH}, *cooldown)
    assert (status, starts) == (0, [of(3), of(2, 7), of(3, 17)])
    assert "elastic: hosts join: " in lines and "for localhost:2,127.0.0.1:1" in lines


def test_the_job_ends_when_too_few_slots_are_left(run):
    status, starts, lines = run({0: {"1": "is killed"}}, "--min_np", "3", "--elastic_timeout", "1")
    assert (status, starts) == (1, [of(3)])
    assert (
        "elastic: 2 ranks can be started, and --min_np is 3; more did not come within 1 s (--elastic_timeout)" in lines
    )


def test_reset_limit_and_losses_in_a_row(run, monkeypatch):
    always = {start: {"0": "is killed"} for start in range(9)}
    at_once = ["--blacklist_cooldown_range", "0", "0"]
    status, starts, lines = run(always, *at_once, "--reset_limit", "1")
    assert (status, len(starts)) == (1, 2)
    assert "elastic: this would be restart 2, and --reset_limit is 1. The checkpoint of step 15 is kept" in lines
    monkeypatch.setattr(ranks.Ranks, "saved_step", property(lambda _: None, lambda *_: None), raising=False)
    monkeypatch.setattr(supervisor, "_MOST_IN_A_ROW", 1)
    status, starts, lines = run(always, *at_once)
    assert (status, len(starts)) == (1, 2)
    assert "elastic: 2 starts in a row have lost a rank before a checkpoint." in lines


def test_ctrl_c_is_passed_on_and_the_job_ends(run, tmp_path):
    def interrupt():
        while len((tmp_path / "ranks").read_text().splitlines()) < 3:
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt).start()
    status, starts, lines = run({})
    assert (status, starts) == (130, [of(3)])
    assert "elastic: SIGINT: the ranks save a checkpoint and end; a second signal ends them at once" in lines


def test_the_ranks_end_when_the_supervisor_is_killed(tmp_path):
    (file := tmp_path / "ranks").touch()
    job = subprocess.Popen(
        [sys.executable, "-m", "dlrm_tf2.elastic", "--launcher", f"{sys.executable} {RANK} launch", "-H", "localhost:2",
         sys.executable, RANK, "rank", "{}", file],
        cwd=RANK.parents[2], env={**os.environ, "PYTHONPATH": str(RANK.parents[2])},
    )  # fmt: skip

    def processes():
        commands = [command for command in Path("/proc").glob("[0-9]*/cmdline") if command.exists()]
        return [command for command in commands if str(file).encode() in _content(command)]

    try:
        while len(file.read_text().splitlines()) < 2:
            time.sleep(0.05)
    finally:
        job.kill()
        job.wait()
    while processes():  # the test's time limit ends a loop that does not end
        time.sleep(0.05)


def _content(path):
    try:
        return path.read_bytes()
    except OSError:
        return b""


def test_a_launcher_that_starts_no_rank_ends_the_job(run):
    status, starts, lines = run({}, "--launcher", "false")
    assert (status, starts) == (1, [])
    assert "elastic: the launcher ended with status 1 before a rank of a training had connected." in lines


@pytest.mark.parametrize("flags, complaint", [
    ([], "give either -H HOST:SLOTS,... or --host_discovery_script FILE"),
    (["-H", "a:1:2", "x"], "-H a:1:2: found 'a:1:2', expected a host and its slots such as host1:4"),
    (["-H", "a:1"], "the program is missing: put it behind the flags"),
    (["-H", "a:1", "--min-np", "0", "x"], "--min_np is 0; it must be at least 1"),
    (["-H", "a:1", "--min_np", "3", "--max_np", "2", "x"], "--max_np 2 is less than --min_np 3"),
    (["-H", "a:1", "--launcher", "no-such-launcher -x", "x"], "--launcher no-such-launcher -x: is not a program in"),
    (["-H", "a:1", "--blacklist_cooldown_range", "5", "4", "x"], "--blacklist_cooldown_range 5 4: expected seconds"),
    (["-H", "a:1", "--silence_s", "1", "x"], "--silence_s is 1; it must be at least 5"),
    (["--host_discovery_script", "exit 4", "x"], "--host_discovery_script exit 4: exit status 4: it prints no reason"),
])  # fmt: skip
def test_flags_that_make_no_sense_are_refused(flags, complaint, capfd):
    assert program.main(["--launcher", "false", *flags]) == 1
    assert f"elastic: {complaint}" in capfd.readouterr().err
