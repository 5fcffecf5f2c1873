"""Where a run reports: JSON objects in a file, TensorBoard scalars, and lines for people. Rank 0 alone writes."""

import shutil

from dlrm_tf2.logs.log_file import LogFile
from dlrm_tf2.logs.run_observer import RunObserver
from dlrm_tf2.logs.tensorboard import ScalarWriter
from dlrm_tf2.runtime import terminal


class RunLog:
    """Writes the records of a run. A full disk or a closed terminal does not end the run: a warning says so once.

    Args:
      path: file of the log, see LogFile; None for no file.
      enabled: False on every rank but 0, where all calls do nothing.
      live: show lines that overwrite themselves. Not under a launcher, which puts its own marks between lines.
      resumed: (run, step) of a run that is resumed after that step; None for a new run.
      tensorboard: folder for the same numbers as TensorBoard scalars; None for none.

    Attributes:
      continues: the file holds the lines of the resumed run up to its step.
      shows_live: live lines are shown, because standard output is a terminal.
      observers: what else follows the run; empty on every rank but 0.

    Raises:
      ValueError: the file or the folder cannot be written.
    """

    def __init__(
        self,
        path: str | None,
        enabled: bool,
        *,
        live: bool = True,
        resumed: tuple[str, int] | None = None,
        tensorboard: str | None = None,
    ):
        self._enabled, self._live_line = enabled, ""
        self.observers: list[RunObserver] = []
        self.shows_live = live and enabled and terminal.is_terminal()
        self._file = LogFile(path, resumed) if enabled and path else None
        self.continues = self._file is not None and self._file.continues
        self._scalars = ScalarWriter(tensorboard, resumed[1] if resumed else 0) if enabled and tensorboard else None

    def record(self, values: dict) -> None:
        """Appends one JSON object to the file, and its numbers to the scalars."""
        if self._file:
            self._file.append(values)
        if self._scalars:
            self._scalars.write(values)

    def say(self, line: str) -> None:
        """Prints a line on standard output."""
        if self._enabled:
            self.live("")
            terminal.say(line)

    def live(self, line: str) -> None:
        """Prints a line that the next line overwrites, cut to the width of the terminal; only on a terminal."""
        if self.shows_live and (line or self._live_line):
            terminal.say(f"\r{line[: shutil.get_terminal_size().columns - 1]}\x1b[K", end="")
            self._live_line = line

    def close(self) -> None:
        """Closes the file and the scalars. Lines for people can still be printed."""
        self.live("")
        if self._file:
            self._file.close()
        if self._scalars:
            self._scalars.close()
        self._file = self._scalars = None
