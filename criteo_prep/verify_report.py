"""What `criteo-prep verify` works on and reports: jobs, checks, and the report of all checks."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from criteo_prep.messages import one_line


@dataclass(frozen=True)
class Check:
    """One line of the report.

    Attributes:
      subject: what the line is about: a file, a split, a kind of check.
      found: what was found.
      good: whether that is good.
      checked: whether anything was checked; False for a note about what was not.
    """

    subject: str
    found: str
    good: bool = True
    checked: bool = True

    def line(self, width: int) -> str:
        mark = "BAD" if not self.good else "good" if self.checked else "note"
        return f"{mark:5}{one_line(self.subject, 100):{width}}  {one_line(self.found)}"


@dataclass(frozen=True)
class Report:
    """All checks of one dataset."""

    root: Path
    checks: tuple[Check, ...]

    @property
    def good(self) -> bool:
        return all(check.good for check in self.checks)

    def text(self, only_bad: bool = False) -> str:
        """A table of the checks, and a last line with the result."""
        shown = [check for check in self.checks if not (only_bad and check.good)]
        width = max((min(len(check.subject), 100) for check in shown), default=0)
        bad = sum(not check.good for check in self.checks)
        notes = sum(not check.checked for check in self.checks)
        result = f"{bad} of {len(self.checks) - notes} checks failed" if bad else "good"
        if notes and not bad:
            result += f"; not checked: {notes}, see the note{'s' * (notes > 1)}"
        return "\n".join([*(check.line(width) for check in shown), f"{self.root}: {result}"])


@dataclass(frozen=True)
class Job:
    """A part of the work for one thread.

    Attributes:
      subject: the file or split.
      kind: the kind of check, a key of criteo_prep.verify.KINDS.
      bytes: bytes to read, for the progress line.
      run: returns the problem, or None; may raise ValueError or OSError instead.
    """

    subject: str
    kind: str
    bytes: int
    run: Callable[[], str | None]

    def problem(self) -> str | None:
        """What is wrong, or None."""
        try:
            return self.run()
        except (ValueError, OSError) as error:
            return str(error)
