"""Ends a process whose job makes no progress, or has lost a rank, with a line that says which rank and at what.

The ranks tell each other what they are doing twice a second, in small UDP datagrams. If those do not get through, the
line names no other rank, and all else is the same.
"""

import contextlib
import fcntl
import json
import os
import secrets
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from dlrm_tf2.runtime.activity import OF_PROCESS, Activity
from dlrm_tf2.runtime.comm import Comm

_PERIOD_S = 0.5
_GONE_AFTER_S = 1.0  # silence of a rank whose port is closed, after which it is gone
_FAILED_AFTER_S = 3.0  # how long after a rank said that it fails: by then this one would have failed too, or been ended
_SILENT_AFTER_S = 5.0  # silence of a rank that is no accident any more
_MOST_TOLD = 4  # ranks that a line speaks of
_ENDED, _FAILED = "ended", "failed"  # what a rank does that leaves
_IP_RECVERR, _SIOCGIFADDR = 11, 0x8915  # of Linux; Python 3.11 has no names for them


@dataclass
class _Peer:
    """Another rank: where it may be reached, and what is known of it."""

    addresses: list[tuple[str, int]]
    activity: Activity | None = None
    heard: float = 0.0
    refuses: bool = False


class Watchdog:
    """Watches over this process and the other ranks. A context manager; all ranks must enter it.

    Args:
      ranks: the ranks.
      timeout_s: seconds without progress of any rank after which the process ends; 0 for never.
      end: what to do with the line that says why.
      activity: what the process is doing; what `activity.doing` says if not given.
    """

    def __init__(
        self,
        ranks: Comm,
        timeout_s: float,
        *,
        end: Callable[[str], None] | None = None,
        activity: Activity | None = None,
    ):
        self._rank, self._timeout_s, self._end = ranks.rank, timeout_s, end or _end
        self._mine = activity or OF_PROCESS
        self._over = threading.Event()
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("", 0))
        self._socket.setblocking(False)
        self._socket.setsockopt(socket.IPPROTO_IP, _IP_RECVERR, 1)
        port, machine = self._socket.getsockname()[1], (socket.gethostname(), _addresses(self._socket))
        known = ranks.allgather_object((port, machine, secrets.token_bytes(8)), name="watchdogs")
        self._job = known[0][2]  # so that a datagram of another job is not taken for one of this
        self._peers = {
            rank: _Peer([("127.0.0.1", port)] if theirs == machine else [(address, port) for address in theirs[1]])
            for rank, (port, theirs, _) in enumerate(known)
            if rank != ranks.rank
        }
        self._ranks = ranks

    def __enter__(self) -> "Watchdog":
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        if kind is None:
            self._ranks.allgather_object(None, name="watchdogs_end")  # or the last one misses the first one
        self._over.set()
        self._thread.join()
        self._tell(_ENDED if kind is None else _FAILED)
        self._socket.close()

    def who_left(self, patience_s: float = 3.0) -> str:
        """Which rank has ended the job, for the message of another one; "" if none is known to have."""
        deadline = time.monotonic() + patience_s
        while not (lost := self._lost(time.monotonic(), 0.0)) and time.monotonic() < deadline:
            time.sleep(0.1)
        return lost or "; ".join(self._silent(time.monotonic())[:_MOST_TOLD])

    def _watch(self) -> None:
        while not self._over.wait(_PERIOD_S):
            self._tell(self._mine.doing)
            self._listen()
            now = time.monotonic()
            verdict = self._lost(now, _FAILED_AFTER_S) or self._stalled(now)
            if verdict and not self._over.is_set():
                self._end(f"rank {self._rank}: {verdict}" if self._peers else verdict)
                return

    def _tell(self, doing: str) -> None:
        mine = self._mine
        message = self._job + json.dumps([self._rank, doing, mine.count, time.monotonic() - mine.since]).encode()
        for peer in self._peers.values():
            for address in peer.addresses:
                try:
                    self._socket.sendto(message, address)
                except OSError:
                    pass  # of an earlier datagram, or no way there

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
        """A rank that is gone, or said so long ago that it fails; "" if there is none."""
        for rank, peer in self._peers.items():
            silence_s, doing = now - peer.heard, peer.activity.doing if peer.activity else _ENDED
            if doing == _FAILED and silence_s >= patience_s:
                return f"rank {rank} failed, and its message says why"
            if peer.refuses and silence_s >= min(patience_s, _GONE_AFTER_S) and doing not in (_ENDED, _FAILED):
                return f"rank {rank} is gone; the last that was heard of it: {doing}"
        return ""

    def _silent(self, now: float) -> list[str]:
        """The ranks that do not tell any more what they are doing, each with the last that they told."""
        return [
            f"rank {rank} was last heard of {now - peer.heard:.0f} s ago, {peer.activity.doing}"
            for rank, peer in sorted(self._peers.items())
            if peer.activity and peer.activity.doing != _ENDED and now - peer.heard > _SILENT_AFTER_S
        ]

    def _stalled(self, now: float) -> str:
        """That there is no progress, and which ranks are to blame; "" if there is some."""
        mine = self._mine
        known = {rank: peer.activity for rank, peer in self._peers.items() if peer.activity} | {self._rank: mine}
        idle_s = now - max(activity.since for activity in known.values())  # the others may wait for one that works
        if not self._timeout_s or idle_s < self._timeout_s:
            return ""
        told = self._silent(now)
        least = min(activity.count for activity in known.values())
        if not told and least < max(activity.count for activity in known.values()):
            told = [
                f"rank {rank} is behind: {activity.doing} for {now - activity.since:.0f} s"
                for rank, activity in sorted(known.items())
                if activity.count == least
            ]
        elif not told and self._peers:
            told = [f"so are all ranks that were heard of ({len(known)} of {len(self._peers) + 1})"]
        more = [f"and {len(told) - _MOST_TOLD} more ranks"] if len(told) > _MOST_TOLD else []
        said = f"no progress for {idle_s:.0f} s (--stall_timeout_s {self._timeout_s:g}) while {mine.doing}"
        return "; ".join([said, *told[:_MOST_TOLD], *more])


