"""Fault runs of the trainer: kill -9, SIGTERM, a stalled process, a full disk; then the same command until it ends.

    python bench/faults_training.py [--runs 20] [--seed 0] [--launcher mpi|gloo]

Every run trains a small model on a small dataset. A fault strikes it after a random step, sometimes while it is still
starting. Then the same command runs until it finishes. A run counts as equal if the losses of all its steps and its
last AUC have the same bits as in an undisturbed run with the same number of ranks. The full disk is a tmpfs in a new
mount namespace (unshare); it is left out where namespaces are not allowed.
"""

import argparse
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from result_file import write_result

ROOT = Path(__file__).resolve().parent.parent
DLRM = """--cpu --embedding_dim 8 --bottom_mlp_dims 32,8 --top_mlp_dims 32,1 --batch_size 256 --valid_batch_size 4096
    --optimizer adagrad --learning_rate 0.05 --warmup_steps 20 --seed 1 --shuffle window --shuffle_window 4096
    --epochs 2 --print_freq 1 --checkpoint_every 20 --log_path log --save_checkpoint_path""".split()
STEPS = 314  # 2 epochs of 40,000 samples
STALL_TIMEOUT_S = 20  # the first step, which is compiled, must not take longer
PATIENCE_S = 300  # for one run of the program
MARK = "FAULTS_TRAINING_RUN"
_SHELL_ON_A_SMALL_DISK = """
set -e
mkdir {disk}
mount -t tmpfs -o size={size} tmpfs {disk}
set +e
{command} ; echo "exit $?"
cp -r {disk} {after_the_first}
mount -o remount,size=1G {disk}
{command} ; echo "exit $?"
"""


@dataclass
class Trial:
    """The result of one run that a fault struck.

    Attributes:
      fault: name of the fault.
      ranks: ranks of the run.
      step: steps logged before the fault.
      seconds_to_end: seconds from the fault until all processes had ended; None if they had to be killed.
      message: the program's line about the fault; "" if there was none.
      resumed_after: step of the checkpoint that the next run resumed from; None if it started from the beginning.
      equal: losses and AUC equal those in the undisturbed run.
    """

    fault: str
    ranks: int
    step: int
    seconds_to_end: float | None
    message: str
    resumed_after: int | None
    equal: bool


