"""Rows from parquet are the rows of the same text."""

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from criteo_prep.preprocess.parse import parquet_rows, tsv
from criteo_prep.preprocess.parse.text_blocks import InputError
from criteo_prep.preprocess.request import Resources
from criteo_prep.preprocess.rules import make_rules
from criteo_prep.preprocess.run import preprocess

TEXT = [
    ["1", *["5", "", "-3"] * 4, "7", *["a", "", "00000000", "DeadBeef", "ffffffff", "5"] * 4, "1", ""],
    ["0", *["", "123456789012", "0"] * 4, "", *["", "0", "b", "", "1", "c"] * 4, "", "80000000"],
]


def columns_of(text, values):
    """values: how a categorical field is written."""
    label = pyarrow.array([int(row[0]) for row in text], pyarrow.int8())
    numbers = [pyarrow.array([int(row[c]) if row[c] else None for row in text], pyarrow.int64()) for c in range(1, 14)]
    return [label, *numbers, *(values([row[c] for row in text]) for c in range(14, 40))]


def as_text(fields):
    return pyarrow.array([field or None for field in fields], pyarrow.string())


def as_empty_text(fields):
    return pyarrow.array(fields, pyarrow.large_string())


def as_numbers(fields):
    return pyarrow.array([int(field, 16) if field else None for field in fields], pyarrow.uint32())


def as_long(fields):
    return pyarrow.array([int(field, 16) if field else None for field in fields], pyarrow.int64())


def as_signed(fields):
    return pyarrow.array([int(np.uint32(int(f, 16)).view(np.int32)) if f else None for f in fields], pyarrow.int32())


def save(path, columns):
    pyarrow.parquet.write_table(pyarrow.table(columns, names=[f"_c{i}" for i in range(len(columns))]), path)
    return path


@pytest.mark.parametrize("values", [as_text, as_empty_text, as_numbers, as_long, as_signed])
def test_the_same_rows_as_text(tmp_path, values):
    path = save(tmp_path / "rows.parquet", columns_of(TEXT * 3, values))
    expected = tsv.parse("".join("\t".join(row) + "\n" for row in TEXT * 3).encode())
    ((batch, stop),) = parquet_rows.row_blocks(path)
    rows = parquet_rows.rows_of(batch)
    assert stop == 6 == parquet_rows.num_rows_of(path)
    for name in ("label", "numbers", "values", "missing", "num_zeros", "num_lines"):
        assert np.array_equal(getattr(rows, name), getattr(expected, name)), name
    ((rest, stop),) = parquet_rows.row_blocks(path, skip_rows=4)
    assert (rest.num_rows, stop) == (2, 6)


def test_a_dataset_of_parquet_is_that_of_text(tmp_path):
    save(tmp_path / "day_0.parquet", columns_of(TEXT * 20, as_text))
    save(tmp_path / "day_1.parquet", columns_of(TEXT * 5, as_numbers))
    for day, count in ((0, 20), (1, 5)):
        (tmp_path / f"day_{day}").write_text("".join("\t".join(row) + "\n" for row in TEXT * count))
    how, rules = Resources(quiet=True), make_rules(2)
    made = [
        preprocess([tmp_path / f"day_{day}{end}" for day in (0, 1)], tmp_path / f"set{end}", rules=rules, resources=how)
        for end in ("", ".parquet")
    ]
    assert made[0].manifest["files"] == made[1].manifest["files"]


def test_bad_rows(tmp_path):
    columns = columns_of(TEXT * 2, as_text)
    columns[0] = pyarrow.array([1, 2, 0, None], pyarrow.int8())
    columns[39] = pyarrow.array(["1", "2", "xyz", "4"])
    ((batch, _),) = parquet_rows.row_blocks(save(tmp_path / "rows.parquet", columns))
    rows = parquet_rows.rows_of(batch)
    assert len(rows) == 1 and rows.num_lines == 4
    found = [(bad.line, tsv.REASONS[bad.reason], bad.found) for bad in rows.first_bad]
    assert found == [(1, "bad_label", "field 1 (label) is 2"), (2, "bad_value", "field 40 (cat_25) is 'xyz'")]


@pytest.mark.parametrize("change, message", [
    (lambda columns: columns[1:], "has 39 columns; expected 40"),
    (lambda columns: [columns[0].cast("float32"), *columns[1:]], r"column 1 \(_c0\) is of type float.*label must"),
    (lambda columns: [*columns[:-1], columns[1].cast("float64")], "cat_25 must be hexadecimal text or integers"),
])  # fmt: skip
def test_other_columns_are_refused(tmp_path, change, message):
    path = save(tmp_path / "rows.parquet", change(columns_of(TEXT, as_text)))
    with pytest.raises(InputError, match=message):
        list(parquet_rows.row_blocks(path))


def test_a_truncated_file(tmp_path):
    path = save(tmp_path / "rows.parquet", columns_of(TEXT, as_text))
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(InputError, match="is no whole parquet file"):
        parquet_rows.num_rows_of(path)
    path.write_bytes(b"text")
    with pytest.raises(InputError, match="is named .parquet but is none"):
        parquet_rows.is_parquet(path)
