"""Progress of a long stage: a live line with the rate and the time left, and one summary line at the end.

Where stderr is not a terminal but a file, such as the log of a job, a new line is printed every half minute instead.
"""

import contextlib
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

_BEGINNING = b'{"stage": "'  # of each line of a log
_REFRESH_S = 0.5
_REFRESH_IN_A_FILE_S = 30.0


@contextlib.contextmanager
def progress_log(name: str | None) -> Iterator[TextIO | None]:
    """Opens the log that `--log_json` names, to append to it: "-" is stderr, None no log.

    Raises:
      ValueError: the file exists, is not empty, and does not begin as a log of progress.
    """
    if name is None or name == "-":
        yield sys.stderr if name else None
        return
    path = Path(name)
    if path.is_file() and path.stat().st_size:
        with open(path, "rb") as file:
            if not file.read(len(_BEGINNING)) == _BEGINNING:
                raise ValueError(f"--log_json {name}: is not a log of progress. Name another file, or delete this one.")
    with open(path, "a", encoding="utf-8") as file:
        yield file


class Progress:
    """Counts the finished part of a stage and prints it on stderr.

    Args:
      stage: name of the stage, such as "parse".
      total: the whole work in `unit`; None where it is not known, and then the time left is not shown.
      unit: what is counted, such as "rows" or "bytes".
      quiet: print nothing.
      log: text file that takes the progress as JSON objects, one line each, also when quiet; None for no log.
    """

    def __init__(self, stage: str, total: int | None, *, unit: str, quiet: bool = False, log: TextIO | None = None):
        self.stage, self.total, self.unit, self.quiet, self.log = stage, total, unit, quiet, log
        self.done = 0
        self._live = sys.stderr.isatty() and not quiet
        self._start = self._shown = self._logged = time.monotonic()

    def __enter__(self) -> "Progress":
        return self

    def advance(self, amount: int) -> None:
        self.done += amount
        now = time.monotonic()
        if self.log and now - self._logged >= _REFRESH_S:
            self._logged = now
            self._write_log(now, "running")
        if self.quiet or now - self._shown < (_REFRESH_S if self._live else _REFRESH_IN_A_FILE_S):
            return
        self._shown = now
        start, end = ("\r", "\x1b[K") if self._live else ("", "\n")
        print(f"{start}{self._line(now)}", end=end, file=sys.stderr, flush=True)

    def __exit__(self, exception_type, exception, traceback) -> None:
        if self.log:
            self._write_log(time.monotonic(), "done" if exception_type is None else "stopped")
        if self.quiet:
            return
        seconds = time.monotonic() - self._start
        end = "" if exception_type is None else ", stopped"
        clear = "\r\x1b[K" if self._live else ""
        rate = _count(self.done / seconds) if seconds > 0 else "-"
        print(
            f"{clear}{self.stage}: {_count(self.done)} {self.unit} in {seconds:.1f} s ({rate} {self.unit}/s){end}",
            file=sys.stderr,
            flush=True,
        )

    def _write_log(self, now: float, state: str) -> None:
        seconds = now - self._start
        rate = self.done / seconds if seconds > 0 else None
        left = max(0, self.total - self.done) / rate if self.total and rate and state == "running" else None
        state = {"stage": self.stage, "state": state, "done": self.done, "total": self.total, "unit": self.unit}
        state |= {"seconds": round(seconds, 3), "rate": rate, "seconds_left": left}
        print(json.dumps(state), file=self.log, flush=True)

    def _line(self, now: float) -> str:
        seconds = now - self._start
        rate = self.done / seconds if seconds > 0 else 0.0
        line = f"{self.stage}: {_count(self.done)} {self.unit}, {_count(rate)} {self.unit}/s"
        if self.total and rate > 0:
            left_s = max(0, self.total - self.done) / rate
            line += f", {100 * self.done / self.total:.0f} %, {left_s:.0f} s left"
        return line


def _count(number: float) -> str:
    for size, suffix in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if number >= size:
            return f"{number / size:.2f}{suffix}"
    return f"{number:.0f}"
