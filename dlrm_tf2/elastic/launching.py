"""The launcher's process: it starts the ranks of one start, and is gone before the next."""

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from dlrm_tf2.elastic.hosts import on_host
from dlrm_tf2.runtime.process import ELASTIC_VARIABLE

_TO_END_S = 10.0  # for a launcher whose ranks have ended: mpirun needs 2 s, horovodrun's gloo up to 5 s


def program_of(words: str) -> str | None:
    """The path of the program of a launcher's words, in the PATH or next to this Python; None without it."""
    name = next(iter(shlex.split(words)), "")
    return shutil.which(name) or shutil.which(name, path=str(Path(sys.executable).parent))


class Launcher:
    """A launcher that has been started, in a session of its own, so that a terminal's Ctrl-C reaches only us.

    Args:
      words: the launcher with its arguments, to which `-np N -H HOST:SLOTS,...` is added.
      slots: host -> ranks.
      command: the program of the ranks.
      supervisor: the address that the ranks find in their environment.
    """

    def __init__(self, words: str, slots: Mapping[str, int], *, command: Sequence[str], supervisor: str):
        self._supervisor = supervisor
        hosts = ",".join(f"{host}:{number}" for host, number in slots.items())
        self._process = subprocess.Popen(
            [
                *(program_of(words) or words, *shlex.split(words)[1:]),
                *("-np", str(sum(slots.values())), "-H", hosts),
                *("env", f"{ELASTIC_VARIABLE}={supervisor}", *command),
            ],
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )

    @property
    def status(self) -> int | None:
        """Exit status; None while the launcher runs."""
        return self._process.poll()

    def end(self, local_pids: Sequence[int]) -> None:
        """Waits until the launcher has ended; ends it if it does not, and the ranks on this machine.

        Args:
          local_pids: processes of the ranks on this machine, which may be stopped or wait in the kernel.
        """
        deadline = time.monotonic() + _TO_END_S
        for number in (None, signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                if number:
                    os.killpg(self._process.pid, number)
            try:
                self._process.wait(max(0.0, deadline - time.monotonic()))
                break
            except subprocess.TimeoutExpired:
                deadline = time.monotonic() + _TO_END_S
        for pid in local_pids:
            with contextlib.suppress(OSError):
                if self._supervisor.encode() in Path(f"/proc/{pid}/environ").read_bytes():
                    os.kill(pid, signal.SIGKILL)

    def end_ranks(self, host: str, pids: Sequence[int]) -> None:
        """Ends ranks on another host, which may be stopped there: the launcher's connection to them is gone."""
        kill = f"grep -qs '{self._supervisor}' /proc/$pid/environ && kill -9 $pid"
        on_host(host, f"for pid in {' '.join(map(str, pids))}; do {kill}; done; true")
