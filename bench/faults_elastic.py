"""Fault runs of elastic trainings: ranks and hosts are lost and come back at random; each job must finish by itself.

    python bench/faults_elastic.py [--runs 20] [--seed 0]

Each run trains a small model on two or three hosts of one rank, which are namespaces of this machine (support/hosts of
the tests). That needs root. The supervisor is on host0. One or two faults strike each run after random steps: kill -9
of a rank, SIGSTOP of a rank, a host without power, a link that is cut, a host whose processes are killed. Each host
heals after a random time. A run is right if the job ends with status 0, its log has the loss of each step once, and the
position in the data in the last checkpoint is the number of trained samples.
"""

import argparse
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from pathlib import Path

from result_file import ROOT, write_result

sys.path.append(str(ROOT / "tests"))
from support.elastic_job import ElasticJob  # noqa: E402
from support.hosts import Hosts, unavailable  # noqa: E402
from support.small_dataset import write_dataset  # noqa: E402

STEPS, EVERY = 300, 30
SAMPLES, BATCH = 2000, 100
SILENCE_S = 10
PATIENCE_S = 900  # for one run
LAUNCHER = "horovodrun --gloo --gloo-timeout-seconds 600 --network-interface eth0 --disable-cache"
FLAGS = ["--silence_s", SILENCE_S, "--blacklist_cooldown_range", "2", "8",
         "--launcher", LAUNCHER]  # fmt: skip


@dataclass
class Run:
    """One run.

    Attributes:
      number: number of the run, from 0.
      ranks: ranks at the start.
      faults: the faults, each with the last step in the log when it struck.
      restarts: the lines of the log at the restarts, and what each has cost in all.
      right: see the text of this program.
      seconds: of the whole job.
      wrong: what was wrong; "" if nothing was.
    """

    number: int
    ranks: int = 2
    faults: list[str] = field(default_factory=list)
    restarts: list[dict] = field(default_factory=list)
    right: bool = False
    seconds: float = 0.0
    wrong: str = ""


# Fault -> (what strikes host `index`, what heals it).
Fault = tuple[Callable[[Hosts, int], None], Callable[[Hosts, int], None]]
FAULTS: dict[str, Fault] = {
    "kill -9 of a rank": (lambda hosts, index: _signal(hosts, index, "KILL"), lambda hosts, index: None),
    "SIGSTOP of a rank": (lambda hosts, index: _signal(hosts, index, "STOP"), lambda hosts, index: None),
    "a host without power": (
        lambda hosts, index: hosts[index].power_off(),
        lambda hosts, index: hosts[index].power_on(),
    ),
    "a link that is cut": (
        lambda hosts, index: hosts.link(index).cut(),
        lambda hosts, index: hosts.link(index).restore(),
    ),
    "a host's processes": (
        lambda hosts, index: hosts[index].kill_processes(),
        lambda hosts, index: hosts[index].start_sshd(),
    ),
}


def _signal(hosts: Hosts, index: int, name: str) -> None:
    """Sends a signal to the rank on a host; the other processes of its launcher have another command."""
    pattern = f"^{sys.executable} -m dlrm_tf2.dlrm"
    hosts[index].run(["pkill", f"-{name}", "-f", pattern])


def run_once(folder: Path, number: int, seed: int) -> Run:
    (place := folder / str(number)).mkdir()
    (place / "data").symlink_to(folder / "data")
    job, run, choose = ElasticJob(place, steps=STEPS, every=EVERY), Run(number), random.Random(f"{seed} {number}")
    run.ranks = 3 if number % 4 == 1 else 2
    ranks = run.ranks
    names = [list(FAULTS)[(number + 2 * turn) % len(FAULTS)] for turn in range(1 + (number % 7 == 3))]
    began = time.perf_counter()
    with Hosts(3) as hosts:
        process = hosts[0].start(job.command("-H", "host1:1,host2:1" + ",host0:1" * (ranks - 2), *FLAGS))
        try:
            for turn, name in enumerate(names):
                step = choose.randrange(1, 150) + 100 * turn
                _wait(lambda step=step: _last_step(job) >= step, process, began)
                of_ranks = name.endswith("rank")
                index = choose.randrange(0 if of_ranks and ranks == 3 else 1, 3)
                run.faults.append(f"{name}: host{index} after step {_last_step(job)}")
                FAULTS[name][0](hosts, index)
                time.sleep(choose.uniform(0, 8))
                FAULTS[name][1](hosts, index)
            _wait(lambda: process.poll() is not None, None, began)
        except TimeoutError:
            run.wrong = f"not finished after {PATIENCE_S} s"
            process.kill_all()
        process.wait()
    run.seconds = time.perf_counter() - began
    run.restarts = [line | _cost(job, line) for line in job.restarts()]
    run.wrong = run.wrong or _wrong(job, process.returncode)
    run.right = not run.wrong
    if run.wrong:
        shutil.copy(job.output, Path(tempfile.gettempdir()) / f"faults_elastic_{number}.txt")
    shutil.rmtree(place)
    return run


