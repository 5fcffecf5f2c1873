"""Ends a process whose job makes no progress or has lost a rank, with a line that names the rank and its activity.

Twice a second, each rank sends its activity to the other ranks, in a small UDP datagram. If the datagrams do not
arrive, the line names no other rank, and everything else works as before.
"""

import contextlib
import json
import math
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from dlrm_tf2.runtime import addresses, launcher, terminal
from dlrm_tf2.runtime.activity import OF_PROCESS, Activity
from dlrm_tf2.runtime.comm import Comm
from dlrm_tf2.runtime.rank_names import names_of, this_host

_PERIOD_S = 0.5
_GONE_AFTER_S = 1.0  # a rank whose port is closed, and that is silent for so long, is gone
_FAILED_AFTER_S = 3.0  # so long after another rank has failed, this rank has failed too, or the launcher has ended it
_SILENT_AFTER_S = 5.0  # a rank that is silent for so long is reported
_WARNED_AFTER_S = 8.0  # rank 0 names a rank that is silent for so long: the launcher may end the job first
# Another rank names a silent rank 0 later. On a host that is cut off, Open MPI's daemon notices that by keepalive
# probes, and TCP sends no probes while a line of output waits to be sent.
_WARNED_BY_OTHERS_AFTER_S = 40.0
_ASLEEP_AFTER_S = 5.0  # a process that did nothing for so long was stopped, and so was perhaps the whole job
_BEFORE_GLOO_S = 0.5  # so long before gloo aborts this process, it ends with a reason
_MOST_NAMED = 4  # ranks that a line names
_ENDED, _FAILED = "ended", "failed"  # last activity of a rank that leaves
_IP_RECVERR = 11  # number of Linux, which Python 3.11 does not name

# Ends the process. Gets a line with the reason, and whether another rank is lost: then this one is not at fault.
End = Callable[[str, bool], None]


@dataclass
class _Peer:
    """Another rank.

    Attributes:
      addresses: where it may be reached.
      activity: the last activity that it sent; None before the first datagram.
      last_heard: time.monotonic() of its last datagram.
      refuses: its port is closed.
    """

    addresses: list[tuple[str, int]]
    activity: Activity | None = None
    last_heard: float = 0.0
    refuses: bool = False


