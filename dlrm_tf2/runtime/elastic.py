"""A rank's end of an elastic job: its connection to the supervisor (dlrm_tf2/elastic), which starts the ranks again.

The supervisor learns from the connection what the rank does and why it ends. A connection that breaks without a last
word means that the rank is gone. The rank learns that another rank is gone, that hosts wait to be taken in, that the
training shall stop, and, by the silence of the supervisor, that its own machine is cut off. Each message is a JSON
object on a line of its own.
"""

import contextlib
import json
import os
import select
import signal
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

from dlrm_tf2.runtime import process, terminal
from dlrm_tf2.runtime.activity import OF_PROCESS
from dlrm_tf2.runtime.stopping import Stopped

_PERIOD_S = 0.5
_CONNECTING_S = 5.0  # for each address of the supervisor
_WELCOME_S = 60.0  # for a supervisor that is busy or was stopped for a while
# A rank ends itself a little earlier than the supervisor counts it as lost: then it holds no lock any more.
_PATIENCE = 0.75
# The last words of a rank.
DONE, STOPPED, JOINS, LOST_PEER, FAILED = "done", "stopped", "joins", "lost peer", "failed"


class ElasticError(ValueError):
    """The process is no rank of an elastic job, or its supervisor cannot be reached."""


class PeerLost(RuntimeError):
    """Another rank has ended the exchanges of this rank."""


class HostsJoin(Exception):
    """The checkpoint is saved, and the ranks end so that the supervisor starts them again on other hosts."""


@dataclass(frozen=True)
class Restart:
    """Why the ranks were started again.

    Attributes:
      number: how often the ranks of this job have been started again.
      reason: a sentence for people.
      lost: the ranks that were lost, such as "rank 2 on host b"; empty if hosts joined.
      lost_step: the last step that the ranks had trained before.
      seconds_before: seconds that the restarts before this one have cost.
      detect_s: seconds from the last step until the loss was noticed, or until the ranks agreed to make room.
      stop_s: seconds from then until all processes had ended.
      began: time.monotonic() when step `lost_step` was done, in the clock of this process.
      ended: when all processes had ended, likewise.
    """

    number: int
    reason: str
    lost: tuple[str, ...]
    lost_step: int
    seconds_before: float
    detect_s: float
    stop_s: float
    began: float
    ended: float

    def record(self, world_size: int) -> dict:
        """The line of the log at the start."""
        return {
            "restart": self.number,
            "reason": self.reason,
            "lost": list(self.lost),
            "lost_after_step": self.lost_step,
            "world_size": world_size,
            "detect_s": round(self.detect_s, 3),
            "stop_s": round(self.stop_s, 3),
            "start_s": round(time.monotonic() - self.ended, 3),
            "seconds_lost_before": round(self.seconds_before, 3),
        }


class NotElastic:
    """The link of a process that is no rank of an elastic job: nothing happens.

    Attributes:
      run: name of the run, the same for all starts of the ranks; None for a name of its own.
      restart: why the ranks were started again; None at their first start.
      hosts: which hosts wait to be taken in; "" for none.
    """

    run: str | None = None
    restart: Restart | None = None
    hosts = ""

    def report(self, **values: object) -> None:
        """Tells the supervisor something about the run."""

    def step_done(self, step: int, saved_step: int | None) -> dict | None:
        """Counts a step that is done, and the step of the newest checkpoint.

        Returns:
          A line for the log when the training is where it was before its last restart; otherwise None.
        """


NOT_ELASTIC = NotElastic()


