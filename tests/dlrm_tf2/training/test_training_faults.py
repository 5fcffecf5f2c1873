"""Two ranks under a launcher, and a fault: the job ends by itself, the rank is named, and the same command goes on.

bench/faults_training.py has many such runs, with figures.
"""

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.small_dataset import write_dataset

REPOSITORY = Path(__file__).resolve().parents[3]
FLAGS = """--embedding_dim 8 --bottom_mlp_dims 12,8 --top_mlp_dims 10,1 --batch_size 100 --learning_rate 0.5
    --warmup_steps 0 --print_freq 1 --seed 7 --evals_per_epoch 0 --cpu --max_steps""".split()
PATIENCE_S = 280

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(importlib.util.find_spec("horovod") is None, reason="Horovod is not installed"),
]


@pytest.fixture
def start():
    """Starts two ranks of the program in a process group of their own, which is gone when the test is over."""
    started = []

    def start(folder, launcher, steps, *more):
        horovodrun = [str(Path(sys.executable).parent / "horovodrun"), "-np", "2", f"--{launcher}"]
        oversubscribe = ["--mpi-args=--oversubscribe"] if launcher == "mpi" else []
        started.append(subprocess.Popen(
            [*horovodrun, *oversubscribe, sys.executable, "-m", "dlrm_tf2.dlrm", "--dataset_path", folder / "data",
             *FLAGS, str(steps), "--log_path", folder / "log", *more],
            cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
            env={**os.environ, "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"},
        ))  # fmt: skip
        return started[-1]

    yield start
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def pid_of_rank(rank, folder):
    """The process of a rank of the job that logs into the folder."""
    for process in Path("/proc").iterdir():
        try:
            arguments = (process / "cmdline").read_bytes().split(b"\0")
            variables = (process / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        mine = arguments[1:3] == [b"-m", b"dlrm_tf2.dlrm"] and str(folder / "log").encode() in arguments
        if mine and {f"OMPI_COMM_WORLD_RANK={rank}".encode(), f"HOROVOD_RANK={rank}".encode()} & set(variables):
            return int(process.name)
    raise AssertionError(f"no process of rank {rank}")


def strike(process, folder, number):
    """Sends a signal to rank 1 once ten steps are logged; returns the job's exit status and output."""
    deadline = time.monotonic() + PATIENCE_S
    log = folder / "log"
    while not log.exists() or log.read_text().count('"loss"') < 10:
        assert process.poll() is None and time.monotonic() < deadline, process.stdout.read()
        time.sleep(0.02)
    os.kill(pid_of_rank(1, folder), number)
    output, _ = process.communicate(timeout=PATIENCE_S)
    return process.returncode, output


def losses(folder):
    records = map(json.loads, (folder / "log").read_text().splitlines())
    return [(record["step"], record["loss"]) for record in records if "loss" in record]


@pytest.fixture
def folder(tmp_path):
    write_dataset(tmp_path / "data")
    return tmp_path


@pytest.mark.parametrize("launcher", ["mpi", "gloo"])
def test_a_killed_rank_is_named(folder, launcher, start):
    status, output = strike(start(folder, launcher, 100_000), folder, signal.SIGKILL)
    assert status != 0
    assert re.search(r"rank 0: .*rank 1 is gone; its last activity: \w+", output), output


def test_a_stopped_rank_ends_the_job_after_stall_timeout_s(folder, start):
    status, output = strike(start(folder, "mpi", 100_000, "--stall_timeout_s", "90"), folder, signal.SIGSTOP)
    assert status != 0
    assert re.search(r"no progress for 9\d s .* while training step \d+; rank 1 was last heard of \d+ s ago", output)


def test_a_signal_to_one_rank_stops_all_with_a_checkpoint_and_the_same_command_goes_on(folder, start):
    undisturbed = folder / "undisturbed"
    undisturbed.mkdir()
    (undisturbed / "data").symlink_to(folder / "data")
    whole = start(undisturbed, "mpi", 400)
    assert whole.communicate(timeout=PATIENCE_S)[0] and whole.returncode == 0
    status, output = strike(start(folder, "mpi", 400, "--save_checkpoint_path", folder / "c"), folder, signal.SIGUSR1)
    assert status == 128 + signal.SIGUSR1
    assert re.search(r"dlrm: stopped by SIGUSR1 after step \d+; saved .*/c: the same command resumes", output), output
    process = start(folder, "mpi", 400, "--save_checkpoint_path", folder / "c")
    assert "resumes after step" in process.communicate(timeout=PATIENCE_S)[0]
    assert losses(folder) == losses(undisturbed)