class Watchdog:
    """Watches this process and the other ranks. A context manager; all ranks must enter it.

    Args:
      comm: the ranks.
      timeout_s: seconds without progress on any rank after which the process ends; 0 for never.
      end: how the process ends; None exits with status 1.
      activity: activity of this process; None for the one that `activity.doing` sets.
    """

    def __init__(
        self,
        comm: Comm,
        timeout_s: float,
        *,
        end: End | None = None,
        activity: Activity | None = None,
    ):
        self._rank, self._timeout_s, self._end = comm.rank, timeout_s, end or _end
        self._mine, self._awake_since = activity or OF_PROCESS, 0.0
        self._ending = threading.Event()
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("", 0))
        self._socket.setblocking(False)
        self._socket.setsockopt(socket.IPPROTO_IP, _IP_RECVERR, 1)
        port, machine = self._socket.getsockname()[1], (this_host(), addresses.of_this_machine())
        known = comm.allgather_object((port, machine, secrets.token_bytes(8)), name="watchdogs")
        self._hosts, self._warned = [theirs[0] for _, theirs, _ in known], set()
        self._job = known[0][2]  # datagrams of other jobs do not begin with it
        self._peers = {
            rank: _Peer([("127.0.0.1", port)] if theirs == machine else [(address, port) for address in theirs[1]])
            for rank, (port, theirs, _) in enumerate(known)
            if rank != comm.rank
        }
        self._comm = comm

    def __enter__(self) -> "Watchdog":
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        if kind is None:
            self._comm.allgather_object(None, name="watchdogs_end")  # a rank that ends first is not gone
        self._ending.set()
        self._thread.join()
        self._send(_ENDED if kind is None else _FAILED)
        self._socket.close()

    def who_left(self, patience_s: float = 3.0) -> str:
        """Names the rank that ended the job, for the message of another rank; "" if no such rank is known."""
        deadline = time.monotonic() + patience_s
        while not (lost := self._lost(time.monotonic(), 0.0)) and time.monotonic() < deadline:
            time.sleep(0.1)
        return lost or "; ".join(self._silent(time.monotonic())[:_MOST_NAMED])

    def _watch(self) -> None:
        last_round = time.monotonic()
        while not self._ending.wait(_PERIOD_S):
            self._send(self._mine.doing)
            self._listen()
            now = time.monotonic()
            if now - last_round > _ASLEEP_AFTER_S:
                self._awake_since = now
            last_round = now
            self._warn_of_silence(now)
            lost, silent = self._lost(now, _FAILED_AFTER_S), self._silent(now)
            verdict = lost or self._stalled(now)
            if verdict and not self._ending.is_set():
                if silent and self._end is _end:
                    launcher.end_soon(os.getpid())
                self._end(f"{self._name(self._rank)}: {verdict}" if self._peers else verdict, bool(lost or silent))
                return

    def _name(self, rank: int) -> str:
        return names_of([rank], self._hosts)

    def _warn_of_silence(self, now: float) -> None:
        """Names the ranks that have just become silent, or are heard of again, on the first rank that is not silent."""
        patience_s = _WARNED_BY_OTHERS_AFTER_S if self._rank else _WARNED_AFTER_S
        silent = {
            rank
            for rank, peer in self._peers.items()
            if self._silence_s(peer, now) > patience_s
            and peer.activity
            and peer.activity.doing not in (_ENDED, _FAILED)
        }
        if all(self._rank < rank for rank in set(self._peers) - silent):
            changes = [self._last_sign(rank, now) for rank in sorted(silent - self._warned)]
            changes += [f"{self._name(rank)} is heard of again" for rank in sorted(self._warned - silent)]
            if changes:
                terminal.warn(f"dlrm_tf2: {self._name(self._rank)}: {_first_of(changes)}")
        self._warned = silent

    def _last_sign(self, rank: int, now: float) -> str:
        peer = self._peers[rank]
        return f"{self._name(rank)} was last heard of {now - peer.last_heard:.0f} s ago, {peer.activity.doing}"

    def _silence_s(self, peer: _Peer, now: float) -> float:
        return now - max(peer.last_heard, self._awake_since)

    def _send(self, doing: str) -> None:
        mine = self._mine
        message = self._job + json.dumps([self._rank, doing, mine.count, time.monotonic() - mine.since]).encode()
        for peer in self._peers.values():
            for address in peer.addresses:
                try:
                    self._socket.sendto(message, address)
                except OSError:
                    pass  # an earlier datagram was refused, or there is no route

    def _listen(self) -> None:
        while received := _received(self._socket, 0):
            message, source = received
            if not message.startswith(self._job):
                continue
            rank, doing, count, idle_s = json.loads(message[len(self._job) :])
            if rank in self._peers:
                now = time.monotonic()
                self._peers[rank] = _Peer([source], Activity(doing, count, now - idle_s), now)
        while received := _received(self._socket, socket.MSG_ERRQUEUE):
            for peer in self._peers.values():
                peer.refuses |= peer.addresses == [received[1]]

    def _lost(self, now: float, patience_s: float) -> str:
        """Names a rank that is gone, or that failed `patience_s` ago; "" if there is no such rank."""
        for rank, peer in self._peers.items():
            silence_s, doing = now - peer.last_heard, peer.activity.doing if peer.activity else _ENDED
            if doing == _FAILED and silence_s >= patience_s:
                return f"{self._name(rank)} failed, and its message says why"
            if peer.refuses and silence_s >= min(patience_s, _GONE_AFTER_S) and doing not in (_ENDED, _FAILED):
                return f"{self._name(rank)} is gone; its last activity: {doing}"
        return ""

    def _silent(self, now: float) -> list[str]:
        """Names the ranks that send nothing any more, each with its last activity."""
        return [
            self._last_sign(rank, now)
            for rank, peer in sorted(self._peers.items())
            if peer.activity and peer.activity.doing != _ENDED and self._silence_s(peer, now) > _SILENT_AFTER_S
        ]

    def _stalled(self, now: float) -> str:
        """Says that there is no progress, and names the ranks that cause it; "" if there is progress."""
        mine = self._mine
        known = {rank: peer.activity for rank, peer in self._peers.items() if peer.activity} | {self._rank: mine}
        idle_s = now - max(
            self._awake_since, *(activity.since for activity in known.values())
        )  # other ranks may wait for a rank that works
        if not self._timeout_s or idle_s < self._timeout_s:
            return ""
        causes = self._silent(now)
        least = min(activity.count for activity in known.values())
        if not causes and least < max(activity.count for activity in known.values()):
            causes = [
                f"{self._name(rank)} is behind: {activity.doing} for {now - activity.since:.0f} s"
                for rank, activity in sorted(known.items())
                if activity.count == least
            ]
        elif not causes and self._peers:
            causes = [f"so are all ranks that were heard of ({len(known)} of {len(self._peers) + 1})"]
        stall = f"no progress for {idle_s:.0f} s (--stall_timeout_s {self._timeout_s:g}) while {mine.doing}"
        return "; ".join([stall, _first_of(causes)] if causes else [stall])


def _first_of(ranks: list[str]) -> str:
    """One line of the texts about ranks."""
    more = [f"and {len(ranks) - _MOST_NAMED} more ranks"] if len(ranks) > _MOST_NAMED else []
    return "; ".join([*ranks[:_MOST_NAMED], *more])


@contextlib.contextmanager
def joining(
    rank: int, timeout_s: float, *, end: End | None = None, gloo_timeout_s: float | None = None
) -> Iterator[None]:
    """Ends this process if the other ranks do not start. A context for the time before the Watchdog runs.

    Args:
      rank: rank of this process.
      timeout_s: seconds after which the process ends; 0 for never.
      end: how the process ends; None exits with status 1.
      gloo_timeout_s: when gloo aborts the process, without a reason for people; None for never.
    """
    limits = {f"--stall_timeout_s {timeout_s:g}": timeout_s or math.inf}
    if gloo_timeout_s:
        limits[f"horovodrun --gloo-timeout-seconds {gloo_timeout_s:g}"] = gloo_timeout_s - _BEFORE_GLOO_S
    limit = min(limits, key=limits.get)
    reason = f"rank {rank}: not all ranks have started after {limits[limit]:g} s ({limit})"
    timer = threading.Timer(min(limits[limit], threading.TIMEOUT_MAX), end or _end, [reason, False])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _received(source: socket.socket, flags: int) -> tuple[bytes, tuple[str, int]] | None:
    """A datagram and its sender; with MSG_ERRQUEUE, a refused datagram and its receiver. None if none waits."""
    while True:
        try:
            message, _, _, address = source.recvmsg(4096, 512, flags)
            return message, address
        except BlockingIOError:
            return None
        except OSError:
            pass  # an earlier datagram was refused; the error queue has the details


def _end(reason: str, _: bool) -> None:
    """Ends the process at once, in any state of its other threads, so that the launcher ends the other ranks."""
    terminal.warn(f"dlrm_tf2: {reason}")
    os._exit(1)
