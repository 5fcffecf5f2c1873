"""How a training is asked to stop, and how it says that it has."""


class Stopped(Exception):
    """The training was asked to stop, and has.

    Attributes:
      step: the last step that was trained.
      saved_step: that of the newest checkpoint; None if there is none.
    """

    def __init__(self, step: int, saved_step: int | None):
        super().__init__(f"stopped after step {step}")
        self.step, self.saved_step = step, saved_step


class StopRequest:
    """Whether this process was asked to stop."""

    asked = False


NEVER = StopRequest()
