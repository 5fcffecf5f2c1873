"""A frame of rows, as a file has them -> label, numbers, split and values of the good rows; and the bad rows."""

from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np

from criteo_prep.messages import shown
from criteo_prep.table.cells import (
    Cells,
    ColumnKind,
    categorical_cells,
    later_rows,
    list_cells,
    numerical_cells,
    text_of,
)
from criteo_prep.table.schema import Categorical, SplitRule, TableSchema

SPLIT_NUMBERS = {"train": 0, "test": 1, "validation": 2}
_LARGEST_FLOAT16 = 65504.0
_TRUE_AND_FALSE = {"true": "1", "false": "0", "True": "1", "False": "0"}


class BadCell(NamedTuple):
    """The first bad row of a block, for one reason.

    Attributes:
      reason: one word.
      row: the row within the block.
      found: the fault in words.
      rows: bool [n], all rows of the block that are bad for this reason and no earlier one.
    """

    reason: str
    row: int
    found: str
    rows: np.ndarray


class TableRows(NamedTuple):
    """The good rows of a block.

    Attributes:
      label: bool [n].
      numbers: float64 [n, numericals], NaN where missing.
      splits: uint8 [n], a number of SPLIT_NUMBERS; None where the place of a row says its split.
      columns: the cells of each categorical column.
      kinds: the kind of each categorical column in this block.
      others: values of the label that are not positive; up to three.
      bad: the bad rows, by reason.
      num_rows: rows of the block, good and bad.
    """

    label: np.ndarray
    numbers: np.ndarray
    splits: np.ndarray | None
    columns: list[Cells]
    kinds: list[ColumnKind]
    others: list[str]
    bad: list[BadCell]
    num_rows: int


def rows_of(frame, schema: TableSchema, *, path: Path, labelled: bool = True) -> TableRows:
    """The rows of a polars DataFrame that has the columns of the schema.

    Args:
      frame: rows of one file.
      schema: what the columns are.
      path: the file, for messages.
      labelled: whether there is a column of labels; else all labels are False.

    Raises:
      SchemaError: the type of a column cannot be what the schema says.
    """
    bad = _BadRows(frame)
    label, others = np.zeros(frame.height, bool), []
    if labelled:
        label, others = _labels(frame, schema, path=path, bad=bad)
    numbers = np.empty((frame.height, len(schema.numerical)))
    for number, each in enumerate(schema.numerical):
        numbers[:, number], wrong = numerical_cells(frame[each.column], f"{path}: column {shown(each.column)}")
        bad.add("bad_number", each.column, expected="a number", rows=wrong)
        if each.transform == "none":
            low, high = each.clip or (-np.inf, np.inf)
            too_large = np.abs(np.clip(numbers[:, number], low, high)) > _LARGEST_FLOAT16
            expected = "a number up to 65504, the largest of float16 (give the column a transform or a clip)"
            bad.add("bad_number", each.column, expected=expected, rows=too_large if too_large.any() else None)
    kinds, columns = [], []
    for each in schema.categorical:
        kind, cells = _categorical(frame[each.column], each, path=path, bad=bad)
        kinds.append(kind)
        columns.append(cells)
    splits = _splits(frame, schema.split, path=path, bad=bad) if schema.split.reads else None
    if bad.found:
        good = ~bad.any
        label, numbers = label[good], numbers[good]
        splits = None if splits is None else splits[good]
        columns = [_part(cells, good) for cells in columns]
    return TableRows(label, numbers, splits=splits, columns=columns, kinds=kinds, others=others, bad=bad.found,
                     num_rows=frame.height)  # fmt: skip


class _BadRows:
    """Collects the bad rows of a frame."""

    def __init__(self, frame):
        self._frame, self.any, self.found = frame, np.zeros(frame.height, bool), []

    def add(self, reason: str, column: str, *, expected: str, rows: np.ndarray | None) -> None:
        """Adds the rows where the cell of a column is not as expected."""
        if rows is None or not (rows := rows & ~self.any).any():
            return
        self.any |= rows
        first = int(np.argmax(rows))
        cell = self._frame[column][first]
        value = cell.to_list() if hasattr(cell, "to_list") else cell
        text = "nothing" if value is None else shown(value)
        found = f"column {shown(column)}: found {text}, expected {expected}"
        self.found.append(BadCell(reason, first, found=found, rows=rows))


def _labels(frame, schema: TableSchema, *, path: Path, bad: _BadRows) -> tuple[np.ndarray, list[str]]:
    column, positive = schema.label.column, schema.label.positive
    text = text_of(frame[column], f"{path}: column {shown(column)}")
    if positive in ("0", "1") and not text.is_in(["0", "1"]).all():
        text = text.replace(_TRUE_AND_FALSE)
    is_positive = text == positive
    bad.add("bad_label", column, expected="a label", rows=text.is_null().to_numpy() if text.null_count() else None)
    others = text.filter(~is_positive & text.is_not_null()).unique().sort()
    return is_positive.fill_null(False).to_numpy(), others.head(3).to_list()


def _categorical(series, each: Categorical, *, path: Path, bad: _BadRows) -> tuple[ColumnKind, Cells]:
    where = f"{path}: column {shown(each.column)}"
    is_list = series.dtype.is_nested() or each.separator is not None or each.hotness is not None
    if is_list:
        kind, cells = list_cells(series, each.type, separator=each.separator, where=where)
        expected = f"{each.max_length} values at most (the schema's {'hotness' if each.hotness else 'max_length'})"
        too_long = cells.lengths > each.max_length
        bad.add("long_list", each.column, expected=expected, rows=too_long if too_long.any() else None)
    else:
        kind, cells = categorical_cells(series, each.type, where=where)
    expected = "an integer, and no decimal" if kind == "integer" else "1 to 8 hexadecimal digits"
    bad.add("bad_value", each.column, expected=expected, rows=cells.bad)
    return ColumnKind(kind, is_list), cells


def _splits(frame, rule: SplitRule, *, path: Path, bad: _BadRows) -> np.ndarray:
    """uint8 [n], the number of each row's split."""
    where = f"{path}: column {shown(rule.reads)}"
    splits = np.zeros(frame.height, np.uint8)
    if rule.time:
        for name, limit in (("test", rule.test_after), ("validation", rule.validation_after)):
            if limit is not None:
                is_later, wrong = later_rows(frame[rule.time], limit, where=where)
                splits[is_later] = SPLIT_NUMBERS[name]
                like = "a time such as 2026-01-31 12:00:00" if isinstance(limit, datetime) else "a number"
                bad.add("bad_time", rule.time, expected=like, rows=wrong)
        return splits
    text = text_of(frame[rule.column], where)
    bad.add("bad_split", rule.column, expected="a value", rows=text.is_null().to_numpy() if text.null_count() else None)
    for name, values in (("test", rule.test), ("validation", rule.validation)):
        splits[text.is_in(list(values)).fill_null(False).to_numpy()] = SPLIT_NUMBERS[name]
    return splits


def _part(cells: Cells, good: np.ndarray) -> Cells:
    """The cells of the good rows."""
    import polars

    values = good if cells.lengths is None else np.repeat(good, cells.lengths)
    lengths = None if cells.lengths is None else cells.lengths[good]
    return Cells(cells.values.filter(polars.Series(values)), lengths=lengths)
