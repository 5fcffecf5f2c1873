"""The facts of all parts -> rows, bad rows and lines of each input file, as the local engine records them."""

from collections.abc import Sequence
from pathlib import Path

from criteo_prep.preprocess.distributed.input_splits import InputSplit
from criteo_prep.preprocess.distributed.parse_split import SplitOutcome
from criteo_prep.preprocess.distributed.part_file import PartFacts, part_name, read_facts
from criteo_prep.preprocess.journal import ParsedFile
from criteo_prep.preprocess.locations import Location
from criteo_prep.preprocess.parse.tsv import BadRowError


class ParsedInput:
    """Takes the outcomes of the splits in order.

    Attributes:
      files: the input files so far.
      parts: the facts of all parts, in the order of their rows.

    Args:
      paths: the input files.
    """

    def __init__(self, paths: Sequence[Location]):
        self._paths = paths
        self.files: list[ParsedFile] = []
        self.parts: list[PartFacts] = []

    def add(self, split: InputSplit, outcome: SplitOutcome) -> None:
        """Takes the outcome of the next split.

        Raises:
          BadRowError: a bad row ended the split.
          ValueError: the file cannot be read.
        """
        if split.file == len(self.files):
            if self.files:
                self.files[-1].finished = True
            self.files.append(ParsedFile(str(self._paths[split.file])))
        file = self.files[split.file]
        if outcome.bad_row:
            line, found = outcome.bad_row
            where = f"{file.path}: line {file.num_lines + line + 1}: {found}"
            raise BadRowError(f"{where}. Correct the row, or add --on_bad_row skip to leave such rows out.")
        if outcome.error:
            raise _as_named(outcome.error, split.path, self._paths[split.file])
        for part in outcome.parts:
            _add_part(file, part)
            self.parts.append(part)

    @property
    def num_rows(self) -> int:
        return sum(file.num_rows for file in self.files)


def finished_split(folder: Path, split: InputSplit) -> SplitOutcome | None:
    """The outcome of a split that an earlier run has finished; None where a part is missing."""
    parts: list[PartFacts] = []
    while not parts or not parts[-1].last:
        facts = read_facts(folder / part_name(split.number, len(parts)))
        if facts is None:
            return None
        parts.append(facts)
    return SplitOutcome(tuple(parts))


def _add_part(file: ParsedFile, part: PartFacts) -> None:
    """Adds the facts of a file's next part to the file."""
    for reason, rows in part.skipped.items():
        file.skipped[reason] = file.skipped.get(reason, 0) + rows
        line, found = part.first_skipped[reason]
        file.first_skipped.setdefault(reason, f"{file.path}: line {file.num_lines + line + 1}: {found}")
    file.num_rows += part.num_rows
    file.num_lines += part.num_lines
    if part.lost_bytes is not None:
        file.skipped["truncated"] = 1 if part.lost_bytes else 0
        file.first_skipped["truncated"] = (
            f"{file.path}: the file ends early, after line {file.num_lines}; {part.lost_bytes} bytes of the next "
            "row, and all rows behind it, are lost"
        )


def _as_named(error: ValueError, path: Location, given: Location) -> ValueError:
    """The error with the path that the user gave in place of the path that the task read."""
    if path == given:
        return error
    return type(error)(str(error).replace(str(path), str(given)))
