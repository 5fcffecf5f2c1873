"""The log of a run: flat JSON objects in a file, one a line, TensorBoard scalars, and lines for people on the terminal.

Rank 0 alone writes.
"""

import json
import os
import shutil
import sys
from pathlib import Path

from dlrm_tf2.logs.tensorboard import ScalarWriter


class RunLog:
    """Args:
    path: file to write; replaced if it is there. None for no file.
    enabled: False on every rank but 0, where all calls do nothing.
    live: show lines that overwrite themselves; not under a launcher, which puts its own marks between lines.
    resumed: (run, step) when a run goes on after that step; the file is then not replaced, if it is that run's, but
      goes on where it stood after the step.
    tensorboard: folder for the same numbers as TensorBoard scalars; None for none.

    Attributes:
      continues: the file holds the lines of the run up to the step that it was resumed from.
      shows_live: live lines are shown, because there is a terminal.
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
        self._enabled, self.continues = enabled, False
        self.shows_live = live and enabled and sys.stdout.isatty()
        self._file, self._live_line = None, ""
        self._scalars = ScalarWriter(tensorboard, resumed[1] if resumed else 0) if enabled and tensorboard else None
        if enabled and path:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            kept_bytes = _bytes_until(path, *resumed) if resumed else 0
            self.continues = kept_bytes > 0
            if self.continues:
                os.truncate(path, kept_bytes)
            self._file = open(path, "a" if self.continues else "w", encoding="utf-8")

    def record(self, values: dict) -> None:
        """Appends one JSON object to the file, and its numbers to the scalars."""
        if self._file:
            self._file.write(json.dumps(values) + "\n")
            self._file.flush()
        if self._scalars:
            self._scalars.write(values)

    def say(self, line: str) -> None:
        """Prints a line on standard output."""
        if self._enabled:
            self.live("")
            print(line, flush=True)

    def live(self, line: str) -> None:
        """Prints a line that the next one overwrites, cut to the width of the terminal; only on one."""
        if self.shows_live and (line or self._live_line):
            print(f"\r{line[: shutil.get_terminal_size().columns - 1]}\x1b[K", end="", flush=True)
            self._live_line = line

    def close(self) -> None:
        """Ends what goes into files; lines for people can still be said."""
        self.live("")
        if self._file:
            self._file.close()
        if self._scalars:
            self._scalars.close()
        self._file = self._scalars = None


def _bytes_until(path: str, run: str, step: int) -> int:
    """How far the lines of a run reach that come before those of a later step; 0 if the file is not the run's log.

    A killed process may have left half a line, which does not count.
    """
    kept_bytes = 0
    try:
        with open(path, "rb") as file:
            for number, line in enumerate(file):
                record = json.loads(line) if line.endswith(b"\n") else None
                if not isinstance(record, dict) or (number == 0 and record.get("run") != run):
                    break
                if record.get("step", step) > step:
                    break
                kept_bytes += len(line)
    except (OSError, ValueError):
        pass
    return kept_bytes
