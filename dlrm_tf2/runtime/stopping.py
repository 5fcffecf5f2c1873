"""How a training is asked to stop, and the exception with which it stops."""

import os
import signal
import threading
from collections.abc import Iterable

from dlrm_tf2.runtime import terminal

# A terminal sends SIGINT; launchers, schedulers and `kill` send SIGTERM; mpirun passes SIGUSR1 on to the ranks.
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


class Stopped(Exception):
    """The training was asked to stop, and has stopped.

    Args:
      step: last step that was trained.
      saved_step: step of the newest checkpoint; None where there is no checkpoint.
      signals: number of the signal that each rank received; None for a rank that received none.
      checkpoint: folder of the newest checkpoint; None where nothing is saved.
    """

    def __init__(
        self, step: int, saved_step: int | None, *, signals: Iterable[int | None], checkpoint: str | None = None
    ):
        self.step, self.saved_step = step, saved_step
        self.signal = signal.Signals(next(filter(None, signals)))
        saved = "nothing saved: no --save_checkpoint_path"
        if saved_step is not None:
            saved = f"saved {checkpoint}: the same command resumes from there"
        super().__init__(f"stopped by {self.signal.name} after step {step}; {saved}")

    @property
    def status(self) -> int:
        """The exit status that shells give to a process that a signal ended."""
        return 128 + self.signal


class StopRequest:
    """Whether this process was asked to stop, by Ctrl-C, SIGTERM or SIGUSR1.

    A context manager: inside it these signals only set `asked`, but a second Ctrl-C ends the process at once. Python
    runs its signal handlers in the main thread, and never runs them while that thread hangs in an exchange. So a thread
    reads the numbers of the signals from a pipe, into which Python's C code writes them at any time.

    Attributes:
      signal: number of the first signal; None before it.
    """

    def __init__(self):
        self.signal: int | None = None

    @property
    def asked(self) -> bool:
        return self.signal is not None

    def __enter__(self) -> "StopRequest":
        numbers, self._pipe = os.pipe()
        os.set_blocking(self._pipe, False)
        self._handlers = {number: signal.signal(number, lambda *_: None) for number in _SIGNALS}
        self._wakeup = signal.set_wakeup_fd(self._pipe)
        threading.Thread(target=self._listen, args=(numbers,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        signal.set_wakeup_fd(self._wakeup)
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        os.close(self._pipe)  # ends the thread

    def _listen(self, numbers: int) -> None:
        while received := os.read(numbers, 64):
            for number in filter(_SIGNALS.__contains__, received):
                if number == self.signal == signal.SIGINT:
                    terminal.warn("stopped at once")
                    os._exit(128 + number)
                if number == signal.SIGINT:
                    terminal.warn("stopping after this step; Ctrl-C again stops at once")
                self.signal = self.signal or number
        os.close(numbers)


NEVER = StopRequest()
