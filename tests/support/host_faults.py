"""The faults of a job on several hosts: what each one does, and what the job must do then."""

import contextlib
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from support.host_job import PATIENCE_S, End, HostJob
from support.hosts import Hosts
from support.hosts.host import REPOSITORY
from support.small_dataset import write_dataset

_MANY = 1_000_000
_OLD_TENSORFLOW = """shift 3; exec python -c "import tensorflow as tf; tf.__version__ = '2.17.0'; import runpy; \\
runpy.run_module('dlrm_tf2.dlrm', run_name='__main__', alter_sys=True)" "$@" """


def _nothing(*_: object) -> None:
    pass


@dataclass(frozen=True)
class Fault:
    """A fault on the last host, unless it says otherwise.

    Attributes:
      says: pattern of the line about it; "" if the job goes on and need not say anything.
      prepare: called with (hosts, folder) before the job starts.
      strike: called with (hosts, folder) after ten steps; None for a fault that is there from the start.
      heal: called with (hosts, folder) before the same command resumes the job.
      gloo_timeout_s: of horovodrun --gloo.
      on_last_rank: shell commands that the last rank runs before its program.
      steps: last step of the training.
      goes_on: the job must finish in spite of the fault.
      saves: there is a checkpoint, and the same command must resume from it.
      more: further flags.
    """

    says: str
    prepare: Callable = _nothing
    strike: Callable | None = None
    heal: Callable = _nothing
    gloo_timeout_s: int = 30
    on_last_rank: str = ""
    steps: int = _MANY
    goes_on: bool = False
    saves: bool = True
    more: tuple = ()


@dataclass(frozen=True)
class Outcome:
    """What a job did.

    Attributes:
      end: how it ended.
      said: the line about the fault.
      resumed_after: step of the checkpoint that the same command resumed from; None if it did not, or was not tried.
      saved: step of the checkpoint at the end; None without a checkpoint.
      runs_on: a process that was stopped did not end by itself when it was continued.
    """

    end: End
    said: str
    resumed_after: int | None
    saved: int | None
    runs_on: bool

    def wrong(self, fault: Fault) -> str:
        """What the job did not do that it must do in spite of the fault; "" if it did everything."""
        complaints = {
            "it has not ended by itself": self.end.all_s is None,
            f"its exit status is {self.end.status}": (self.end.status == 0) is not fault.goes_on,
            f"its last checkpoint is of step {self.saved}": fault.goes_on and self.saved != fault.steps,
            "it does not say why": bool(fault.says) and not self.said,
            "a process that was stopped runs on": self.runs_on,
            "the same command did not resume it": fault.saves and not fault.goes_on and self.resumed_after is None,
        }
        return "; ".join(complaint for complaint, holds in complaints.items() if holds)


def run_fault(fault: Fault, launcher: str, folder: Path, hosts: int = 2) -> Outcome:
    """Runs a job of a rank on each host that the fault strikes, heals the hosts, and runs the same command again.

    Raises:
      RuntimeError: the job ended before the fault.
    """
    (folder / "log").mkdir()
    write_dataset(folder / "data")
    with shared_disk(folder / "shared"), Hosts(hosts) as hosts:
        job = HostJob(
            hosts,
            folder,
            launcher=launcher,
            gloo_timeout_s=fault.gloo_timeout_s,
            steps=fault.steps,
            on_last_rank=fault.on_last_rank.replace("{folder}", str(folder)),
            more=fault.more,
        )
        fault.prepare(hosts, folder)
        job.start()
        since = job.began
        if fault.strike:
            if not job.reach(lambda: job.steps() >= 10 and (fault.goes_on or hosts[0].seen(job.checkpoint).exists())):
                raise RuntimeError(f"the job did not reach the fault: {job.end(since, 1).output}")
            since = time.monotonic()
            fault.strike(hosts, folder)
        end = job.end(since, PATIENCE_S)
        saved = job.saved_step()
        fault.heal(hosts, folder)
        runs_on = not job.continued_ends()
        resumed = job.resumed_after() if fault.saves and not fault.goes_on else None
        return Outcome(end, end.line(fault.says) if fault.says else "", resumed, saved, runs_on)


@contextlib.contextmanager
def shared_disk(path: Path):
    """A file system of its own at `path`, which hosts that start later share."""
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", path], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", path], check=True)


def _fill(path: Path) -> Callable:
    def fill(hosts: Hosts, folder: Path) -> None:
        hosts[0].run(["dd", "if=/dev/zero", f"of={folder / path}", "bs=64k"])

    return fill


