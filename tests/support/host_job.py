"""A training on several hosts of this machine, as a user starts it, and what a fault does to it."""

import json
import os
import re
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from support.hosts import Hosts

PATIENCE_S = 240
STALL_TIMEOUT_S = 60  # the first step, which is compiled, must not take longer
# Without these settings, only the program notices a host that is gone; docs/cluster.md explains them.
KEEPALIVE = (
    """--mca oob_tcp_keepalive_time 5 --mca oob_tcp_keepalive_intvl 2 --mca oob_tcp_keepalive_probes 6
    --mca plm_rsh_args""".split()
    + ["-o ConnectTimeout=10"]
)
_FLAGS = f"""--cpu --embedding_dim 8 --bottom_mlp_dims 12,8 --top_mlp_dims 10,1 --batch_size 100 --seed 7 --print_freq 1
    --learning_rate 0.5 --warmup_steps 0 --evals_per_epoch 0 --checkpoint_every 20 --intra_op_parallelism 1
    --stall_timeout_s {STALL_TIMEOUT_S}""".split()
# The last rank does something else before its program starts.
_ON_LAST_RANK = """rank=${OMPI_COMM_WORLD_RANK:-$HOROVOD_RANK}
last=$((${OMPI_COMM_WORLD_SIZE:-$HOROVOD_SIZE} - 1))
if [ $rank = $last ]; then %s; fi
exec "$@" """


@dataclass(frozen=True)
class End:
    """How a job ended.

    Attributes:
      launcher_s: seconds until the launcher had ended; None if it had to be killed.
      all_s: seconds until all processes on all hosts had ended, but for stopped ones; None if some had to be killed.
      status: exit status of the launcher.
      output: what the launcher printed.
    """

    launcher_s: float | None
    all_s: float | None
    status: int | None
    output: str

    def line(self, pattern: str) -> str:
        """The first line that matches, without what the launcher puts in front of it; "" if there is none."""
        lines = (re.sub(r"^(\[.*?<std...>:|\[\d+\]<std...>:)", "", line) for line in self.output.splitlines())
        return next((line for line in lines if re.search(pattern, line)), "")


class HostJob:
    """A training with one rank on each host. Its dataset is `folder`/data.

    Args:
      hosts: the hosts; the launcher runs on the first one.
      folder: where the job reads and writes, on all hosts.
      launcher: "mpi" for mpirun, "plain mpi" for mpirun without KEEPALIVE, "gloo" for horovodrun.
      gloo_timeout_s: how long gloo waits for a rank.
      steps: last step of the training.
      on_last_rank: shell commands that the last rank runs first.
      more: further flags of the program.
    """

    def __init__(
        self,
        hosts: Hosts,
        folder: Path,
        *,
        launcher: str,
        gloo_timeout_s: int = 30,
        steps: int,
        on_last_rank: str = "",
        more=(),
    ):
        self._hosts, self.folder, self._process = hosts, folder, None
        self.log, self.checkpoint = folder / "log" / "log.jsonl", folder / "shared" / "checkpoint"
        ranks = len(hosts)
        gloo = [*hosts.horovodrun(ranks, "gloo"), "--gloo-timeout-seconds", gloo_timeout_s]
        starts = {"gloo": gloo, "plain mpi": hosts.mpirun(ranks)}
        start = starts.get(launcher, [*hosts.mpirun(ranks), *KEEPALIVE])
        wrapped = ["bash", "-c", _ON_LAST_RANK % on_last_rank, "rank"] if on_last_rank else []
        program = [sys.executable, "-m", "dlrm_tf2.dlrm", "--dataset_path", folder / "data", *_FLAGS]
        program += ["--max_steps", steps, "--save_checkpoint_path", self.checkpoint, "--log_path", self.log, *more]
        self.command = [*start, *wrapped, *program]

    def start(self) -> None:
        self._output = self.folder / f"output{time.monotonic_ns()}"
        self._networks = [os.stat(f"/proc/{host.pid}/ns/net").st_ino for host in self._hosts]
        self._others, self.began = self._processes(), time.monotonic()
        self._process = self._hosts[0].start(["bash", "-c", f'exec "$@" > {self._output} 2>&1', "job", *self.command])

    @property
    def output(self) -> str:
        return self._output.read_text(errors="replace")

    def steps(self) -> int:
        """How many losses are logged."""
        return self.log.read_text().count('"loss"') if self.log.exists() else 0

    def saved_step(self) -> int | None:
        """Step of the checkpoint; None without one."""
        manifest = self.checkpoint / "manifest.json"
        return json.loads(manifest.read_text())["document"]["step"] if manifest.exists() else None

    def reach(self, condition, patience_s: float = PATIENCE_S) -> bool:
        """Waits until `condition()` is true; False if the job ends, or the time does, before that."""
        waited_s = 0.0
        while not condition():
            if self._process.poll() is not None or waited_s > patience_s:
                return False
            time.sleep(0.05)
            waited_s += 0.05
        return True

    def end(self, since: float, patience_s: float = PATIENCE_S) -> End:
        """Waits until all processes of the job on all hosts have ended; kills them if they do not."""
        launcher_s, all_s, now_s, last = None, None, time.monotonic() - since, time.monotonic()
        while all_s is None and now_s < patience_s:
            time.sleep(0.1)
            last, before = time.monotonic(), last
            now_s += min(1, last - before)  # not the time in which this process and the job are stopped
            if launcher_s is None and self._process.poll() is not None:
                launcher_s = now_s
            if launcher_s is not None and not self._processes() - self._others:
                all_s = now_s
        self.kill()
        return End(launcher_s, all_s, None if launcher_s is None else self._process.returncode, self.output)

    def kill(self) -> None:
        for name in self._processes() - self._others:
            try:
                os.kill(int(name), 9)
            except ProcessLookupError:
                pass
        self._process.wait()

    def resumed_after(self) -> int | None:
        """Runs the same command until it has resumed; the step of its checkpoint. None if it has not resumed."""
        logged = len(self._resumptions())
        self.start()
        self.reach(lambda: len(self._resumptions()) > logged)
        self.kill()
        return next(iter(self._resumptions()[logged:]), None)

    def _resumptions(self) -> list[int]:
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return [json.loads(line)["resumed_step"] for line in lines if '"resumed_step"' in line and line.endswith("}")]

    def continued_ends(self, patience_s: float = 20) -> bool:
        """Whether processes that were stopped, and go on now, end by themselves; kills them if they do not."""
        deadline = time.monotonic() + patience_s
        while self._processes() - self._others:
            if time.monotonic() > deadline:
                self.kill()
                return False
            time.sleep(0.1)
        return True

    def _processes(self) -> set[str]:
        """The processes on the hosts, without sshd, and without processes that are stopped."""
        found = set()
        for process in Path("/proc").glob("[0-9]*"):
            try:
                if os.stat(process / "ns/net").st_ino in self._networks:
                    comm, state = (process / "comm").read_text(), (process / "stat").read_text().rpartition(")")[2]
                    found |= {process.name} if comm != "sshd\n" and state.split()[0] not in "ZT" else set()
            except OSError:
                pass  # it has ended
        return found
