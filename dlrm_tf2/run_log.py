"""The log of a run: flat JSON objects in a file, one a line, and lines for people on the terminal.

Rank 0 alone writes.
"""

import json
import sys
from pathlib import Path


class RunLog:
    """Args:
    path: file to write; replaced if it is there. None for no file.
    enabled: False on every rank but 0, where all calls do nothing.
    live: show lines that overwrite themselves; not under a launcher, which puts its own marks between lines.
    """

    def __init__(self, path: str | None, enabled: bool, live: bool = True):
        self._enabled = enabled
        self._live = live and enabled and sys.stdout.isatty()
        self._file = None
        if enabled and path:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            self._file = open(path, "w", encoding="utf-8")

    def record(self, values: dict) -> None:
        """Appends one JSON object to the file."""
        if self._file:
            self._file.write(json.dumps(values) + "\n")
            self._file.flush()

    def say(self, line: str) -> None:
        """Prints a line on standard output."""
        if self._enabled:
            print(line, flush=True)

    def live(self, line: str) -> None:
        """Prints a line that the next one overwrites; only on a terminal."""
        if self._live:
            print(f"\r{line}\x1b[K", end="", flush=True)

    def close(self) -> None:
        if self._file:
            self._file.close()
