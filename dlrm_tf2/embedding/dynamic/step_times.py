"""StepTimes: the steps of a training and the times at which they were made."""


class StepTimes:
    """Notes of (time, step), ascending; as few as a period needs.

    Args:
      period: how far is looked back, in nanoseconds.
      num_notes: how many notes a period has at most.

    Attributes:
      notes: (nanoseconds, step): this step was the last at this time.
    """

    def __init__(self, period: int, num_notes: int = 1000):
        self._period, self._least = period, period // num_notes
        self.notes: list[tuple[int, int]] = []

    def note(self, time: int, step: int, *, exact: bool = False) -> None:
        """Notes the last step at a time; unless `exact`, only if no note from shortly before is there."""
        if not exact and self.notes and time - self.notes[-1][0] < self._least:
            return
        self.notes.append((time, step))
        while len(self.notes) > 1 and self.notes[1][0] <= time - self._period:
            del self.notes[0]

    def last_step(self, time: int) -> int | None:
        """The last step that is known to have been made at a time; None if no note is so old."""
        return max((step for noted, step in self.notes if noted <= time), default=None)
