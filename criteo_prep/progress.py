"""Progress of a long stage: a live line with the rate and the time left, and one summary line at the end.

On a terminal, rich draws the live line. Where stderr is not a terminal but a file, such as the log of a job, a new line
is printed every half minute instead, without any control character.
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
        self._live = _LiveLine(stage) if sys.stderr.isatty() and not quiet else None
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
        if self._live:
            self._live.show(self.done, self.total, counted=self._counted(now))
        else:
            print(self._line(now), file=sys.stderr, flush=True)

    def __exit__(self, exception_type, exception, traceback) -> None:
        if self.log:
            self._write_log(time.monotonic(), "done" if exception_type is None else "stopped")
        if self.quiet:
            return
        seconds = time.monotonic() - self._start
        end = "" if exception_type is None else ", stopped"
        if self._live:
            self._live.close()
        rate = _count(self.done / seconds) if seconds > 0 else "-"
        print(
            f"{self.stage}: {_count(self.done)} {self.unit} in {seconds:.1f} s ({rate} {self.unit}/s){end}",
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

    def _counted(self, now: float) -> str:
        """The finished work and the rate, as text."""
        seconds = now - self._start
        rate = self.done / seconds if seconds > 0 else 0.0
        return f"{_count(self.done)} {self.unit}, {_count(rate)} {self.unit}/s"

    def _line(self, now: float) -> str:
        line = f"{self.stage}: {self._counted(now)}"
        if self.total and self.done and now > self._start:
            left_s = max(0, self.total - self.done) * (now - self._start) / self.done
            line += f", {100 * self.done / self.total:.0f} %, {left_s:.0f} s left"
        return line


class _LiveLine:
    """A line on a terminal, redrawn in place: the stage, a bar, the share, what was counted, the time left.

    Nothing is drawn, and rich is not imported, before the first `show`.
    """

    def __init__(self, stage: str):
        self._stage, self._bar = stage, None

    def show(self, done: int, total: int | None, *, counted: str) -> None:
        """Draws the line again.

        Args:
          done: the finished work.
          total: the whole work; None where it is not known: then there are no share and no time left.
          counted: the finished work and the rate, as text.
        """
        if self._bar is None:
            self._bar = self._open()
        self._bar.update(self._bar.task_ids[0], completed=done, total=total, counted=counted)
        self._bar.refresh()

    def close(self) -> None:
        """Removes the line."""
        if self._bar is not None:
            self._bar.stop()

    def _open(self):
        from rich.console import Console
        from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        columns = [TextColumn("{task.description}", markup=False), BarColumn(bar_width=24), TaskProgressColumn()]
        columns += [TextColumn("{task.fields[counted]}", markup=False), TimeRemainingColumn()]
        bar = Bar(
            *columns,
            console=Console(file=sys.stderr),
            auto_refresh=False,  # no thread: it is drawn when work was done
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
            get_time=time.monotonic,
        )
        bar.add_task(self._stage, total=None, counted="")
        bar.start()
        return bar


def _count(number: float) -> str:
    for size, suffix in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if number >= size:
            return f"{number / size:.2f}{suffix}"
    return f"{number:.0f}"