def _last_step(job: ElasticJob) -> int:
    losses = job.losses()
    return losses[-1][0] if losses else 0


def _cost(job: ElasticJob, line: dict) -> dict:
    """The seconds that a restart has cost in all; nothing where the training was lost again before."""
    costs = [record["seconds_lost"] for record in job.records() if record.get("restart") == line["restart"]
             and "seconds_lost" in record]  # fmt: skip
    return {"seconds_lost": costs[0]} if costs else {}


def _wait(condition: Callable[[], bool], process: subprocess.Popen | None, began: float) -> None:
    while not condition() and (process is None or process.poll() is None):
        if time.perf_counter() - began > PATIENCE_S:
            raise TimeoutError
        time.sleep(0.05)


def _wrong(job: ElasticJob, status: int) -> str:
    if status:
        return f"exit status {status}"
    if [step for step, _ in job.losses()] != [*range(1, STEPS + 1)]:
        return "the log does not have each step once"
    if job.data_position() != [STEPS * BATCH // SAMPLES, STEPS * BATCH % SAMPLES]:
        return f"the data's position is {job.data_position()}"
    return ""


def rows_of(runs: list[Run]) -> list[dict]:
    """For each kind of restart: how many, and the median seconds of its parts."""
    kinds: dict[str, list[dict]] = {}
    for run in runs:
        for restart in run.restarts:
            if "seconds_lost" in restart:
                silent = "silent" if "heard of" in restart["reason"] else "gone"
                kinds.setdefault(silent if restart["lost"] else "hosts join", []).append(restart)
    rows = []
    for kind, restarts in kinds.items():
        parts = {name: statistics.median(one[f"{name}_s"] for one in restarts) for name in ("detect", "stop", "start")}
        replay = [one["seconds_lost"] - sum(one[f"{name}_s"] for name in parts) for one in restarts]
        lost = [one["seconds_lost"] for one in restarts]
        rows.append({"restart": kind, "number": len(restarts), **parts, "replay": statistics.median(replay),
                     "lost": statistics.median(lost), "most": max(lost)})  # fmt: skip
    return rows


def print_table(rows: list[dict]) -> None:
    print(
        "{:12} {:>6} {:>7} {:>6} {:>6} {:>7} {:>6} {:>6}".format(
            *"restart number detect stop start replay lost most".split()
        )
    )
    for row in rows:
        restart, number, *seconds = row.values()
        print(f"{restart:12} {number:6} " + "{:7.1f} {:6.1f} {:6.1f} {:7.1f} {:6.1f} {:6.1f}".format(*seconds))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--runs", type=int, default=20, help="runs in all (20); runs that the JSON file has are kept")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--at_once", type=int, default=1, help="runs at the same time (1)")
    parser.add_argument("--json", default=str(Path(__file__).parent / "results" / "faults_elastic.json"))
    arguments = parser.parse_args()
    if reason := unavailable():
        sys.exit(f"faults_elastic.py: {reason}")
    file = Path(arguments.json)
    document = json.loads(file.read_text()) if file.exists() else {}
    same = document.get("seed") == arguments.seed and document.get("steps") == STEPS
    runs = {run["number"]: Run(**run) for run in document["runs"]} if same else {}
    folder = Path(tempfile.mkdtemp(prefix="faults_elastic_"))
    try:
        write_dataset(folder / "data", train=SAMPLES)
        pool = ThreadPoolExecutor(arguments.at_once)
        left = [number for number in range(arguments.runs) if number not in runs]
        for done in as_completed(pool.submit(run_once, folder, number, arguments.seed) for number in left):
            run = done.result()
            runs[run.number] = run
            print(f"{run.number + 1}: {run.wrong or 'right'}, {run.seconds:.0f} s; {run.faults}", flush=True)
            write_result(file, {"seed": arguments.seed, **_document(_in_order(runs))})
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        shutil.rmtree(folder, ignore_errors=True)
        print("stopped; the same command continues", flush=True)
        os._exit(130)  # the hosts end with this process
    shutil.rmtree(folder)
    runs = _in_order(runs)
    right = sum(run.right for run in runs)
    print(f"{right} of {len(runs)} right; {sum(len(run.restarts) for run in runs)} restarts")
    print_table(rows_of(runs))
    sys.exit(right != len(runs))


def _in_order(runs: dict[int, Run]) -> list[Run]:
    return [runs[number] for number in sorted(runs)]


def _document(runs: list[Run]) -> dict:
    return {
        "right": sum(run.right for run in runs), "steps": STEPS, "checkpoint_every": EVERY, "silence_s": SILENCE_S,
        "table": rows_of(runs), "runs": [asdict(run) for run in runs],
    }  # fmt: skip


if __name__ == "__main__":
    main()
