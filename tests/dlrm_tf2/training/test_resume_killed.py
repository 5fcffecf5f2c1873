"""Training processes that are killed (kill -9) at any step, and started again by the same command until they finish."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from support.programs import REPOSITORY, SMALL, horovodrun, needs_horovod
from support.small_dataset import write_dataset

FLAGS = """--learning_rate 0.1 --warmup_steps 0 --print_freq 1 --seed 7 --cpu --optimizer adagrad --shuffle window
    --shuffle_window 700""".split()
_PATIENCE_S = 250
STEPS = 60  # three passes over 2500 samples in batches of 128


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    write_dataset(root, train=2500, test=300)
    return root


def records(log):
    """The whole lines of a log; none while there is no log."""
    with contextlib.suppress(FileNotFoundError):
        return [json.loads(line) for line in log.read_text().splitlines(keepends=True) if line.endswith("\n")]
    return []


def losses(log):
    return [record["loss"] for record in records(log) if "loss" in record]


def evaluations(log):
    return [(record["step"], record["auc"]) for record in records(log) if "test_loss" in record and "step" in record]


class Command:
    """One command, which is run again and again.

    Args:
      folder: for the checkpoint and the log.
      every: steps between two checkpoints.
    """

    def __init__(self, data, folder, every, *more, launcher=()):
        self.log, self.launcher = folder / "log.json", launcher
        self.arguments = [
            *launcher, sys.executable, "-m", "dlrm_tf2.dlrm", "--dataset_path", data, *SMALL, *FLAGS, "--max_steps",
            STEPS, "--eval_every", 25, "--save_checkpoint_path", folder / "saved", "--checkpoint_every", every,
            "--log_path", self.log, *more,
        ]  # fmt: skip

    def run(self, kill_at=None, rank=0):
        """Runs it to its end, or until `rank` is killed at a step. Returns (exit status, what it said)."""
        variables = {**os.environ, "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
        process = subprocess.Popen(
            [str(argument) for argument in self.arguments], cwd=REPOSITORY, env=variables, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        try:
            if kill_at:
                os.kill(self._wait_for(kill_at, rank, process), signal.SIGKILL)
            said = process.communicate(timeout=_PATIENCE_S)[0]
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
        return process.returncode, said

    def _wait_for(self, step, rank, process):
        """The process of a rank, when there is one and the log is as far as that, be it since the run before."""
        deadline = time.monotonic() + _PATIENCE_S
        while True:
            if max((record.get("step", 0) for record in records(self.log)), default=0) >= step:
                ranks = ranks_of(process.pid) if self.launcher else {0: process.pid}
                if rank in ranks:
                    return ranks[rank]
            assert process.poll() is None, process.stdout.read()
            assert time.monotonic() < deadline, "it does not come so far"
            time.sleep(0.005)


def ranks_of(launcher):
    """Rank -> process, of those that a launcher has started."""
    parents, ranks = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
    for process in parents:
        ancestor = process
        while ancestor in parents and ancestor != launcher:
            ancestor = parents[ancestor]
        if ancestor == launcher:
            with contextlib.suppress(OSError):
                variables = Path(f"/proc/{process}/environ").read_bytes().split(b"\0")
                rank = [value for value in variables if value.startswith(b"OMPI_COMM_WORLD_RANK=")]
                command = Path(f"/proc/{process}/cmdline").read_bytes()
                if rank and b"dlrm_tf2.dlrm" in command:
                    ranks[int(rank[0].partition(b"=")[2])] = process
    return ranks


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    """The log of the run that nobody kills."""
    command = Command(data, tmp_path_factory.mktemp("whole"), STEPS)
    status, said = command.run()
    assert status == 0, said
    assert len(losses(command.log)) == STEPS
    return command.log


def killed_and_finished(command, steps, rank=0):
    """Kills the command at each of these steps, then lets it finish."""
    for step in steps:
        status, said = command.run(step, rank)
        assert status != 0, said
    status, said = command.run()
    assert status == 0, said
    assert "saved: holds an unfinished run, which resumes after step" in said
    document = json.loads((command.log.parent / "saved/manifest.json").read_text())["document"]
    assert document["step"] == STEPS and document["run"]["finished"]


def test_killed_in_the_middle_of_anything_one_process_goes_on_bit_for_bit(data, whole, tmp_path):
    """It saves after every second step, so that the kill most likely hits a save."""
    command = Command(data, tmp_path, 2, "--keep_checkpoints", 2, "--keep_best")
    killed_and_finished(command, [random.randint(5, 50)])
    assert losses(command.log) == losses(whole)
    assert evaluations(command.log) == evaluations(whole)
    assert sorted(os.listdir(tmp_path)) == ["log.json", "saved", "saved.best", f"saved.step-{STEPS - 2}"]


@needs_horovod
@pytest.mark.long
def test_a_killed_rank_of_two_ends_the_job_which_goes_on(data, whole, tmp_path):
    command = Command(data, tmp_path, 4, launcher=horovodrun(2))
    killed_and_finished(command, [random.randint(5, 50)], rank=1)
    np.testing.assert_allclose(losses(command.log), losses(whole), rtol=1e-4)


@pytest.mark.long
@pytest.mark.parametrize("asynchronous", [False, True])
def test_one_process_killed_six_times(data, whole, tmp_path, asynchronous):
    command = Command(data, tmp_path, 3, *["--checkpoint_async"][: int(asynchronous)])
    killed_and_finished(command, sorted(random.sample(range(5, STEPS - 10), 6)))
    assert losses(command.log) == losses(whole)
    assert evaluations(command.log) == evaluations(whole)


@needs_horovod
@pytest.mark.long
@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("more", [[], ["--checkpoint_async"]])
def test_either_rank_of_two_killed_three_times(data, whole, tmp_path, rank, more):
    command = Command(data, tmp_path, 3, *more, launcher=horovodrun(2))
    killed_and_finished(command, sorted(random.sample(range(5, STEPS - 10), 3)), rank)
    np.testing.assert_allclose(losses(command.log), losses(whole), rtol=1e-4)
