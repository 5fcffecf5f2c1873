"""The link between a host and the switch: rate, delay, loss, and whether it is cut.

The rate is the kernel's token bucket (tbf), and loss is a filter of classic BPF. Delay is a program, wire.py, because
not every kernel has netem.
"""

import re
import subprocess
import sys
from pathlib import Path

from support.hosts import wire

_BITS = {"": 1, "k": 1e3, "m": 1e6, "g": 1e9}
_SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0}
_DROP, _CONTINUE = 2, 0xFFFFFFFF  # TC_ACT_SHOT, TC_ACT_UNSPEC
_RANDOM = 0xFFFFF000 + 56  # SKF_AD_OFF + SKF_AD_RANDOM


class Link:
    """The link of a host. Direction "out" is from the host to the switch, and "in" is from the switch to the host.

    A packet from one host to another takes the first link out, and the second link in.
    """

    def __init__(self, host, switch: int):
        self._host, self._switch, self._wire, self._cut = host, switch, None, False
        self._port, self._settings = f"port{host.index}", {"out": {}, "in": {}}

    def connect(self) -> None:
        """Plugs the cable into the host, which has just started."""
        self._ip(f"link delete {self._port}", may_fail=True)  # the kernel removes the old one a while after the host
        same = f"02:00:00:00:00:{self._host.index + 1:02x}"  # other hosts remember it while the host is off
        self._ip(f"link add {self._port} type veth peer name eth0 address {same} netns {self._host.pid}")
        self._ip(f"link set {self._port} up")
        if self._wire:
            self.end()
        self._cut = False
        self._plug()
        for direction, settings in self._settings.items():
            self.shape(direction, **settings)

    def shape(
        self,
        direction: str = "both",
        *,
        rate: str | None = None,
        delay: str | None = None,
        loss: str | None = None,
    ) -> None:
        """Changes the settings that are given; the others stay.

        Args:
          direction: "out", "in" or "both".
          rate: such as "100mbit"; "0bit" for no limit.
          delay: such as "2ms"; "0ms" for none.
          loss: such as "1%"; "0%" for none.
        """
        for one in ("out", "in") if direction == "both" else (direction,):
            given = {"rate": rate, "delay": delay, "loss": loss}
            self._settings[one] |= {name: value for name, value in given.items() if value is not None}
            if rate is not None:
                self._limit(one, _number(rate, "bit", _BITS))
            if loss is not None:
                self._lose(one, float(loss.removesuffix("%")) / 100)
        if delay is not None:
            self._delay()

    def cut(self) -> None:
        """Loses all packets in both directions, silently."""
        self._cut = True
        self._plug()

    def restore(self) -> None:
        """Ends the cut; rate, delay and loss are as before."""
        self._cut = False
        self._plug()

    @property
    def sent_bytes(self) -> int:
        """Bytes that the host has sent since it started, with the headers of the packets."""
        return self._counters()[8]

    @property
    def received_bytes(self) -> int:
        """Bytes that the host has received since it started, with the headers of the packets."""
        return self._counters()[0]

    def end(self) -> None:
        """Ends the program that delays packets, if there is one."""
        if self._wire:
            self._wire.kill()
            self._wire.communicate()
            self._wire = None
            self._ip(f"link delete {self._port}w", may_fail=True)  # the switch may have ended

    def _limit(self, direction: str, bits: float) -> None:
        if not bits:
            self._tc(direction, "qdisc delete {} root", may_fail=True)
            return
        burst = int(max(3000, bits / 8 * 0.002))  # 2 ms
        self._tc(direction, f"qdisc replace {{}} root tbf rate {int(bits)}bit burst {burst} latency 50ms")

    def _lose(self, direction: str, share: float) -> None:
        below = min(int(share * 2**32), 2**32 - 1)
        lose_some = [(0x20, 0, 0, _RANDOM), (0x35, 1, 0, below), (0x06, 0, 0, _DROP), (0x06, 0, 0, _CONTINUE)]
        program = lose_some if share < 1 else [(0x06, 0, 0, _DROP)]
        text = ",".join([str(len(program)), *(" ".join(map(str, line)) for line in program)])
        self._tc(direction, "qdisc add {} clsact", may_fail=True)  # it may be there already
        self._tc(direction, "filter replace {} egress prio 1 handle 1 bpf da bytecode", text)

    def _delay(self) -> None:
        delays = [_number(self._settings[one].get("delay", "0s"), "", _SECONDS) for one in ("out", "in")]
        if not self._wire and any(delays):
            self._ip(f"link add {self._port}w type veth peer name {self._port}b")
            self._ip(f"link set {self._port}w up")
            self._ip(f"link set {self._port}b up")
            self._wire = subprocess.Popen(
                ["nsenter", "--target", str(self._switch), "--net", sys.executable, "-S", Path(wire.__file__),
                 self._port, f"{self._port}w"],
                stdin=-1, stdout=-1, text=True,
            )  # fmt: skip
            self._ip(f"link set {self._port} nomaster")
            self._plug()
        if self._wire:
            self._wire.stdin.write(f"{delays[0]} {delays[1]}\n")
            self._wire.stdin.flush()
            if self._wire.stdout.readline() != "ready\n":
                raise RuntimeError(f"{self._port}: the program that delays packets ended")

    def _plug(self) -> None:
        port = f"{self._port}b" if self._wire else self._port
        self._ip(f"link set {port} {'nomaster' if self._cut else 'master switch'}")

    def _counters(self) -> list[int]:
        lines = Path(f"/proc/{self._host.pid}/net/dev").read_text().splitlines()
        return next([int(word) for word in line.split()[1:]] for line in lines if line.split()[0] == "eth0:")

    def _ip(self, command: str, *, may_fail: bool = False) -> None:
        _call(self._switch, ["ip", *command.split()], may_fail=may_fail)

    def _tc(self, direction: str, command: str, *more: str, may_fail: bool = False) -> None:
        where, device = (self._host.pid, "eth0") if direction == "out" else (self._switch, self._port)
        _call(where, ["tc", *command.format(f"dev {device}").split(), *more], may_fail=may_fail)


def _call(namespace: int, command: list[str], *, may_fail: bool = False) -> None:
    done = subprocess.run(["nsenter", "--target", str(namespace), "--net", *command], capture_output=True, text=True)
    if done.returncode and not may_fail:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")


def _number(text: str, unit: str, factors: dict[str, float]) -> float:
    """`1.5gbit` -> 1.5e9."""
    match = re.fullmatch(rf"([\d.]+)({'|'.join(factors)}){unit}", text)
    if not match:
        raise ValueError(f"found {text!r}, expected a number and one of {', '.join(f + unit for f in factors)}")
    return float(match[1]) * factors[match[2]]
