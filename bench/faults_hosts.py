"""Faults of trainings on several hosts, over Open MPI and over gloo: when everything has ended, and what is left.

    python bench/faults_hosts.py [--faults "link, clock"] [--launchers mpi,gloo] [--hosts 2,3] [--add]

Each line is one small training with a rank on each host. The hosts are namespaces of this machine
(tests/support/hosts), which needs root. A fault strikes the last host or its rank. The seconds count from the fault
until the launcher has ended, and until all processes on all hosts have ended. Then the hosts are healed, and the same
command runs again.
"""

import argparse
import itertools
import json
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from result_file import ROOT, write_result

sys.path.append(str(ROOT / "tests"))
from support.host_faults import FAULTS, Fault, Outcome, run_fault  # noqa: E402
from support.host_job import KEEPALIVE, STALL_TIMEOUT_S  # noqa: E402
from support.hosts import unavailable  # noqa: E402


@dataclass(frozen=True)
class Line:
    """A line of the table.

    Attributes:
      launcher_s: seconds until the launcher had ended; None if it was killed after minutes.
      all_s: seconds until all processes on all hosts had ended; None if some were killed.
      status: exit status of the launcher.
      said: what the job said about the fault.
      resumed_after: step of the checkpoint from which the same command resumed; None if there was no checkpoint to try.
      right: the job did what it must do.
    """

    fault: str
    launcher: str
    hosts: int
    launcher_s: float | None
    all_s: float | None
    status: int | None
    said: str
    resumed_after: int | None
    right: bool


def line_of(name: str, fault: Fault, *, launcher: str, hosts: int, outcome: Outcome) -> Line:
    end = outcome.end
    return Line(
        name,
        launcher,
        hosts,
        launcher_s=end.launcher_s,
        all_s=end.all_s,
        status=end.status,
        said=outcome.said,
        resumed_after=outcome.resumed_after,
        right=not outcome.wrong(fault),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--faults", default="", help="parts of the names of the faults, with commas (all faults)")
    parser.add_argument("--launchers", default="mpi,gloo", help="mpi, gloo or both (mpi,gloo)")
    parser.add_argument("--hosts", default="2", help="numbers of hosts, with one rank each (2)")
    parser.add_argument("--add", action="store_true", help="run only what the JSON file does not have, and keep that")
    parser.add_argument("--json", default=str(Path(__file__).parent / "results" / "faults_hosts.json"))
    arguments = parser.parse_args()
    if reason := unavailable():
        sys.exit(f"faults_hosts.py: {reason}")
    words = [word.strip() for word in arguments.faults.split(",")]
    numbers = [int(number) for number in arguments.hosts.split(",")]
    lines = json.loads(Path(arguments.json).read_text())["lines"] if arguments.add else []
    done = {(line["fault"], line["launcher"], line["hosts"]) for line in lines}
    print(
        f"{'fault':42} {'launcher':8} {'hosts':>5} {'launcher s':>10} {'all s':>7} {'status':>6} {'resumed':>8} "
        f"{'right':>5}  said"
    )
    for hosts, name, launcher in itertools.product(numbers, FAULTS, arguments.launchers.split(",")):
        if (name, launcher, hosts) in done or not any(word in name for word in words):
            continue
        with tempfile.TemporaryDirectory(prefix="faults_hosts_") as folder:
            try:
                outcome = run_fault(FAULTS[name], launcher, Path(folder), hosts=hosts)
            except RuntimeError as error:
                print(f"{name:42} {launcher:8} {hosts:5} not tried: {error}", flush=True)
                continue
            line = line_of(name, FAULTS[name], launcher=launcher, hosts=hosts, outcome=outcome)
            lines.append({key: _without(value, folder) for key, value in asdict(line).items()})
        print(
            f"{name:42} {launcher:8} {hosts:5} {_seconds(line.launcher_s):>10} {_seconds(line.all_s):>7} "
            f"{line.status!s:>6} {line.resumed_after!s:>8} {'yes' if line.right else 'NO':>5}  {line.said[:120]}",
            flush=True,
        )
        if not line.right:
            print(f"WRONG: {outcome.wrong(FAULTS[name])}\n{outcome.end.output[-3000:]}", flush=True)
        settings = {"stall_timeout_s": STALL_TIMEOUT_S, "settings_of_mpirun": " ".join(KEEPALIVE)}
        write_result(arguments.json, {"lines": lines, **settings})
    sys.exit(not all(line["right"] for line in lines))


def _seconds(number: float | None) -> str:
    return "never" if number is None else f"{number:.1f}"


def _without(value: object, folder: str) -> object:
    """The text of a line without the temporary folder; seconds with one digit."""
    if isinstance(value, float):
        return round(value, 1)
    return value.replace(f"{folder}/", "") if isinstance(value, str) else value


if __name__ == "__main__":
    main()
