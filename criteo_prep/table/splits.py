"""Which rows are train, test and validation rows: ranges of rows, or a number for each row."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from criteo_prep.preprocess.parse.text_stream import InputError
from criteo_prep.schema import split_rows_of_last_day, split_rows_of_one_file
from criteo_prep.table.files import TableFiles
from criteo_prep.table.journal import TableJournal
from criteo_prep.table.row_values import SPLIT_NUMBERS
from criteo_prep.table.schema import HALF, SplitRule
from criteo_prep.table.work_files import SPLITS


@dataclass(frozen=True)
class RowSplits:
    """The split of every row.

    Attributes:
      num_rows: split -> its number of rows, for the splits that have files.
      ranges: split -> its rows, where the rows of each split follow one another; else None.
      numbers: uint8 [rows], a number of SPLIT_NUMBERS for each row; None where there are ranges.
    """

    num_rows: dict[str, int]
    ranges: dict[str, range] | None = None
    numbers: np.ndarray | None = None

    def rows(self, split: str, start: int, stop: int) -> np.ndarray | slice:
        """Which of the rows start to stop - 1 belong to a split: an index into an array of them."""
        if self.ranges is None:
            return self.numbers[start:stop] == SPLIT_NUMBERS[split]
        rows = self.ranges[split]
        return slice(max(rows.start - start, 0), max(rows.stop - start, 0))

    def lie_in(self, split: str, start: int, stop: int) -> bool:
        """Whether one of the rows start to stop - 1 may belong to a split."""
        rows = self.ranges and self.ranges[split]
        return rows is None or (rows.start < stop and start < rows.stop)


def splits_of(rule: SplitRule, files: TableFiles, journal: TableJournal) -> RowSplits:
    """The splits of a log whose files are all parsed.

    Raises:
      InputError: there is no train row.
    """
    numbers, total = None, journal.num_rows
    counts = [file.num_rows for file in journal.files]
    if rule.reads:
        numbers = np.memmap(journal.folder / SPLITS, np.uint8, "r") if total else np.empty(0, np.uint8)
        sizes = np.bincount(numbers, minlength=3).tolist()
    elif rule.test_fraction is not None:
        sizes = [*split_rows_of_one_file(total, rule.test_fraction), 0]
    else:
        num_train, num_test = len(files.train), len(files.test)
        sizes = [sum(counts[:num_train]), sum(counts[num_train : num_train + num_test]), 0]
        sizes[2] = total - sizes[0] - sizes[1]
        if rule.validation_file == HALF:
            sizes[1:] = split_rows_of_last_day(sizes[1])
    num_rows = {split: sizes[SPLIT_NUMBERS[split]] for split in rule.names}
    if not num_rows["train"]:
        raise InputError(f"{journal.files[0].path}: the split leaves no train row of {total}. {_advice(rule)}")
    if numbers is not None:
        return RowSplits(num_rows, numbers=numbers)
    ends = np.cumsum([0, *num_rows.values()]).tolist()
    ranges = {split: range(ends[number], ends[number + 1]) for number, split in enumerate(num_rows)}
    return RowSplits(num_rows, ranges)


def all_test(num_rows: int) -> RowSplits:
    """Every row is a test row: new rows for an existing model."""
    return RowSplits({"test": num_rows}, {"test": range(num_rows)})


def _advice(rule: SplitRule) -> str:
    if rule.time:
        return f"Give a later test_after than {rule.test_after}."
    if rule.column:
        return f"Leave a value of {rule.column!r} out of test."
    return "Give a smaller test_fraction." if rule.test_fraction is not None else "Name a file besides the test file."


def split_folder(root: Path, split: str) -> Path:
    """The folder of a split, which is made where it is missing."""
    folder = root / split
    folder.mkdir(exist_ok=True)
    return folder
