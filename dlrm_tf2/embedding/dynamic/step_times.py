"""StepTimes: the steps of a training and the times at which they were made, for expiry after seconds."""

_NOTES = 1000  # in the period that is looked back on


class StepTimes:
    """Notes of (time, step), ascending; as few as a period needs.

    Args:
      period: how far is looked back, in nanoseconds.

    Attributes:
      notes: (nanoseconds, step): this step was the last at this time.
    """

    def __init__(self, period: int):
        self._period = period
        self.notes: list[tuple[int, int]] = []

    def note(self, time: int, step: int) -> None:
        """Notes the last step at a time, unless a note from shortly before is there."""
        if self.notes and time - self.notes[-1][0] < self._period // _NOTES:
            return
        self.notes.append((time, step))
        while len(self.notes) > 1 and self.notes[1][0] <= time - self._period:
            del self.notes[0]

    def last_step(self, time: int) -> int | None:
        """The last step that is known to have been made at a time; None if no note is so old."""
        return max((step for noted, step in self.notes if noted <= time), default=None)
