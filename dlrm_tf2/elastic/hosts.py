"""Which hosts have room for how many ranks: what the user lists, without what was lost and what cannot be reached."""

import ipaddress
import random
import re
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

_SCRIPT_S = 60  # a script that takes longer has failed
_PROBE_S = 5
_LINE = re.compile(r"([\w.-]+)(?::(\d+))?")


class HostsError(ValueError):
    """The list of hosts cannot be read."""


def parse_hosts(words: list[str], slots: int) -> dict[str, int]:
    """Host -> slots, from words such as `host` and `host:4`; `slots` belong to a host without a number.

    Raises:
      HostsError: a word has another form, or a host occurs twice.
    """
    found: dict[str, int] = {}
    for word in words:
        match = _LINE.fullmatch(word)
        if not match:
            raise HostsError(f"found {word!r}, expected a host and its slots such as host1:4")
        if match[1] in found:
            raise HostsError(f"{match[1]} occurs twice")
        found[match[1]] = int(match[2] or slots)
    return found


def hosts_of_script(script: str, slots: int) -> dict[str, int]:
    """Host -> slots, as a script prints them: one `host` or `host:4` a line, the contract of horovodrun.

    Raises:
      HostsError: the script fails, or prints something else.
    """
    try:
        done = subprocess.run(script, shell=True, capture_output=True, text=True, timeout=_SCRIPT_S)
    except subprocess.TimeoutExpired:
        raise HostsError(f"--host_discovery_script {script}: has not ended after {_SCRIPT_S} s") from None
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["it prints no reason"])[-1]
        raise HostsError(f"--host_discovery_script {script}: exit status {done.returncode}: {reason}")
    try:
        return parse_hosts(done.stdout.split(), slots)
    except HostsError as error:
        raise HostsError(f"--host_discovery_script {script}: {error}") from None


@dataclass
class _Host:
    """A host that is listed.

    Attributes:
      losses: how often ranks were lost on it.
      lost: (end of the time without them, slots) of the slots that were lost.
    """

    losses: int = 0
    lost: list[tuple[float, int]] = field(default_factory=list)


class Hosts:
    """The hosts of a job. Older hosts come first, so rank 0 stays on its host as long as it can.

    Args:
      find: returns what the user lists, host -> slots; raises HostsError.
      cooldown_s: the time without a lost slot, after its first loss and at most. It doubles with each loss.
      clock: the time in seconds.
    """

    def __init__(
        self,
        find: Callable[[], Mapping[str, int]],
        cooldown_s: tuple[float, float],
        *,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._find, self._cooldown_s, self._clock = find, cooldown_s, clock
        self._listed: dict[str, int] = {}
        self._hosts: dict[str, _Host] = {}
        self._lock = threading.Lock()

    def update(self) -> None:
        """Reads the list again. A host that is no longer listed is forgotten: when it comes back, all its slots count.

        Raises:
          HostsError: the list cannot be read; the list before it stays.
        """
        listed = dict(self._find())
        with self._lock:
            kept = [name for name in self._hosts if name in listed]
            new = [name for name in listed if name not in self._hosts]
            self._hosts = {name: self._hosts.get(name, _Host()) for name in (*kept, *new)}
            self._listed = listed

    def lose(self, host: str, slots: int) -> float:
        """Leaves out slots of a host for a while; returns the seconds."""
        with self._lock:
            state = self._hosts.setdefault(host, _Host())
            least, most = self._cooldown_s
            seconds = min(most, least * 2**state.losses * random.uniform(1, 1.1))
            state.losses += 1
            state.lost.append((self._clock() + seconds, slots))
            return seconds

    def slots(self, most: int | None = None) -> dict[str, int]:
        """Host -> slots that may be used now, `most` in all."""
        now, found = self._clock(), dict[str, int]()
        with self._lock:
            for name, state in self._hosts.items():
                state.lost = [(end, slots) for end, slots in state.lost if end > now]
                left = self._listed.get(name, 0) - sum(slots for _, slots in state.lost)
                if most is not None:
                    left = min(left, most - sum(found.values()))
                if left > 0:
                    found[name] = left
            return found


def unreachable(hosts: list[str]) -> list[str]:
    """The hosts that no ssh reaches within a few seconds. This machine is always reached."""
    others = [host for host in hosts if not is_this_machine(host)]
    if not others:
        return []
    with ThreadPoolExecutor(len(others)) as pool:
        answers = pool.map(lambda host: on_host(host, "true"), others)
        return [host for host, answers_us in zip(others, answers, strict=True) if not answers_us]


def is_this_machine(host: str) -> bool:
    """Whether a name or an address belongs to this machine: a socket can be bound to it."""
    try:
        for family, kind, _, _, address in socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM):
            if ipaddress.ip_address(address[0]).is_loopback:
                return True
            with socket.socket(family, kind) as probe:
                probe.bind(address)
                return True
    except (OSError, ValueError):
        return False
    return False


def is_on(host: str, name: str, address: str) -> bool:
    """Whether a process runs on a listed host: by the name of its machine, or by the address that it connects from."""
    if host == name or host.startswith(f"{name}.") or name.startswith(f"{host}."):
        return True
    try:
        return address in {found[4][0] for found in socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)}
    except (OSError, ValueError):
        return False


def on_host(host: str, command: str) -> bool:
    """Runs a shell command on another host by ssh. Returns whether it succeeded, within a few seconds."""
    options = ["-o", "BatchMode=yes", "-o", f"ConnectTimeout={_PROBE_S}", "-o", "StrictHostKeyChecking=no"]
    try:
        done = subprocess.run(["ssh", *options, host, command], capture_output=True, timeout=2 * _PROBE_S)
    except (subprocess.TimeoutExpired, OSError):
        return False
    return done.returncode == 0
