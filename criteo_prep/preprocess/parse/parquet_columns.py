"""Which column of a parquet file is the label, a numerical or a categorical column: by its name, else by its position.

    label, I1 to I13, C1 to C26           known by name: one column, a family of 13 and a family of 26, in any order
    label, num_0 to num_12, cat_0 to ...  likewise; any stems, numbered from 0 or from 1
    _c0 to _c39                           known by number: one family of all columns, in any order
    other names                           taken by position, and a line says so

A program that sorts columns by name puts I10 before I2. Names that contradict their positions are refused.
"""

import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from criteo_prep.preprocess.parse import tsv
from criteo_prep.preprocess.parse.text_stream import InputError
from criteo_prep.schema import NUM_CATEGORICAL, NUM_NUMERICAL

_LABEL_NAMES = ("label", "labels", "click", "clicked", "target")
_INDEX_NAME = re.compile(r"__index_level_\d+__|index|level_0|Unnamed: 0|", re.IGNORECASE)


@dataclass(frozen=True)
class Columns:
    """The columns of a file.

    Attributes:
      positions: position in the file of the label (where rows have labels), of the 13 numericals, and of the 26 values.
      by_name: whether the names gave the positions; else the order in the file did.
    """

    positions: tuple[int, ...]
    by_name: bool


def find_columns(path: str | Path, names: list[str], labelled: bool) -> Columns:
    """The columns of a file, by their names or their order.

    Args:
      path: the file, for messages.
      names: the column names, in the order of the file.
      labelled: whether rows have labels.

    Raises:
      InputError: the number of columns is another one, a column is an index, or the names contradict the order.
    """
    if index := [name for name in names if _INDEX_NAME.fullmatch(name)]:
        raise InputError(f"{path}: column {index[0]!r} looks like a data frame's index. Write it with index=False.")
    num_columns = NUM_NUMERICAL + NUM_CATEGORICAL + labelled
    families = _families(names)
    of_length = defaultdict(list)
    for family in families:
        if [number for number, _ in family] in (list(range(len(family))), list(range(1, len(family) + 1))):
            of_length[len(family)].append([position for _, position in family])
    numericals, values = of_length[NUM_NUMERICAL], of_length[NUM_CATEGORICAL]
    known = numericals[0] + values[0] if len(numericals) == len(values) == 1 else []
    if len(names) != num_columns:
        raise InputError(f"{path}: has {len(names)} columns; expected {num_columns}: {_extra(names, known, labelled)}")
    if not known:  # one family of all columns, or of all columns but the label
        known = next(iter(of_length[num_columns] or of_length[num_columns - labelled]), [])
    if known:
        label = [position for position in range(num_columns) if position not in known]
        return Columns((*label, *known), by_name=True)
    _check_order(path, names, families=families, labelled=labelled)
    return Columns(tuple(range(num_columns)), by_name=False)


def note_on_columns(path: str | Path, names: list[str]) -> str | None:
    """A line for the user where the columns of a file are taken by position; None where they are known by name."""
    labelled = len(names) != tsv.NUM_FIELDS - 1
    if find_columns(path, names, labelled).by_name:
        return None
    meant = zip(names, tsv.FIELDS if labelled else tsv.FIELDS[1:], strict=True)
    shown = [f"{name} is {field}" for name, field in meant if field in ("label", "num_0", "cat_0", "cat_25")]
    return f"{path}: the column names are unknown, so columns are taken by position: {', '.join(shown)}"


def _families(names: list[str]) -> list[list[tuple[int, int]]]:
    """Columns whose names differ in a number at their end: (number, position) of each, by ascending number."""
    families = defaultdict(list)
    for position, name in enumerate(names):
        if match := re.fullmatch(r"(.*?)(\d+)", name, re.DOTALL):
            families[match[1].lower()].append((int(match[2]), position))
    return [sorted(family) for family in families.values()]


def _extra(names: list[str], known: list[int], labelled: bool) -> str:
    """What is wrong with the number of columns."""
    fields = tsv.FIELDS if labelled else tsv.FIELDS[1:]
    expected = f"{fields[0]}, ..., {fields[-1]}"
    others = [name for position, name in enumerate(names) if position not in known]
    others = [name for name in others if name.lower() not in _LABEL_NAMES] if known else []
    if others:
        return f"{expected}. Drop {', '.join(map(repr, others[:5]))}."
    return f"{expected}. Drop other columns, or add the missing columns."


def _check_order(path: str | Path, names: list[str], *, families: list[list[tuple[int, int]]], labelled: bool) -> None:
    """Raises InputError where names say that the columns have another order than the logs."""
    advice = "Name all columns as label, I1 to I13 and C1 to C26, in any order; or put them in order."
    for position, name in enumerate(names):
        if name.lower() in _LABEL_NAMES and (position or not labelled):
            raise InputError(f"{path}: {name!r} is column {position + 1}; expected the label in column 1. {advice}")
    for family in families:
        for (_, before), (_, after) in zip(family, family[1:], strict=False):
            if before > after:
                raise InputError(
                    f"{path}: {names[after]!r} stands before {names[before]!r}, so the columns are not in the order "
                    f"of the logs. {advice}"
                )
