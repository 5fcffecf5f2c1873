"""One host: namespaces with a first process that ends them all, sshd, and the processes that a test starts on it."""

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

from support.hosts.boot import COMMANDS_FROM_STDIN, Keys, address_of, boot_script, say

REPOSITORY = Path(__file__).resolve().parents[3]
_NAMESPACES = ["--net", "--uts", "--ipc", "--mount", "--pid"]
_SSHD = "/usr/sbin/sshd -E /run/sshd.log"


class Process(subprocess.Popen):
    """A process on a host. Signals go to the command itself, not to nsenter, which started the command and waits."""

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            for child in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split() or [self.pid]:
                os.kill(int(child), number)

    def kill_all(self) -> None:
        """Kills the command and the processes that it started, unless they have left its process group."""
        if self.poll() is None:
            os.killpg(self.pid, signal.SIGKILL)


class Host:
    """One host.

    Attributes:
      name: its name, which the other hosts know.
      address: its IPv4 address.
      link: its link to the switch.
    """

    def __init__(self, index: int, names: list[str], *, keys: Keys):
        self.index, self.name, self._names, self._keys = index, names[index], names, keys
        self.address, self._first, self._made = address_of(index), None, []

    def power_on(self) -> None:
        """Starts the host, without any process but sshd. Its link has the rate, delay and loss that it had before.

        Raises:
          RuntimeError: a command failed; the message has its words.
        """
        self._first = subprocess.Popen(
            ["unshare", *_NAMESPACES, "--fork", "--kill-child", "--mount-proc", *COMMANDS_FROM_STDIN],
            stdin=-1, stdout=-1, stderr=-1,
        )  # fmt: skip
        say(self._first, "echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6 || true")
        self.link.connect()
        say(self._first, boot_script(self.index, self._names, self._keys) + _SSHD)

    def power_off(self) -> None:
        """Ends the host as a loss of power does: all its processes end, and nothing tells the other hosts."""
        self.link.cut()
        self.end()

    def end(self) -> None:
        """Ends all processes of the host, and its namespaces."""
        if self._first:
            # The pipe is closed, the first process ends, and the kernel kills the others before unshare sees the end.
            self._first.communicate()
            self._first = None
        while self._made:
            with contextlib.suppress(OSError):  # another host has put something into it
                self._made.pop().rmdir()

    def start(self, command: list, *, cwd: Path = REPOSITORY, **environment: str) -> Process:
        """Starts a program on the host.

        Args:
          command: the program and its arguments.
          cwd: its working folder.
          environment: variables that it gets besides the variables of this process.

        Returns:
          The process, with its stdout and stderr as text in pipes: read them, or the program waits after 64 KiB.
        """
        variables = {
            **os.environ,
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]),
            "PYTHONPATH": os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")]),
            "OMPI_ALLOW_RUN_AS_ROOT": "1",
            "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
            "OMPI_MCA_mpi_yield_when_idle": "1",  # the hosts share the processors, and do not know it
            **environment,
        }
        return Process(
            [*self._enter(f"--wd={cwd}"), *map(str, command)],
            env=variables, stdin=subprocess.DEVNULL, stdout=-1, stderr=-1, text=True, start_new_session=True,
        )  # fmt: skip

    def run(self, command: list, *, timeout: float = 300, **settings) -> subprocess.CompletedProcess:
        """Runs a program on the host; the arguments of `start`, and the seconds after which the program is killed.

        Raises:
          subprocess.TimeoutExpired: the program was killed; the exception has its output.
        """
        process = self.start(command, **settings)
        try:
            output = process.communicate(timeout=timeout)
        except BaseException:
            process.kill_all()
            raise
        return subprocess.CompletedProcess(command, process.returncode, *output)

    def check(self, command: list, **settings) -> str:
        """The output of a program on the host.

        Raises:
          RuntimeError: the program failed; the message has the output.
        """
        done = self.run(command, **settings)
        if done.returncode:
            raise RuntimeError(f"{self.name}: {' '.join(map(str, command))}: {done.stdout}{done.stderr}")
        return done.stdout

    def kill_processes(self) -> None:
        """Kills all processes of the host at once, sshd also. The host itself stays: its system closes connections."""
        self.run(["bash", "-c", "kill -9 -1"])

    def stop_sshd(self) -> None:
        """Ends the sshd: new connections are refused. Connections that exist stay."""
        self.check(["bash", "-c", "kill $(cat /run/sshd.pid) && while [ -e /run/sshd.pid ]; do sleep 0.01; done"])

    def start_sshd(self) -> None:
        """Starts sshd, after stop_sshd or kill_processes."""
        say(self._first, _SSHD)

    def private_folder(self, path: Path, size: str = "50%") -> None:
        """Gives the host a folder of its own, in memory, at a path where the others see what they saw before.

        Args:
          path: the folder; it is made, and removed at the end, where it does not exist.
          size: how much it holds, such as "8m".
        """
        if not path.exists():
            path.mkdir()
            self._made.append(path)
        self.check(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", path])

    def set_clock(self, offset_s: int) -> None:
        """Sets the wall clock that programs see which start from now on: the machine's, plus an offset in seconds.

        The monotonic clock stays, and so do the times of files. Needs gcc.

        Raises:
          RuntimeError: gcc failed; the message has its words.
        """
        library = "/etc/clock.so"  # /etc is the host's own
        source = Path(__file__).with_name("clock.c")
        self.check(["bash", "-c", "rm -f /etc/ld.so.preload"])
        self.check(f"gcc -shared -fPIC -O1 -DOFFSET_S=({offset_s}L) -o {library} {source}".split())
        self.seen(Path("/etc/ld.so.preload")).write_text(f"{library}\n")

    def seen(self, path: Path) -> Path:
        """The path under which this process finds what the host sees at `path`."""
        return Path(f"/proc/{self.pid}/root", str(path).lstrip("/"))

    @property
    def pid(self) -> int:
        """A process in the namespaces of the host, except the namespace of processes."""
        return self._first.pid

    def _enter(self, *options: str) -> list[str]:
        return ["nsenter", "--target", str(self.pid), *"--net --uts --ipc --mount".split(),
                f"--pid=/proc/{self.pid}/ns/pid_for_children", *options]  # fmt: skip
