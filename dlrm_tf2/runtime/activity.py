"""What this process is doing, for the line that says so when it hangs: every module may tell, and `watchdog` reads."""

import time
from dataclasses import dataclass


@dataclass
class Activity:
    """What a process is doing.

    Attributes:
      doing: in words that go on from "while".
      count: how often it began something; the ranks do the same things in turn, so the lowest count is behind.
      since: when it began that, or last said that it goes on; time.monotonic() of this machine.
    """

    doing: str = "starting"
    count: int = 0
    since: float = 0.0

    def begin(self, doing: str) -> None:
        self.doing, self.count, self.since = doing, self.count + 1, time.monotonic()


OF_PROCESS = Activity(since=time.monotonic())


def doing(what: str) -> None:
    """Says what this process begins to do, such as "training step 7"; all ranks must say the same things in turn."""
    OF_PROCESS.begin(what)


def goes_on() -> None:
    """Says that what takes long makes progress; as often as one likes, on any rank."""
    OF_PROCESS.since = time.monotonic()
