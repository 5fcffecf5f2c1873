"""KnownSteps: what a dynamic table knows of its past, for dumps of what has changed in it."""

import time as clock

from dlrm_tf2.embedding.dynamic.step_times import StepTimes

_PERIOD = 30 * 24 * 3600 * 10**9  # nanoseconds
_NOTES = 100_000  # in the period: one in 26 s


class KnownSteps:
    """When steps were made, and from which step on the keys that left are known.

    Attributes:
      departures_from: the first step whose leaving keys are all known, where the table notes them.
    """

    def __init__(self) -> None:
        self.begin_after(0)

    def begin_after(self, step: int) -> None:
        """Forgets the past: the table has now the content that it had after a step."""
        self.departures_from = step + 1 if step else 0
        self._times = StepTimes(_PERIOD, _NOTES)
        self._times.note(clock.time_ns(), step)

    def note(self, time: int, step: int, *, exact: bool = False) -> None:
        """Notes that a step was the last one at a time, in nanoseconds.

        Args:
          exact: whether the note is wanted although another one is from shortly before.
        """
        self._times.note(time, step, exact=exact)

    def forget_departures(self, before_step: int) -> None:
        """The keys that left before a step are no longer known."""
        self.departures_from = max(self.departures_from, before_step)

    def first_step_since(self, time: int) -> int | None:
        """A step, 1 or later, so that everything that has changed since a time changed in this step or later.

        It is the step after the last note before the time. None if no note is so old.
        """
        last = self._times.last_step(time)
        return None if last is None else last + 1

    def oldest(self) -> int:
        """The time of the oldest note, in nanoseconds."""
        return min(time for time, _ in self._times.notes)