@contextlib.contextmanager
def joining(rank: int, timeout_s: float, end: Callable[[str], None] | None = None) -> Iterator[None]:
    """Ends this process if the other ranks do not come: around what waits for them before there is a Watchdog.

    Args:
      rank: of this process.
      timeout_s: seconds that this may take; 0 for as long as it likes.
      end: what to do with the line that says why.
    """
    why = f"rank {rank}: not all ranks have started after {timeout_s:g} s (--stall_timeout_s {timeout_s:g})"
    timer = threading.Timer(timeout_s, end or _end, [why])
    timer.daemon = True
    if timeout_s:
        timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _received(of: socket.socket, flags: int) -> tuple[bytes, tuple[str, int]] | None:
    """A datagram and where it comes from; of MSG_ERRQUEUE, one that was refused and where it went. None for none."""
    while True:
        try:
            message, _, _, address = of.recvmsg(4096, 512, flags)
            return message, address
        except BlockingIOError:
            return None
        except OSError:
            pass  # that an earlier datagram was refused, which the error queue tells in more detail


def _addresses(of: socket.socket) -> list[str]:
    """The IPv4 addresses of this machine, but for 127.x."""
    found = []
    for _, name in socket.if_nameindex():
        try:
            reply = fcntl.ioctl(of.fileno(), _SIOCGIFADDR, struct.pack("256s", name.encode()))
        except OSError:
            continue  # it has none
        found.append(socket.inet_ntoa(reply[20:24]))
    return [address for address in found if not address.startswith("127.")]


def _end(why: str) -> None:
    """Ends the process whatever its other threads are doing, so that the launcher ends the others."""
    print(f"dlrm_tf2: {why}", file=sys.stderr, flush=True)
    os._exit(1)
