"""From one start of the ranks to the next: who was lost, what is left, and when to give up."""

import secrets
import signal
import threading
import time
from dataclasses import dataclass

from dlrm_tf2.elastic.hosts import Hosts, HostsError, is_this_machine, unreachable
from dlrm_tf2.elastic.launching import Launcher
from dlrm_tf2.elastic.ranks import Ranks, Welcome
from dlrm_tf2.runtime import addresses, terminal
from dlrm_tf2.runtime.elastic import DONE, FAILED, JOINS, STOPPED

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
_LOOK_S = 0.1
_LIST_S = 1.0  # so often the list of hosts is read
_STARTING_S = 30.0  # after this time, and again, hosts whose ranks have not connected are tried by ssh
_MOST_IN_A_ROW = 5  # losses without a new checkpoint, after which another start will not help


@dataclass(frozen=True)
class Rules:
    """What the user decides.

    Attributes:
      launcher: the launcher and its arguments, without the number of ranks and the hosts.
      command: the program and its arguments.
      least, most: ranks; None for no limit.
      patience_s: seconds to wait for `least` slots.
      reset_limit: most restarts; None for no limit.
      silence_s: a rank that is silent for so long is lost.
    """

    launcher: str
    command: tuple[str, ...]
    least: int
    most: int | None
    patience_s: float
    reset_limit: int | None
    silence_s: float


class GivenUp(ValueError):
    """The job ends without success; the message says why."""


class Interrupted(Exception):
    """The user has ended the job. `status` is 128 + the signal."""

    def __init__(self, number: int):
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.status = 128 + number