class Link(NotElastic):
    """The connection of this rank to the supervisor.

    Args:
      address: value of the variable that the supervisor sets: `TOKEN@SILENCE@HOST:PORT,HOST:PORT...`.
      rank: rank of this process.

    Raises:
      ElasticError: no address of the supervisor answers, or it does not expect this rank.
    """

    def __init__(self, address: str, rank: int):
        token, silence_s, addresses = address.split("@")
        self._rank, self._silence_s = rank, float(silence_s) * _PATIENCE
        self._socket = _connected(addresses.split(","))
        self._readable = select.poll()
        self._readable.register(self._socket, select.POLLIN)
        self._step, self._step_at, self._saved = 0, time.monotonic(), None
        self._sending, self._ending = threading.Lock(), threading.Event()
        self._lines = b""
        self._send({"token": token, "rank": rank, "pid": os.getpid(), "host": socket.gethostname()})
        welcome = self._welcome()
        self.run, self.hosts, restart = welcome["run"], welcome["hosts"], welcome["restart"]
        if restart:
            times = {name: time.monotonic() - restart[name] for name in ("began", "ended")}  # sent as seconds ago
            self.restart = Restart(**restart | times | {"lost": tuple(restart["lost"])})
        self._regained = self.restart is None
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # from the launcher, when another rank is gone
        threading.Thread(target=self._watch, daemon=True).start()

    def report(self, **values: object) -> None:
        self._send(values)

    def step_done(self, step: int, saved_step: int | None) -> dict | None:
        self._step, self._step_at, self._saved = step, time.monotonic(), saved_step
        if self._regained or step < self.restart.lost_step:
            return None
        self._regained = True
        seconds = round(self._step_at - self.restart.began, 3)
        self._send({"regained_s": seconds})
        return {"step": step, "restart": self.restart.number, "seconds_lost": seconds}

    def end_process(self, reason: str, peer_is_lost: bool) -> None:
        """Ends the process at once, in any state of its other threads. The watchdog of the process calls it."""
        terminal.warn(f"dlrm_tf2: {reason}")
        self.say_last(LOST_PEER if peer_is_lost else FAILED, reason)
        os._exit(1)

    def say_last(self, word: str, reason: str = "", status: int = 1) -> None:
        """Tells the supervisor why this rank ends: one of the last words of this module, a sentence, an exit status."""
        self._ending.set()
        self._send({"last_word": word, "reason": reason, "status": status, **self._activity()})

    def _watch(self) -> None:
        heard = looked = time.monotonic()
        while not self._ending.is_set():
            self._send(self._activity())
            message = self._received(_PERIOD_S)
            now = time.monotonic()
            if now - looked > 4 * _PERIOD_S:
                heard += now - looked  # this process was stopped meanwhile, and could not hear
            looked = now
            if message is not None:
                heard = now
                self._obey(message)
            elif now - heard > self._silence_s:
                self._lose(f"the supervisor was last heard of {now - heard:.0f} s ago")

    def _obey(self, message: dict) -> None:
        self.hosts = message.get("hosts", self.hosts)
        if "end" in message:
            self._lose(message["end"])
        if number := message.get("stop"):
            if signal.getsignal(signal.SIGTERM) != signal.SIG_IGN:  # inside of StopRequest
                os.kill(os.getpid(), number)
            else:
                self.say_last(STOPPED, "stopped before the training began", 128 + number)
                os._exit(128 + number)

    def _lose(self, reason: str) -> None:
        """Ends the process because of another rank, or because its machine is cut off."""
        if not self._ending.is_set():
            terminal.warn(f"dlrm_tf2: rank {self._rank}: {reason}; this rank ends")
            self.say_last(LOST_PEER, reason)
            os._exit(1)

    def _activity(self) -> dict:
        age_s = time.monotonic() - self._step_at
        return {"doing": OF_PROCESS.doing, "step": self._step, "step_age_s": age_s, "saved_step": self._saved}

    def _welcome(self) -> dict:
        deadline = time.monotonic() + _WELCOME_S
        while time.monotonic() < deadline:
            if (message := self._received(_PERIOD_S)) is not None and "run" in message:
                return message
        raise ElasticError(f"rank {self._rank}: the supervisor of the elastic job does not answer")

    def _received(self, patience_s: float) -> dict | None:
        """The next message; None if none comes in time. A broken connection ends the process."""
        if b"\n" not in self._lines and self._readable.poll(1e3 * patience_s):
            try:
                received = self._socket.recv(4096)
            except OSError:
                received = b""
            if not received:
                self._lose("the supervisor of the elastic job is gone")
                raise ElasticError(f"rank {self._rank}: the supervisor of the elastic job does not expect this rank")
            self._lines += received
        line, newline, rest = self._lines.partition(b"\n")
        if not newline:
            return None
        self._lines = rest
        return json.loads(line)

    def _send(self, message: dict) -> None:
        with self._sending, contextlib.suppress(OSError):  # _received notices a broken connection
            self._socket.sendall(json.dumps(message).encode() + b"\n")


@contextlib.contextmanager
def supervised(elastic: bool, rank: int) -> Iterator[NotElastic]:
    """A context with the link to the supervisor, which tells it why this process leaves the context.

    Args:
      elastic: --elastic; without it, nothing happens.
      rank: rank of this process.

    Raises:
      ElasticError: this process was not started by the supervisor, or cannot reach it.
    """
    if not elastic:
        yield NOT_ELASTIC
        return
    address = process.elastic_supervisor()
    if address is None:
        raise ElasticError(
            "--elastic: no supervisor has started this process, and a launcher alone does not start lost ranks again. "
            "Start the job with `python -m dlrm_tf2.elastic`, which gives this flag, or leave --elastic out."
        )
    link = Link(address, rank)
    try:
        yield link
    except HostsJoin as joins:
        link.say_last(JOINS, str(joins))
    except Stopped as stopped:
        link.say_last(STOPPED, str(stopped), stopped.status)
        raise
    except PeerLost as lost:
        link.say_last(LOST_PEER, str(lost))
        raise
    except BaseException as error:
        link.say_last(FAILED, f"{type(error).__name__}: {error}" if not isinstance(error, ValueError) else str(error))
        raise
    else:
        link.say_last(DONE)


def _connected(addresses: list[str]) -> socket.socket:
    reasons = []
    for address in addresses:
        host, _, port = address.rpartition(":")
        try:
            connection = socket.create_connection((host, int(port)), timeout=_CONNECTING_S)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return connection
        except OSError as error:
            reasons.append(f"{address}: {error.strerror or error}")
    raise ElasticError(f"the supervisor of the elastic job cannot be reached: {'; '.join(reasons)}")
