"""What the ranks of one start report to the supervisor, and why they ended.

The first trouble decides. A rank is lost if its connection breaks without a last word, or if it is silent: the process
was killed, or its machine is gone or cut off. A rank that says that it failed has an error of its own. What happens
after the first trouble is a consequence: the launcher ends the other ranks, and so does the supervisor.
"""

import contextlib
import json
import secrets
import selectors
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from dlrm_tf2.elastic.hosts import is_on
from dlrm_tf2.runtime.elastic import DONE, JOINS, LOST_PEER, STOPPED

_TOGETHER_S = 0.3  # ranks that are lost within this time are lost together, as where their machine is gone
_OTHERS_S = 2.0  # after the first word of trouble, other ranks have this time to say theirs
_AGREED_S = 60.0  # so long after the first rank, all ranks have ended a run that is over
_ALIVE_S = 1.0  # so often the supervisor says that it is there
_PAUSE_S = 2.0  # the supervisor looks more often, unless it was stopped itself


@dataclass
class Rank:
    """A rank of one start.

    Attributes:
      host: the host that it runs on.
      connection: its connection; None before it and after it.
      pid: its process; None before it has connected.
      heard: when it was heard of last.
      doing: what it was doing then.
      step: the last step that it had trained.
      step_at: when that step was done; None before the first.
      last_word: why it ended, a word of runtime/elastic.py; None without such a word.
      reason: the sentence to that word.
      status: the exit status to that word.
      lost_at: when it was lost; None for a rank that was not.
    """

    host: str
    connection: socket.socket | None = None
    pid: int | None = None
    heard: float = 0.0
    doing: str = ""
    step: int = 0
    step_at: float | None = None
    last_word: str | None = None
    reason: str = ""
    status: int = 1
    lost_at: float | None = None
    lines: bytes = field(default=b"", repr=False)


@dataclass(frozen=True)
class Welcome:
    """What each rank hears first.

    Attributes:
      run: name of the run.
      restart: why the ranks were started again, see runtime/elastic.py, with times of time.monotonic() here; None at
        the first start.
    """

    run: str
    restart: dict | None