class Supervisor:
    """Starts the ranks, and starts them again after a loss and when hosts join.

    Args:
      rules: what the user decides.
      hosts: the hosts.
    """

    def __init__(self, rules: Rules, hosts: Hosts):
        self._rules, self._hosts = rules, hosts
        self._run, self._restart = secrets.token_hex(8), None
        self._lost_step, self._began = 0, time.monotonic()
        self._restarts, self._in_a_row, self._lost_s, self._saved_step = 0, 0, 0.0, None
        self._asked: list[int] = []
        self._wanted = ""  # the slots that the next start shall have, where this start has others

    def run(self) -> int:
        """Runs the job to its end. Returns the exit status.

        Raises:
          GivenUp: the ranks failed, or there are too few slots, or too many restarts.
          HostsError: the list of hosts cannot be read at the start.
        """
        before = {number: signal.signal(number, lambda number, _: self._asked.append(number)) for number in _SIGNALS}
        try:
            self._hosts.update()
            status = None
            while status is None:
                slots = self._wait_for_slots()
                ranks = self._start(slots)
                status = self._judge(ranks, slots)
            return status
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _wait_for_slots(self) -> dict[str, int]:
        """The slots of the next start. Tries hosts by ssh, and waits until `least` slots are there."""
        deadline, said = time.monotonic() + self._rules.patience_s, None
        while True:
            slots = self._hosts.slots(self._rules.most)
            gone = unreachable(list(slots))
            for host in gone:
                seconds = self._hosts.lose(host, slots[host])
                terminal.warn(f"elastic: host {host} cannot be reached by ssh; it is left out for {seconds:.0f} s")
            if gone:
                continue
            found = sum(slots.values())
            if found >= self._rules.least:
                return slots
            if time.monotonic() > deadline:
                raise GivenUp(
                    f"{_ranks(found)} can be started, and --min_np is {self._rules.least}; more did not come within "
                    f"{self._rules.patience_s:g} s (--elastic_timeout).{self._kept()}"
                )
            if found != said:
                said = found
                terminal.warn(
                    f"elastic: {_ranks(found)} can be started, and --min_np is {self._rules.least}: waits for "
                    f"{self._rules.patience_s:g} s"
                )
            self._sleep()

    def _sleep(self) -> None:
        time.sleep(_LIST_S)
        if self._asked:
            raise Interrupted(self._asked[0])
        self._update_hosts()

    def _update_hosts(self) -> None:
        try:
            self._hosts.update()
        except HostsError as error:
            terminal.warn(f"elastic: {error}; the list before it counts")

    def _start(self, slots: dict[str, int]) -> Ranks:
        """One start of the ranks, to its end."""
        hosts = [host for host, number in slots.items() for _ in range(number)]
        ranks = Ranks(hosts, Welcome(self._run, self._restart), self._rules.silence_s)
        machine = ["127.0.0.1"] if all(map(is_this_machine, slots)) else addresses.of_this_machine()
        launcher = Launcher(self._rules.launcher, slots, command=self._rules.command, supervisor=ranks.address(machine))
        told, over, self._wanted = len(self._asked), threading.Event(), ""
        threading.Thread(target=self._watch_hosts, args=(slots, over), daemon=True).start()
        try:
            tries = time.monotonic() + _STARTING_S
            while not ranks.is_over:
                ranks.look(_LOOK_S)
                ranks.tell_hosts(self._wanted)
                if len(self._asked) > told:
                    told = len(self._asked)
                    self._pass_on(ranks)
                if launcher.status is not None and not ranks.connected:
                    break
                if ranks.missing and time.monotonic() > tries:
                    tries = time.monotonic() + _STARTING_S
                    if unreachable(sorted({ranks.ranks[number].host for number in ranks.missing})):
                        ranks.lose_missing()
        finally:
            over.set()
            ranks.close()
            launcher.end([rank.pid for rank in ranks.ranks if rank.pid and is_this_machine(rank.host)])
        self._launcher, self._ended = launcher, time.monotonic()
        return ranks

    def _pass_on(self, ranks: Ranks) -> None:
        """Passes a request to stop on to the ranks; the second ends them at once."""
        number = self._asked[-1]
        if len(self._asked) > 1 or not ranks.connected:
            terminal.warn("elastic: stopped at once")
            raise Interrupted(number)
        terminal.warn(
            f"elastic: {signal.Signals(number).name}: the ranks save a checkpoint and end; a second signal ends them "
            "at once"
        )
        ranks.tell({"stop": int(number)})

    def _watch_hosts(self, slots: dict[str, int], over: threading.Event) -> None:
        """Reads the list of hosts while the ranks work, and notices when other slots are there than they have."""
        while not over.wait(_LIST_S):
            self._update_hosts()
            wanted = self._hosts.slots(self._rules.most)
            if wanted == slots or sum(wanted.values()) < self._rules.least:
                self._wanted = ""
                continue
            if _text(wanted) == self._wanted:
                continue
            more = [host for host, number in wanted.items() if number > slots.get(host, 0)]
            for host in unreachable(more):
                self._hosts.lose(host, wanted[host])
            wanted = self._hosts.slots(self._rules.most)
            if wanted != slots and sum(wanted.values()) >= self._rules.least and not over.is_set():
                self._wanted = _text(wanted)

    def _judge(self, ranks: Ranks, slots: dict[str, int]) -> int | None:
        """What follows from the end of a start: an exit status, or None for another start.

        Raises:
          GivenUp: another start would not help.
        """
        trouble, reason = ranks.trouble, ranks.reason()
        self._run = ranks.run
        if ranks.saved_step is not None and ranks.saved_step != self._saved_step:
            self._saved_step, self._in_a_row = ranks.saved_step, 0
        if self._asked and (trouble is None or trouble.last_word != DONE):
            terminal.warn(f"elastic: {reason}")
            return 128 + self._asked[0]
        if trouble is None and not unreachable(list(slots)):
            raise GivenUp(
                f"the launcher ended with status {self._launcher.status} before a rank of a training had "
                "connected. The hosts can be reached; the lines above say why."
            )
        ranks.lose_missing()
        trouble, reason = ranks.trouble, ranks.reason()
        if trouble.last_word == DONE:
            return 0
        if trouble.last_word == STOPPED:
            terminal.warn(f"elastic: {reason}")
            return trouble.status
        if trouble.last_word == FAILED:
            raise GivenUp(f"{reason}\nelastic: another start does not mend an error of the program.{self._kept()}")
        if ranks.finished:
            raise GivenUp(f"{reason}, after the last checkpoint of the run was saved. The training is complete.")
        self._count_loss(ranks, slots, reason)
        return None

    def _count_loss(self, ranks: Ranks, slots: dict[str, int], reason: str) -> None:
        """Leaves out what was lost, and notes what the ranks of the next start hear."""
        joins, lost = ranks.trouble.last_word == JOINS, []
        if not joins:
            hosts = [rank.host for rank in ranks.ranks]
            gone = unreachable(list(slots))
            self._end_ranks(ranks, gone)
            blamed = [number for number, host in enumerate(hosts) if host in gone] if gone else ranks.lost()
            for host in dict.fromkeys(hosts[number] for number in blamed):
                self._hosts.lose(host, sum(hosts[number] == host for number in blamed))
            lost = [f"rank {number} on {hosts[number]}" for number in blamed]
            self._in_a_row += 1
        newest = max(ranks.ranks, key=lambda rank: rank.step)
        if self._restart is None or ranks.regained_s is not None:  # otherwise the restart before still costs time
            self._lost_s += ranks.regained_s or 0.0
            self._lost_step, self._began = newest.step, newest.step_at or time.monotonic()
        self._restarts += 1
        self._restart = {
            "number": self._restarts, "reason": reason, "lost": lost, "lost_step": self._lost_step,
            "detect_s": ranks.trouble_at - (newest.step_at or ranks.trouble_at),
            "stop_s": self._ended - ranks.trouble_at, "began": self._began, "ended": self._ended,
            "seconds_before": self._lost_s,
        }  # fmt: skip
        terminal.warn(f"elastic: {'hosts join: ' if joins else ''}{reason} (step {newest.step})")
        if self._rules.reset_limit is not None and self._restarts > self._rules.reset_limit:
            raise GivenUp(
                f"this would be restart {self._restarts}, and --reset_limit is {self._rules.reset_limit}.{self._kept()}"
            )
        if self._in_a_row > _MOST_IN_A_ROW:
            raise GivenUp(f"{self._in_a_row} starts in a row have lost a rank before a checkpoint.{self._kept()}")

    def _end_ranks(self, ranks: Ranks, gone: list[str]) -> None:
        """Ends the ranks that are silent, on the hosts that can be reached: they must not write any more."""
        silent: dict[str, list[int]] = {}
        for rank in ranks.ranks:
            if rank.pid and rank.last_word is None and rank.host not in gone and not is_this_machine(rank.host):
                silent.setdefault(rank.host, []).append(rank.pid)
        for host, pids in silent.items():
            self._launcher.end_ranks(host, pids)

    def _kept(self) -> str:
        if self._saved_step is None:
            return ""
        return f" The checkpoint of step {self._saved_step} is kept: the same command resumes from there."


def _ranks(number: int) -> str:
    return "1 rank" if number == 1 else f"{number} ranks"


def _text(slots: dict[str, int]) -> str:
    return ",".join(f"{host}:{number}" for host, number in slots.items())
