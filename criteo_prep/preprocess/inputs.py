"""Which files are read, in which order, and how their rows become train, test and validation rows."""

from collections.abc import Sequence
from dataclasses import dataclass

from criteo_prep.preprocess.input_files import InputFiles, list_inputs
from criteo_prep.preprocess.locations import Location
from criteo_prep.preprocess.parse.text_stream import InputError
from criteo_prep.schema import split_rows_of_last_day, split_rows_of_one_file

TEST_FRACTION = 0.1  # of the rows of a single file, by default

LAST_DAY, FRACTION, TEST_FILE, ALL_TEST = "last_day", "fraction", "test_file", "all_test"


@dataclass(frozen=True)
class Inputs:
    """The files of a dataset. Their rows, one file after the other, are the rows of the dataset.

    Each split is a range of consecutive rows, in the order train, test, validation. A range that ends in the middle of
    a file is known only when the file has been read: see `splits`.

    Attributes:
      train: the files of train rows, in order.
      evaluation: the files after the train files, of the last day or the test file, in order. Empty where the test
        rows are the last rows of the train files.
      rule: LAST_DAY, FRACTION, TEST_FILE, or ALL_TEST, under which all rows are test rows.
      test_fraction: the part of all rows that is test, under FRACTION; else None.
      ignored: files of the given folder that are not read.
    """

    train: tuple[Location, ...]
    evaluation: tuple[Location, ...]
    rule: str
    test_fraction: float | None = None
    ignored: tuple[Location, ...] = ()

    @property
    def files(self) -> tuple[Location, ...]:
        return (*self.train, *self.evaluation)

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
          num_evaluation: rows of the evaluation files together.
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
    paths: Sequence[str | Location],
    test_file: str | Location | None = None,
    *,
    test_fraction: float | None = None,
    days: str | None = None,
) -> Inputs:
    """Decides which of the given files are train files, and which rows are for evaluation.

    Args:
      paths: files, or one folder; see input_files.list_inputs.
      test_file: the file of the test rows; all other files are train files.
      test_fraction: the last part of all rows, which is test. At most one of test_file and test_fraction may be given;
        the default for a single file is 0.1.
      days: numbers of the days to read, such as "0-3,23"; all by default.

    Raises:
      InputError: an input cannot be read, a file is given twice, or nothing says which rows are for evaluation.
    """
    if test_file is not None and test_fraction is not None:
        raise InputError("--test_file and --test_fraction: both say which rows are test. Give one of them.")
    if test_fraction is not None and not 0 < test_fraction < 1:
        raise InputError(f"--test_fraction {test_fraction}: must be above 0 and below 1.")
    inputs, ignored = list_inputs(paths)
    if days is not None:
        inputs = _inputs_of_days(inputs, days)
    are_days = all(each.day is not None for each in inputs)
    if are_days:
        inputs = _in_order_of_days(inputs)
    files = _files_of(inputs)
    if test_file is not None:
        evaluation, _ = list_inputs([test_file])
        if len(evaluation) > 1:
            raise InputError(f"{test_file}: holds {len(evaluation)} inputs. Name one file, or a folder of part files.")
        for path in _files_of(evaluation):
            if any(path.resolve() == file.resolve() for file in files):
                raise InputError(f"{path}: is both an input and the test file. Name it once.")
        return Inputs(files, _files_of(evaluation), rule=TEST_FILE, ignored=ignored)
    if len(inputs) == 1 or test_fraction is not None:
        fraction = TEST_FRACTION if test_fraction is None else test_fraction
        return Inputs(files, (), rule=FRACTION, test_fraction=fraction, ignored=ignored)
    if are_days:
        return Inputs(_files_of(inputs[:-1]), inputs[-1].pieces, rule=LAST_DAY, ignored=ignored)
    unnamed = next(each.path for each in inputs if each.day is None)
    raise InputError(
        f"{unnamed}: is not named day_N, and there are {len(inputs)} inputs, so nothing says which rows are test. "
        "Add --test_file FILE, or --test_fraction F for the last part of all rows."
    )


def _files_of(inputs: Sequence[InputFiles]) -> tuple[Location, ...]:
    return tuple(piece for each in inputs for piece in each.pieces)


def _inputs_of_days(inputs: list[InputFiles], days: str) -> list[InputFiles]:
    """The inputs of the wanted days; the inputs of other days are left out without a message."""
    found = {each.day for each in inputs}
    wanted = []
    for first, last in _ranges(days):
        day = first
        while day <= last and day in found:
            day += 1
        if day <= last:
            raise InputError(f"--days {days}: no input is of day {day}. Name other days, or add its file.")
        wanted += [each for each in inputs if each.day is not None and first <= each.day <= last]
    return [each for each in inputs if each in wanted]


def _ranges(days: str) -> list[tuple[int, int]]:
    """The (first, last) day of each part of text such as "0-3,23"."""
    ranges = []
    for part in days.split(","):
        first, dash, last = (text.strip() for text in part.partition("-"))
        last = last if dash else first
        if not (first.isdecimal() and last.isdecimal() and first.isascii() and last.isascii()):
            raise InputError(f"--days {days}: {part.strip()!r} is neither a day nor a range of days such as 0-3.")
        if int(first) > int(last):
            raise InputError(f"--days {days}: {part.strip()!r} ends before it begins. Write {last}-{first}.")
        ranges.append((int(first), int(last)))
    return ranges


def _in_order_of_days(inputs: list[InputFiles]) -> list[InputFiles]:
    by_day: dict[int | None, InputFiles] = {}
    for each in inputs:
        first = by_day.setdefault(each.day, each)
        if first is not each:
            raise InputError(f"{each.path}: is day {each.day}, as is {first.path}. Name each day once.")
    return sorted(inputs, key=lambda each: each.day)
