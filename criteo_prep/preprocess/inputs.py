"""Which files are read, in which order, and how their rows become train, test and validation rows."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from criteo_prep.preprocess.parse.text_stream import InputError
from criteo_prep.schema import day_number, natural_key, split_rows_of_last_day, split_rows_of_one_file

TEST_FRACTION = 0.1  # of the rows of a single file, by default

LAST_DAY, FRACTION, TEST_FILE, ALL_TEST = "last_day", "fraction", "test_file", "all_test"


@dataclass(frozen=True)
class Inputs:
    """The files of a dataset. Their rows, one file after the other, are the rows of the dataset.

    Each split is a range of consecutive rows, in the order train, test, validation. A range that ends in the middle of
    a file is known only when the file has been read: see `splits`.

    Attributes:
      train: the files of train rows, in order.
      evaluation: the file after the train files: the last day or the test file. None where the test rows are the last
        rows of the train files.
      rule: LAST_DAY, FRACTION, TEST_FILE, or ALL_TEST, under which all rows are test rows.
      test_fraction: the part of all rows that is test, under FRACTION; else None.
      ignored: files of the given folder that are not read.
    """

    train: tuple[Path, ...]
    evaluation: Path | None
    rule: str
    test_fraction: float | None = None
    ignored: tuple[Path, ...] = ()

    @property
    def files(self) -> tuple[Path, ...]:
        return self.train if self.evaluation is None else (*self.train, self.evaluation)

    @property
    def split_names(self) -> tuple[str, ...]:
        if self.rule == ALL_TEST:
            return ("test",)
        return ("train", "test", "validation") if self.rule == LAST_DAY else ("train", "test")

    @property
    def split_rule(self) -> str:
        """The rule in words, as the manifest has it."""
        return {
            LAST_DAY: "the last day is for evaluation: its first half is test (an odd row too), its second validation",
            FRACTION: f"the last floor(n * {self.test_fraction}) of the n rows are test, the others train",
            TEST_FILE: "the test file is test, the others train",
        }[self.rule]

    def splits(self, num_train: int, num_evaluation: int) -> dict[str, range]:
        """The rows of each split, numbered over all files.

        Args:
          num_train: rows of all train files together.
          num_evaluation: rows of the evaluation file, 0 without an evaluation file.
        """
        total = num_train + num_evaluation
        if self.rule == ALL_TEST:
            return {"test": range(total)}
        if self.rule == FRACTION:
            num_train, _ = split_rows_of_one_file(total, self.test_fraction)
        train = {"train": range(0, num_train)}
        if self.rule != LAST_DAY:
            return {**train, "test": range(num_train, total)}
        num_test, _ = split_rows_of_last_day(num_evaluation)
        middle = num_train + num_test
        return {**train, "test": range(num_train, middle), "validation": range(middle, total)}


def find_inputs(
    paths: Sequence[str | Path],
    test_file: str | Path | None = None,
    *,
    test_fraction: float | None = None,
    days: str | None = None,
) -> Inputs:
    """Decides which of the given files are train files, and which rows are for evaluation.

    Args:
      paths: files; or one folder, which stands for its files named day_N, or for the only file in it.
      test_file: the file of the test rows; all other files are train files.
      test_fraction: the last part of all rows, which is test. At most one of test_file and test_fraction may be given;
        the default for a single file is 0.1.
      days: numbers of the day files to read, such as "0-3,23"; all by default.

    Raises:
      InputError: no file is given, a file is given twice, or nothing says which rows are for evaluation.
    """
    if test_file is not None and test_fraction is not None:
        raise InputError("--test_file and --test_fraction: both say which rows are test. Give one of them.")
    if test_fraction is not None and not 0 < test_fraction < 1:
        raise InputError(f"--test_fraction {test_fraction}: must be above 0 and below 1.")
    files, ignored = files_of(paths)
    if days is not None:
        files = _files_of_days(files, days)
    if all(day_number(file) is not None for file in files):
        files = _days_in_order(files)
    is_days = len(files) > 1 and all(day_number(file) is not None for file in files)
    if test_file is not None:
        test_file = Path(test_file)
        _check_file(test_file)
        if any(test_file.resolve() == file.resolve() for file in files):
            raise InputError(f"{test_file}: is both an input and the test file. Name it once.")
        return Inputs(tuple(files), test_file, rule=TEST_FILE, test_fraction=None, ignored=ignored)
    if len(files) == 1 or test_fraction is not None:
        return Inputs(
            tuple(files),
            None,
            rule=FRACTION,
            test_fraction=TEST_FRACTION if test_fraction is None else test_fraction,
            ignored=ignored,
        )
    if is_days:
        return Inputs(tuple(files[:-1]), files[-1], rule=LAST_DAY, test_fraction=None, ignored=ignored)
    unnamed = next(file for file in files if day_number(file) is None)
    raise InputError(
        f"{unnamed}: is not named day_N, and there are {len(files)} files, so nothing says which rows are test. "
        "Add --test_file FILE, or --test_fraction F for the last part of all rows."
    )


def files_of(paths: Sequence[str | Path]) -> tuple[list[Path], tuple[Path, ...]]:
    """The files to read, and the files of a folder that are not read."""
    paths = [Path(path) for path in paths]
    if len(paths) == 1 and paths[0].is_dir():
        return _files_in(paths[0])
    for path in paths:
        _check_file(path)
    for number, path in enumerate(paths):
        if path.resolve() in [earlier.resolve() for earlier in paths[:number]]:
            raise InputError(f"{path}: is given twice. Name each input once.")
    if not paths:
        raise InputError("--input: no file is named. Name files, or one folder.")
    return paths, ()


def _files_in(folder: Path) -> tuple[list[Path], tuple[Path, ...]]:
    """The day files of a folder, or its only file; and the other files. Hidden files are left out of both."""
    files = sorted((p for p in folder.iterdir() if p.is_file() and not p.name.startswith(".")), key=natural_key)
    days = [file for file in files if day_number(file) is not None]
    if days:
        return days, tuple(file for file in files if file not in days)
    if len(files) == 1:
        return files, ()
    found = f"{len(files)} files, none of them named day_N" if files else "no file"
    raise InputError(f"{folder}: holds {found}. Name the files to read.")


def _files_of_days(files: list[Path], days: str) -> list[Path]:
    """The files of the wanted days; the files of other days are left out without a message."""
    wanted: set[int] = set()
    for part in days.split(","):
        match = re.fullmatch(r"(\d+)(?:-(\d+))?", part.strip())
        if not match:
            raise InputError(f"--days {days}: {part.strip()!r} is neither a day nor a range of days such as 0-3.")
        wanted.update(range(int(match[1]), int(match[2] or match[1]) + 1))
    if missing := sorted(wanted - {day_number(file) for file in files}):
        raise InputError(f"--days {days}: no input is of day {missing[0]}. Name other days, or add its file.")
    return [file for file in files if day_number(file) in wanted]


def _days_in_order(files: list[Path]) -> list[Path]:
    by_day: dict[int, Path] = {}
    for file in files:
        first = by_day.setdefault(day_number(file), file)
        if first is not file:
            raise InputError(f"{file}: is day {day_number(file)}, as is {first}. Name each day once.")
    return [by_day[day] for day in sorted(by_day)]


def _check_file(path: Path) -> None:
    if path.is_dir():
        raise InputError(f"{path}: is a folder. Name a single folder, or files.")
    if not path.is_file():
        raise InputError(f"{path}: does not exist. Name an existing file.")
