"""What this process is doing: any module reports it, and watchdog.py reads it when the process hangs."""

import time
from dataclasses import dataclass


@dataclass
class Activity:
    """What a process is doing.

    Attributes:
      doing: words that follow "while" in a message, such as "training step 7".
      count: how many activities have begun. All ranks begin the same ones in turn, so the lowest count is behind.
      since: time.monotonic() of this machine when the activity began, or last reported progress.
    """

    doing: str = "starting"
    count: int = 0
    since: float = 0.0

    def begin(self, doing: str) -> None:
        self.doing, self.count, self.since = doing, self.count + 1, time.monotonic()


OF_PROCESS = Activity(since=time.monotonic())


def doing(what: str) -> None:
    """Reports what this process begins to do, such as "training step 7". All ranks report the same in turn."""
    OF_PROCESS.begin(what)


def report_progress() -> None:
    """Reports that a long activity makes progress; on any rank, any number of times."""
    OF_PROCESS.since = time.monotonic()