def _other_data(hosts: Hosts, folder: Path) -> None:
    write_dataset(folder / "other", seed=1)
    hosts[len(hosts) - 1].private_folder(folder / "data")
    hosts[len(hosts) - 1].check(["cp", "-r", f"{folder}/other/.", folder / "data"])


def _no_data(hosts: Hosts, folder: Path) -> None:
    hosts[len(hosts) - 1].private_folder(folder / "data")


def _older_checkout(hosts: Hosts, folder: Path) -> None:
    for package in ("dlrm_tf2", "criteo_prep"):
        shutil.copytree(REPOSITORY / package, folder / "older" / package, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "older" / "dlrm_tf2" / "optim.py").open("a").write("# older\n")


def _own_disks(hosts: Hosts, folder: Path) -> None:
    for host in hosts:
        host.private_folder(folder / "shared")


def _last(method: str, *arguments: object) -> Callable:
    return lambda hosts, folder: getattr(hosts[len(hosts) - 1], method)(*arguments)


def _link(method: str, **arguments: object) -> Callable:
    return lambda hosts, folder: getattr(hosts.link(len(hosts) - 1), method)(**arguments)


def _signal_rank(name: str) -> Callable:
    rank = "^[^ ]*python[^ ]* -m dlrm_tf2.dlrm"
    return lambda hosts, folder: hosts[len(hosts) - 1].run(["pkill", f"-{name}", "-f", rank])


_RANK = r"rank \d+ on host\d+"
_GONE = rf"{_RANK} (is gone|was last heard of|failed)"
FAULTS = {
    "a rank is killed": Fault(_GONE, strike=_signal_rank("KILL")),
    "a rank is stopped": Fault(_GONE, strike=_signal_rank("STOP"), heal=_signal_rank("CONT")),
    "all processes of a host are killed": Fault(_GONE, strike=_last("kill_processes"), heal=_last("start_sshd")),
    "a host loses power": Fault(_GONE, strike=_last("power_off"), heal=_last("power_on")),
    "a link is down": Fault(_GONE, strike=_link("cut"), heal=_link("restore")),
    "a link loses 5 %": Fault("", strike=_link("shape", loss="5%"), steps=60, goes_on=True),
    "a link has a delay of 200 ms": Fault(
        "", strike=_link("shape", direction="out", delay="200ms"), steps=30, goes_on=True
    ),
    "a host has no sshd before the start": Fault("ssh.*host", prepare=_last("stop_sshd"), saves=False),
    "a host is not reached before the start": Fault("ssh.*host", prepare=_link("cut"), saves=False),
    "a host has no sshd after the start": Fault("", strike=_last("stop_sshd"), steps=60, goes_on=True),
    "the disk of the checkpoint is full": Fault(
        r"No space left", strike=_fill("shared/fill"), heal=lambda hosts, folder: (folder / "shared/fill").unlink()
    ),
    "the disk of the log is full": Fault(
        r"log.*(No space left|full)",
        prepare=lambda hosts, folder: hosts[0].private_folder(folder / "log", "8k"),
        steps=200,
        goes_on=True,
    ),
    "a clock is an hour ahead": Fault("", prepare=_last("set_clock", 3600), steps=60, goes_on=True),
    "a clock is an hour behind": Fault("", prepare=_last("set_clock", -3600), steps=60, goes_on=True),
    "a rank starts a minute late": Fault(
        "",
        gloo_timeout_s=120,
        on_last_rank="sleep 60",
        steps=60,
        goes_on=True,
        more=("--stall_timeout_s", "120"),
    ),
    "a rank starts too late": Fault(
        "not all ranks have started after 20 s", on_last_rank="sleep 60", saves=False, more=("--stall_timeout_s", "20")
    ),
    "the model diverges": Fault("is not finite|the loss is", saves=False, more=("--learning_rate", "1e30")),
    "a host has an older checkout": Fault(
        _RANK + ".*program", prepare=_older_checkout, on_last_rank='cd "{folder}/older"', saves=False
    ),
    "a host has another TensorFlow": Fault(_RANK + ".*2.17.0", on_last_rank=_OLD_TENSORFLOW, saves=False),
    "a host has another dataset": Fault(_RANK + ".*dataset", prepare=_other_data, saves=False),
    "a host has no dataset": Fault(_RANK, prepare=_no_data, saves=False),
    "a rank has another flag": Fault(_RANK + ".*batch_size", on_last_rank='set -- "$@" --batch_size 128', saves=False),
    "each host has its own checkpoint folder": Fault(_RANK + ".*shared", prepare=_own_disks, saves=False),
    "a link is down while checkpoints are gathered": Fault(
        _GONE, prepare=_own_disks, strike=_link("cut"), heal=_link("restore"), more=("--checkpoint_gather",)
    ),
}