class Bench:
    """The runs in a folder; `launcher` is "mpi" or "gloo", the transport of horovodrun."""

    def __init__(self, folder: Path, launcher: str, seed: int):
        self.folder, self._launcher, self.random = folder, launcher, random.Random(seed)
        subprocess.run(
            [
                sys.executable,
                "-m",
                "criteo_prep",
                "synthesize",
                "--preset",
                "criteo_t15",
                "--scale",
                "0.00002",
                "--num_samples",
                "40000",
                "--num_test_samples",
                "4000",
                "--labels",
                "teacher",
                "--quiet",
                "--dst",
                str(folder / "set"),
            ],
            check=True,
            cwd=ROOT,
        )

    def command(self, ranks: int, name: str, *more: str, save: Path | None = None) -> list[str]:
        launcher = []
        if ranks > 1:
            launcher = [
                str(Path(sys.executable).parent / "horovodrun"),
                "-np",
                str(ranks),
                f"--{self._launcher}",
                *(["--mpi-args=--oversubscribe"] if self._launcher == "mpi" else []),
            ]
        return [
            *launcher,
            sys.executable,
            "-m",
            "dlrm_tf2.dlrm",
            "--dataset_path",
            str(self.folder / "set"),
            *DLRM,
            str(save or self.folder / name / "checkpoint"),
            "--log_path",
            str(self.folder / name / "log"),
            *more,
        ]

    def start(self, ranks: int, name: str, *more: str) -> subprocess.Popen:
        """Starts the program in a process group of its own; its output goes to a file."""
        (self.folder / name).mkdir(exist_ok=True)
        with open(self.folder / name / "output", "w") as output:
            return subprocess.Popen(
                self.command(ranks, name, *more),
                cwd=ROOT,
                env=_environment(name),
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def run(self, ranks: int, name: str, *more: str) -> subprocess.CompletedProcess:
        return self.wait(self.start(ranks, name, *more), name)

    def wait(self, process: subprocess.Popen, name: str) -> subprocess.CompletedProcess:
        """Waits until all processes of a run have ended. Kills one that does not; the return code is then None."""
        deadline = time.perf_counter() + PATIENCE_S
        while (process.poll() is None or ranks_of(name)) and time.perf_counter() < deadline:
            time.sleep(0.05)
        code = process.poll() if not ranks_of(name) else None
        for pid in ranks_of(name).values():
            os.kill(pid, signal.SIGKILL)
        process.wait()
        return subprocess.CompletedProcess(process.args, code, (self.folder / name / "output").read_text())

    def undisturbed(self, ranks: int) -> list:
        """The results of an undisturbed run on `ranks` ranks, which runs at the first call."""
        name = f"undisturbed_{ranks}"
        if not (self.folder / name).exists():
            done = self.run(ranks, name)
            if done.returncode:
                sys.exit(f"faults_training.py: the undisturbed run on {ranks} ranks failed:\n{done.stdout}")
        return self.results(name)

    def results(self, name: str) -> list:
        """The numbers that must be equal: (step, loss) of every step, (step, AUC) of every evaluation."""
        records = [json.loads(line) for line in (self.folder / name / "log").read_text().splitlines()]
        return [(record["step"], record.get("loss"), record.get("auc")) for record in records if "step" in record]

    def strike(self, ranks: int, fault: str, what: Callable[[int], None], message: str, *more: str) -> Trial:
        """A run that the fault `what` strikes, and the runs after it until one finishes.

        Args:
          what: the fault, called with the process id of one rank.
          message: pattern of the line that the program prints about the fault; "" for none.
          more: flags of the first run.
        """
        name = "struck"
        shutil.rmtree(self.folder / name, ignore_errors=True)
        process = self.start(ranks, name, *more)
        step = self._reach(process, name, self.random.randint(-STEPS // 8, STEPS - 20))
        start = time.perf_counter()
        for pid in list(ranks_of(name).values())[self.random.randrange(ranks) :][:1]:
            what(pid)
        struck = self.wait(process, name)
        seconds = time.perf_counter() - start if struck.returncode is not None else None
        line = next((line for line in struck.stdout.splitlines() if message and re.search(message, line)), "")
        resumed_after = None
        for _ in range(5):
            done = self.run(ranks, name)
            if match := re.search(r"unfinished run.* after step (\d+)", done.stdout):
                resumed_after = int(match[1])
            if done.returncode == 0:
                break
        equal = done.returncode == 0 and self.results(name) == self.undisturbed(ranks)
        if not equal:
            print(f"{fault} after step {step}: NOT EQUAL\n{struck.stdout[-2000:]}\n{done.stdout[-2000:]}")
        return Trial(fault, ranks, step, seconds, re.sub(r"^\[.*?>:", "", line), resumed_after, equal)

    def _reach(self, process: subprocess.Popen, name: str, step: int) -> int:
        """Waits until a step is logged, or for a random time if it is below 0. Returns the last logged step."""
        log, start = self.folder / name / "log", time.perf_counter()
        if step < 0:
            time.sleep(self.random.uniform(0, 8))
        while process.poll() is None and time.perf_counter() - start < PATIENCE_S:
            reached = log.read_bytes().count(b'"loss"') if log.exists() else 0
            if reached >= step and len(ranks_of(name)):
                return reached
            time.sleep(0.01)
        return STEPS

    def full_disk(self) -> Trial | None:
        """A disk with room for one checkpoint but not for two. None where no file system can be mounted."""
        name, disk = "full_disk", self.folder / "disk"
        (self.folder / name).mkdir()
        self.undisturbed(1)
        checkpoint = self.folder / "undisturbed_1" / "checkpoint"
        pages = sum(-(-file.stat().st_size // 4096) for file in checkpoint.rglob("*") if file.is_file())
        command = " ".join(self.command(1, name, save=disk / "checkpoint"))
        after_the_first = self.folder / "after_the_first"
        script = _SHELL_ON_A_SMALL_DISK.format(
            disk=disk, size=int(1.5 * 4096 * pages), command=command, after_the_first=after_the_first
        )
        start = time.perf_counter()
        done = subprocess.run(
            ["unshare", "-m", "-r", "bash", "-c", script],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=_environment(name),
        )
        if "exit" not in done.stdout:
            print("full disk left out: no mount namespace here:", done.stdout.strip()[-200:])
            return None
        first, _, rest = done.stdout.partition("exit 1\n")
        line = next((line for line in first.splitlines() if "No space left" in line), "")
        match = re.search(r"unfinished run.* after step (\d+)", rest)
        equal = "exit 0" in rest and bool(line) and self.results(name) == self.undisturbed(1)
        equal = equal and (after_the_first / "checkpoint" / "manifest.json").exists()
        if not equal:
            print(f"full disk: NOT EQUAL\n{done.stdout[-4000:]}")
        seconds = time.perf_counter() - start
        return Trial("full disk during a save", 1, 0, seconds, line, int(match[1]) if match else None, equal)


def ranks_of(name: str) -> dict[int, int]:
    """Rank -> process id of a run's processes that are alive."""
    found = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                arguments = (folder / "cmdline").read_bytes().split(b"\0")
                variables = dict(v.split(b"=", 1) for v in (folder / "environ").read_bytes().split(b"\0") if b"=" in v)
            except OSError:
                continue
            mine = variables.get(MARK.encode()) == name.encode() and arguments[1:3] == [b"-m", b"dlrm_tf2.dlrm"]
            if mine:
                rank = variables.get(b"OMPI_COMM_WORLD_RANK", variables.get(b"HOROVOD_RANK", b"0"))
                found[int(rank)] = int(folder.name)
    return found


def _environment(name: str) -> dict[str, str]:
    return {**os.environ, MARK: name, "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--runs", type=int, default=20, help="runs with a fault (20)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--launcher", choices=("mpi", "gloo"), default="mpi")
    parser.add_argument("--folder", help="where the temporary files go")
    parser.add_argument("--json", default=str(Path(__file__).parent / "results" / "faults_training.json"))
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="faults_training_", dir=arguments.folder))
    start = time.perf_counter()
    try:
        bench = Bench(folder, arguments.launcher, arguments.seed)
        trials = []
        for number, trial in enumerate(plan_of(arguments.runs), 1):
            if made := trial(bench):
                trials.append(made)
                print(f"{number}: {made}", flush=True)
    finally:
        shutil.rmtree(folder)
    table(trials)
    document = {
        "runs": [vars(trial) for trial in trials],
        "launcher": arguments.launcher,
        "stall_timeout_s": STALL_TIMEOUT_S,
        "seconds": time.perf_counter() - start,
    }
    write_result(arguments.json, json.loads(json.dumps(document).replace(str(folder), "")))
    sys.exit(not all(trial.equal for trial in trials))


def plan_of(runs: int) -> list[Callable[[Bench], Trial | None]]:
    """The fault of each run: mostly kill -9, of the only process and of one of two; some of each other fault."""

    def struck(ranks: int, fault: str, number: signal.Signals, message: str = "", *more: str):
        return lambda bench: bench.strike(ranks, fault, lambda pid: os.kill(pid, number), message, *more)

    stall = ["--stall_timeout_s", str(STALL_TIMEOUT_S)]
    others = [
        struck(1, "SIGTERM", signal.SIGTERM, "stopped by SIGTERM"),
        struck(2, "SIGTERM to one rank", signal.SIGTERM, "stopped by SIGTERM"),
        struck(2, "SIGSTOP of one rank", signal.SIGSTOP, "was last heard of|is gone|no progress|have started", *stall),
        struck(2, "SIGUSR1 to one rank", signal.SIGUSR1, "stopped by SIGUSR1"),
        struck(2, "SIGSTOP of one rank", signal.SIGSTOP, "was last heard of|is gone|no progress|have started", *stall),
        lambda bench: bench.full_disk(),
    ]
    others = others[: max(1, runs * 3 // 10)]
    kills = [struck(1, "kill -9", signal.SIGKILL), struck(2, "kill -9 of one rank", signal.SIGKILL, "is gone|ended by")]
    return [kills[number % 2] for number in range(runs - len(others))] + others


def table(trials: list[Trial]) -> None:
    print(
        f"{'fault':26} {'ranks':>5} {'tried':>6} {'resumed':>8} {'afresh':>6} {'equal':>6} {'said':>5} {'s to end':>9}"
    )
    for fault, ranks in dict.fromkeys((trial.fault, trial.ranks) for trial in trials):
        struck = [trial for trial in trials if (trial.fault, trial.ranks) == (fault, ranks)]
        resumed = sum(trial.resumed_after is not None for trial in struck)
        said, equal = sum(bool(trial.message) for trial in struck), sum(trial.equal for trial in struck)
        longest = max((trial.seconds_to_end or PATIENCE_S) for trial in struck)
        tried, afresh = len(struck), len(struck) - resumed
        print(f"{fault:26} {ranks:5} {tried:6} {resumed:8} {afresh:6} {equal:6} {said:5} {longest:9.1f}")


if __name__ == "__main__":
    main()