class Ranks:
    """The connections to the ranks of one start. `close` ends them, and so the ranks.

    Args:
      hosts: the host of each rank, in the order of the list. A launcher may use another order: a rank that has
        connected is on the host that it connects from.
      welcome: what each rank hears first.
      silence_s: a rank that is silent for so long is lost.

    Attributes:
      ranks: the ranks.
      trouble: what has ended this start: the first rank that was lost or said its last word; None before.
      trouble_at: when that was.
      run: name of the run, as rank 0 reports it.
      saved_step: step of the newest checkpoint; None without one in this start.
      finished: the run has reached its end, and its last checkpoint is saved.
      hosts_wait: the slots that the ranks are asked to make room for at their next checkpoint; "" for none.
      regained_s: what the restart has cost, once the training is where it was; None before.
    """

    def __init__(self, hosts: Sequence[str], welcome: Welcome, silence_s: float):
        self.ranks = [Rank(host) for host in hosts]
        self.trouble: Rank | None = None
        self.run, self.saved_step, self.finished, self.regained_s = welcome.run, None, False, None
        self.hosts_wait = ""
        self._welcome, self._silence_s, self._token = welcome, silence_s, secrets.token_hex(8)
        self.trouble_at = self._end_at = self._said_alive = 0.0
        self._ended = ""
        self._looked = time.monotonic()
        self._server = socket.create_server(("", 0), backlog=max(128, len(hosts)))
        self._server.setblocking(False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._server, selectors.EVENT_READ)
        self._strangers: dict[socket.socket, bytes] = {}

    def address(self, machine: Sequence[str]) -> str:
        """The value of the variable with which the ranks find this place. `machine`: addresses of this machine."""
        port = self._server.getsockname()[1]
        return f"{self._token}@{self._silence_s:g}@{','.join(f'{host}:{port}' for host in machine)}"

    @property
    def connected(self) -> list[Rank]:
        """The ranks that are connected now."""
        return [rank for rank in self.ranks if rank.connection]

    @property
    def missing(self) -> list[int]:
        """The ranks that have not connected yet."""
        return [number for number, rank in enumerate(self.ranks) if rank.pid is None]

    @property
    def is_over(self) -> bool:
        """Whether all ranks have connected and ended."""
        return not self.missing and not self.connected

    def look(self, patience_s: float) -> None:
        """Reads what the ranks say, and judges."""
        for key, _ in self._selector.select(patience_s):
            if key.fileobj is self._server:
                with contextlib.suppress(OSError):  # it may be gone again
                    connection, _ = self._server.accept()
                    connection.settimeout(_ALIVE_S)
                    self._strangers[connection] = b""
                    self._selector.register(connection, selectors.EVENT_READ)
            else:
                self._read(key.fileobj)
        now = time.monotonic()
        if now - self._looked > _PAUSE_S + patience_s:
            for rank in self.ranks:
                rank.heard += now - self._looked  # this process was stopped meanwhile, and could not hear
        self._looked = now
        for rank in self.connected:
            if now - rank.heard > self._silence_s:
                self._lose(rank, f"was last heard of {now - rank.heard:.0f} s ago")
        if now - self._said_alive > _ALIVE_S:
            self._said_alive = now
            self.tell({"alive": True})
        if self.trouble and not self._ended and now > self._end_at:
            self.end(self.reason())

    def tell(self, message: dict) -> None:
        """Sends a message to all connected ranks."""
        for rank in self.connected:
            self._send(rank.connection, message)

    def tell_hosts(self, text: str) -> None:
        """Tells the ranks which hosts wait to be taken in; they end at their next checkpoint."""
        if text != self.hosts_wait:
            self.hosts_wait = text
            self.tell({"hosts": text})

    def end(self, reason: str) -> None:
        """Ends the ranks that are left."""
        if not self._ended:
            self._ended = reason
            self.tell({"end": reason})

    def lose_missing(self) -> None:
        """Counts the ranks that have never connected as lost: the launcher has ended."""
        for number in self.missing:
            self._lose(self.ranks[number], "has not started")

    def lost(self) -> list[int]:
        """The rank whose loss was the first trouble, and the ranks that were lost together with it."""
        if self.trouble is None:
            return []
        if self.trouble.last_word == LOST_PEER:  # it has noticed a loss before this place did
            return [number for number, rank in enumerate(self.ranks) if rank.lost_at and rank.last_word is None]
        if self.trouble.lost_at is None:
            return []
        until = self.trouble.lost_at + _TOGETHER_S
        return [number for number, rank in enumerate(self.ranks) if rank.lost_at is not None and rank.lost_at <= until]

    def reason(self) -> str:
        """A sentence about the trouble."""
        if self.trouble is None:
            return "the launcher has ended"
        if lost := self.lost():
            return ", ".join(
                f"rank {number} on {self.ranks[number].host} {self.ranks[number].reason}" for number in lost
            )
        number = next(number for number, rank in enumerate(self.ranks) if rank is self.trouble)
        name = f"rank {number} on {self.trouble.host}: "
        return name + self.trouble.reason.removeprefix(name)

    def close(self) -> None:
        """Ends all connections. A rank that is still there ends when it notices."""
        for connection in [*self._strangers, *(rank.connection for rank in self.connected), self._server]:
            connection.close()
        self._selector.close()

    def _read(self, connection: socket.socket) -> None:
        rank = next((rank for rank in self.ranks if rank.connection is connection), None)
        try:
            received = connection.recv(1 << 16)
        except OSError:
            received = b""
        if not received:
            self._selector.unregister(connection)
            connection.close()
            self._strangers.pop(connection, None)
            if rank:
                rank.connection = None
                if rank.last_word is None:
                    self._lose(rank, f"is gone; its last activity: {rank.doing or 'starting'}")
            return
        if rank is None:
            rank, received = self._recognized(connection, received)
        if rank is not None:
            *lines, rank.lines = (rank.lines + received).split(b"\n")
            for line in lines:
                self._hear(rank, json.loads(line))

    def _recognized(self, connection: socket.socket, received: bytes) -> tuple[Rank | None, bytes]:
        """The rank that a new connection belongs to, and what it said after its name; None for no such rank."""
        self._strangers[connection] += received
        line, newline, rest = self._strangers[connection].partition(b"\n")
        if not newline and len(line) < 4096:
            return None, b""
        del self._strangers[connection]
        try:
            hello = json.loads(line)
            rank = self.ranks[hello["rank"]] if hello["token"] == self._token else None
        except (ValueError, KeyError, TypeError, IndexError):
            rank = None
        if rank is None or rank.pid is not None or self._ended:
            self._selector.unregister(connection)
            connection.close()  # a rank of an earlier start, or a stranger
            return None, b""
        rank.connection, rank.pid, rank.heard = connection, hello["pid"], time.monotonic()
        self._place(rank, hello["host"], connection.getpeername()[0])
        restart = self._welcome.restart
        if restart:
            restart = restart | {name: time.monotonic() - restart[name] for name in ("began", "ended")}
        self._send(connection, {"run": self._welcome.run, "restart": restart, "hosts": self.hosts_wait})
        return rank, rest

    def _place(self, rank: Rank, name: str, address: str) -> None:
        """Gives a rank that has connected the host that it is on; the rank that had this host gets the other one."""
        if is_on(rank.host, name, address):
            return
        waiting = {other.host: other for other in self.ranks if other.pid is None}
        for host, other in waiting.items():
            if is_on(host, name, address):
                rank.host, other.host = host, rank.host
                return

    def _hear(self, rank: Rank, message: dict) -> None:
        rank.heard = time.monotonic()
        rank.doing = message.get("doing", rank.doing)
        if message.get("step"):
            rank.step, rank.step_at = message["step"], rank.heard - message["step_age_s"]
        if message.get("saved_step") is not None:
            self.saved_step = message["saved_step"]
        self.run = message.get("name_of_run", self.run)
        self.finished = message.get("finished", self.finished)
        self.regained_s = message.get("regained_s", self.regained_s)
        if "last_word" in message:
            rank.last_word, rank.reason, rank.status = message["last_word"], message["reason"], message["status"]
            if self.trouble is None:
                agreed = rank.last_word in (STOPPED, JOINS, DONE)  # the other ranks say the same, when they get there
                self.trouble, self.trouble_at = rank, rank.heard
                self._end_at = rank.heard + (_AGREED_S if agreed else _OTHERS_S)

    def _lose(self, rank: Rank, reason: str) -> None:
        now = time.monotonic()
        rank.lost_at, rank.reason = now, reason
        rank.pid = rank.pid or 0
        if rank.connection:
            self._selector.unregister(rank.connection)
            rank.connection.close()
            rank.connection = None
        if self.trouble is None or (self.trouble.last_word == LOST_PEER and not self._ended):
            self.trouble, self.trouble_at, self._end_at = rank, now, now + _TOGETHER_S

    @staticmethod
    def _send(connection: socket.socket, message: dict) -> None:
        with contextlib.suppress(OSError):  # reading notices a broken connection
            connection.sendall(json.dumps(message).encode() + b"\n")
