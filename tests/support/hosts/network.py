"""The switch, the hosts and their links; the commands that start a job of ranks on the hosts."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from support.hosts.boot import COMMANDS_FROM_STDIN, make_keys, say
from support.hosts.host import Host
from support.hosts.link import Link

_PROGRAMS = "bash cp ip mount nsenter ssh ssh-keygen /usr/sbin/sshd tc unshare".split()
_SWITCH = """set -e
echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6 || true
ip link add switch type bridge
ip link set switch up
"""
_PROBE = """set -e
mount -t tmpfs tmpfs /mnt
ip link add probe0 type veth peer name probe1
tc qdisc add dev probe0 root tbf rate 1gbit burst 100kb latency 50ms
ip link add switch type bridge
"""


def unavailable() -> str | None:
    """Why this machine cannot play several hosts; None if it can."""
    if os.geteuid() != 0:
        return "network namespaces and sshd need root"
    if missing := [program for program in _PROGRAMS if not shutil.which(program)]:
        return f"not installed: {', '.join(missing)} (Debian: iproute2, openssh-server, util-linux)"
    namespaces = ["unshare", "--net", "--uts", "--ipc", "--mount", "--pid", "--fork", "--mount-proc"]
    probe = subprocess.run([*namespaces, "bash", "-c", _PROBE], capture_output=True, text=True)
    return f"namespaces do not work here: {probe.stderr.strip()}" if probe.returncode else None


class Hosts:
    """N hosts with a link each to one switch. A context manager; the hosts exist inside it.

    Each host has its own processes, network, name (host0, host1, ...), /etc, /run, /dev/shm and sshd. It shares the
    processors, the memory and all other folders with the machine. A host is a set of namespaces, which end when a
    pipe is closed: nothing outlives the process that made the hosts, even if that process is killed.

    Args:
      number: how many hosts.
      rate: rate of each link in each direction, such as "1gbit"; None for no limit.
      delay: time from one host to another, such as "0.1ms"; None for none.
      loss: share of the packets from one host to another that are lost, such as "1%"; None for none.

    Raises:
      RuntimeError: a host did not start; the message has the reason.
    """

    def __init__(self, number: int, *, rate: str | None = None, delay: str | None = None, loss: str | None = None):
        self._number, self._rate, self._one_way = number, rate, {"delay": delay, "loss": loss}

    def __enter__(self) -> "Hosts":
        self._switch = subprocess.Popen(["unshare", "--net", *COMMANDS_FROM_STDIN], stdin=-1, stdout=-1, stderr=-1)
        self._hosts, self._links = [], []
        try:
            say(self._switch, _SWITCH)
            keys = make_keys(self._number)
            names = [f"host{index}" for index in range(self._number)]
            for index in range(self._number):
                self._hosts.append(Host(index, names, keys=keys))
                self._links.append(Link(self._hosts[index], self._switch.pid))
            for host, link in zip(self._hosts, self._links, strict=True):
                host.link = link
                host.power_on()
                link.shape(rate=self._rate)
                link.shape("out", **self._one_way)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for link in self._links:
            link.end()
        for host in self._hosts:
            host.end()
        self._switch.kill()
        self._switch.communicate()

    def __getitem__(self, index: int) -> Host:
        return self._hosts[index]

    def __len__(self) -> int:
        return self._number

    def link(self, index: int) -> Link:
        """The link between host `index` and the switch."""
        return self._links[index]

    def slots(self, ranks: int) -> str:
        """The hosts with their ranks, as launchers read it: `host0:2,host1:1`."""
        shares = [ranks // self._number + (index < ranks % self._number) for index in range(self._number)]
        return ",".join(f"{host.name}:{share}" for host, share in zip(self._hosts, shares, strict=True) if share)

    def horovodrun(self, ranks: int, transport: str = "mpi") -> list[str]:
        """The beginning of a command that starts ranks on the hosts; the rank's program follows it.

        Args:
          ranks: ranks of the job, distributed evenly.
          transport: "mpi" or "gloo".
        """
        program = str(Path(sys.executable).parent / "horovodrun")
        # Without the cache, horovodrun asks each host in each run; its cache lies in the home folder.
        return [program, "-np", str(ranks), "-H", self.slots(ranks), f"--{transport}",
                "--network-interface", "eth0", "--disable-cache"]  # fmt: skip

    def mpirun(self, ranks: int) -> list[str]:
        """The beginning of a command that starts ranks on the hosts with Open MPI; the rank's program follows it."""
        return ["mpirun", "-np", str(ranks), "-H", self.slots(ranks), *"--bind-to none --map-by slot".split(),
                *"--mca btl_tcp_if_include eth0 --mca oob_tcp_if_include eth0".split(),
                *"--mca pml ob1 --mca btl ^openib -x PATH -x PYTHONPATH".split()]  # fmt: skip
