"""What `schema.yaml` says about a click log: the label, the columns that become features, and the splits.

schema_document.py reads the file. The names of columns are the names in the log; each feature has a plain name too,
which the feature spec and the files of the dataset use.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

TRANSFORMS = ("log_shift", "log1p", "standardize", "quantile", "none")
TYPES = ("text", "integer", "hexadecimal")
FORMATS = ("parquet", "csv", "ndjson", "arrow")
LONGEST_LIST = 1000  # ids of one sample, where the schema gives no max_length
HALF = "half"

_RESERVED = ("label", "numerical")  # names of files in each split
_LONGEST_NAME = 80


@dataclass(frozen=True)
class Label:
    """The label.

    Attributes:
      column: name of the column.
      positive: the value, as text, of a click; every other row has one other value.
    """

    column: str
    positive: str = "1"


@dataclass(frozen=True)
class Numerical:
    """A numerical feature.

    Attributes:
      column: name of the column.
      feature: name of the feature.
      transform: one of TRANSFORMS; see transforms.py.
      missing: number that takes the place of a missing value; None: the feature is 0.0 there, after the transform.
      clip: (lowest, highest) value before the transform; None for no limits.
    """

    column: str
    feature: str
    transform: str = "log_shift"
    missing: float | None = None
    clip: tuple[float, float] | None = None


@dataclass(frozen=True)
class Categorical:
    """A categorical feature.

    Attributes:
      column: name of the column.
      feature: name of the feature.
      threshold: a value that occurs fewer times has id 0.
      cap: largest cardinality, or None; see vocabulary.CAP_RULE.
      type: one of TYPES that every value must have; None to find it in the data.
      vocabulary: name of a vocabulary that several features share; None for a vocabulary of its own.
      separator: what stands between the values of a list that is written as text; None for a single value.
      hotness: ids of each sample, where all samples have equally many; None for lists of any length.
      max_length: values of the longest list that is allowed.
    """

    column: str
    feature: str
    threshold: int = 0
    cap: int | None = None
    type: str | None = None
    vocabulary: str | None = None
    separator: str | None = None
    hotness: int | None = None
    max_length: int = LONGEST_LIST


@dataclass(frozen=True)
class SplitRule:
    """Which rows are test and validation rows. All other rows are train rows. One kind is used, the others are None.

    Attributes:
      test_fraction: share of the rows at the end that are test rows.
      column, test, validation: rows with these values, as text, in the column.
      time, test_after, validation_after: rows from this time on.
      test_file, validation_file: rows of these files; validation_file HALF: the second half of the test file.
    """

    test_fraction: float | None = None
    column: str | None = None
    test: tuple[str, ...] = ()
    validation: tuple[str, ...] = ()
    time: str | None = None
    test_after: int | float | datetime | None = None
    validation_after: int | float | datetime | None = None
    test_file: str | None = None
    validation_file: str | None = None

    @property
    def reads(self) -> str | None:
        """The column that says which split a row belongs to; None where its place says it."""
        return self.column or self.time

    @property
    def names(self) -> tuple[str, ...]:
        """The splits that have files."""
        has_validation = bool(self.validation) or self.validation_after is not None or self.validation_file is not None
        return ("train", "test", "validation") if has_validation else ("train", "test")


@dataclass(frozen=True)
class ReadOptions:
    """How the files are read.

    Attributes:
      format: one of FORMATS; None to find it by the ending and the first bytes of each file.
      delimiter, quote: characters of CSV; no quote: every quote is a part of its value.
      columns: names of the columns of CSV without a header; None where the first row has the names.
    """

    format: str | None = None
    delimiter: str | None = None
    quote: str | None = '"'
    columns: tuple[str, ...] | None = None


@dataclass(frozen=True)
class TableSchema:
    """A click log as its user describes it."""

    label: Label
    numerical: tuple[Numerical, ...]
    categorical: tuple[Categorical, ...]
    split: SplitRule
    read: ReadOptions = ReadOptions()

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that are read, each once."""
        names = [self.label.column, *(each.column for each in (*self.numerical, *self.categorical))]
        return tuple(dict.fromkeys([*names, *filter(None, [self.split.reads])]))

    @property
    def groups(self) -> tuple[tuple[int, ...], ...]:
        """The categorical features, by number, that have one vocabulary together, in order of the first of them."""
        found: dict[tuple, list[int]] = {}
        for number, each in enumerate(self.categorical):
            found.setdefault(("shared", each.vocabulary) if each.vocabulary else ("own", number), []).append(number)
        return tuple(map(tuple, found.values()))


def feature_names(columns: Iterable[str]) -> list[str]:
    """A plain name for each column: letters, digits, _ and -, and every name once, also as the name of a file."""
    taken, names = set(_RESERVED), []
    for column in columns:
        plain = re.sub(r"[^A-Za-z0-9_-]", "_", column)[:_LONGEST_NAME] or "_"
        name, number = plain, 1
        while {name.lower(), f"{name}_offsets".lower(), name.lower().removesuffix("_offsets")} & taken:
            number += 1
            name = f"{plain}_{number}"
        taken.add(name.lower())
        names.append(name)
    return names
