"""Rows from parquet are the rows of the same text."""

import random
import re
from functools import partial

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from criteo_prep.preprocess.parse import parquet_columns, parquet_rows, tsv
from criteo_prep.preprocess.parse.text_stream import InputError
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
    (lambda columns: [columns[0].cast("float32"), *columns[1:]], r"'_c0' is label and of type float; .* float64"),
    (lambda columns: [*columns[:-1], columns[0].cast("bool")], "cat_25 and of type bool; expected hexadecimal text"),
    (lambda columns: [columns[0], columns[20], *columns[2:]], "num_0 and of type string; expected integers. Cast"),
])  # fmt: skip
def test_other_columns_are_refused(tmp_path, change, message):
    path = save(tmp_path / "rows.parquet", change(columns_of(TEXT, as_text)))
    with pytest.raises(InputError, match=message):
        list(parquet_rows.row_blocks(path))


def as_dictionary(fields):
    return as_text(fields).dictionary_encode()


def as_view(fields):
    return pyarrow.array([field or None for field in fields], pyarrow.string_view())


def as_bytes(fields):
    return pyarrow.array([field.encode() or None for field in fields], pyarrow.binary())


def as_floats(fields):
    return pyarrow.array([float(int(field, 16)) if field else float("nan") for field in fields], pyarrow.float64())


@pytest.mark.parametrize("values", [as_dictionary, as_view, as_bytes, as_floats])
def test_types_that_other_programs_write(tmp_path, values):
    """Numericals as pandas has integers with gaps, and with a dictionary."""
    columns = columns_of(TEXT * 3, values)
    numbers = [array.to_numpy(zero_copy_only=False).astype(float) for array in columns[:14]]  # NaN where missing
    columns[:7] = [pyarrow.array(array) for array in numbers[:7]]
    columns[7:14] = [array.dictionary_encode() for array in columns[7:14]]
    check_rows(save(tmp_path / "rows.parquet", columns), TEXT * 3)


def check_rows(path, text):
    ((batch, _),) = parquet_rows.row_blocks(path)
    rows, expected = parquet_rows.rows_of(batch), tsv.parse("".join("\t".join(row) + "\n" for row in text).encode())
    for name in ("label", "numbers", "values", "missing", "num_zeros", "num_lines"):
        assert np.array_equal(getattr(rows, name), getattr(expected, name)), name


def test_columns_without_any_value(tmp_path):
    text = [[*row[:3], "", *row[4:20], "", *row[21:]] for row in TEXT]
    columns = columns_of(text, as_text)
    columns[3] = columns[20] = pyarrow.nulls(len(text))
    check_rows(save(tmp_path / "rows.parquet", columns), text)


@pytest.mark.parametrize("number, shown", [(1.5, "1.5"), (float("inf"), "inf"), (1e18, "1e[+]18"), (1e300, "1e[+]300")])
def test_floats_that_are_not_integers_are_bad_rows(tmp_path, number, shown):
    columns = columns_of(TEXT, as_text)
    columns[2] = pyarrow.array([-3.0, number])
    ((batch, _),) = parquet_rows.row_blocks(save(tmp_path / "rows.parquet", columns))
    rows = parquet_rows.rows_of(batch)
    (bad,) = rows.first_bad
    assert len(rows) == 1 and tsv.REASONS[bad.reason] == "bad_number"
    assert re.fullmatch(rf"field 3 \(num_1\) is {shown}", bad.found)


def test_a_text_that_is_not_utf_8_is_a_bad_row(tmp_path):
    columns = columns_of(TEXT, as_bytes)
    columns[20] = pyarrow.array([b"\xff\xfe", b"a"], pyarrow.binary()).view(pyarrow.string())
    ((batch, _),) = parquet_rows.row_blocks(save(tmp_path / "rows.parquet", columns))
    assert [bad.found for bad in parquet_rows.rows_of(batch).first_bad] == [r"field 21 (cat_6) is '\xff\xfe'"]


def named(path, names, order=None):
    """The rows of TEXT with some column names, in the order of the logs or in another one."""
    table = pyarrow.table(columns_of(TEXT, as_numbers), names=names)
    pyarrow.parquet.write_table(table.select(order) if order else table, path)
    return path


KAGGLE = ["label", *(f"I{number}" for number in range(1, 14)), *(f"C{number}" for number in range(1, 27))]
OURS = list(tsv.FIELDS)
SPARK = [f"_c{number}" for number in range(40)]
PLAIN = [str(number) for number in range(40)]
MIXED = ["Click", *(f"int_{number}" for number in range(13)), *(f"categorical_feature_{n}" for n in range(1, 27))]
REST = ["y", *(f"f{number}" for number in range(1, 40))]


@pytest.mark.parametrize("names", [KAGGLE, OURS, SPARK, PLAIN, MIXED, REST])
def test_known_names_are_found_in_any_order(tmp_path, names):
    """All values are numbers, so that only the names tell the columns apart."""
    for order in (None, sorted(names), names[::-1], [*names[14:], *names[:14]]):
        check_rows(named(tmp_path / "rows.parquet", names, order), TEXT)
        assert parquet_columns.note_on_columns("", order or names) is None


@pytest.mark.parametrize("names, message", [
    ([*KAGGLE[:39], "C27"], None), ([f"column {chr(65 + n)}" for n in range(40)], None),
    (["label", *sorted(KAGGLE[1:14]), *KAGGLE[14:39], "C27"], r"'I10' stands before 'I9', so .* Name all columns as"),
    ([*KAGGLE[1:6], "label", *KAGGLE[6:39], "C27"], r"'label' is column 6; expected the label in column 1"),
    (["__index_level_0__", *KAGGLE[1:]], r"'__index_level_0__' looks like a data frame's index.*index=False"),
    ([*KAGGLE, "Unnamed: 0"], r"'Unnamed: 0' looks like a data frame's index"),
    ([*KAGGLE, "hour"], r"has 41 columns; expected 40: label, ..., cat_25. Drop 'hour'"),
])  # fmt: skip
def test_other_names(tmp_path, names, message):
    """Columns with unknown names are taken by position, and a line says so, unless the names contradict it."""
    if message:
        with pytest.raises(InputError, match=message):
            parquet_columns.find_columns("rows.parquet", names, labelled=True)
    else:
        assert parquet_columns.find_columns("", names, labelled=True).positions == tuple(range(40))
        note = parquet_columns.note_on_columns("rows.parquet", names)
        assert f"taken by position: {names[0]} is label, {names[1]} is num_0, {names[14]} is cat_0" in note


def test_a_line_says_what_is_taken_by_position(tmp_path, capsys):
    named(tmp_path / "rows.parquet", [f"column {chr(65 + n)}" for n in range(40)])
    make_dataset = partial(preprocess, rules=make_rules(0), test_fraction=0.5, resources=Resources())
    make_dataset([tmp_path / "rows.parquet"], tmp_path / "set")
    assert "columns are taken by position: column A is label, column B is num_0" in capsys.readouterr().err


def test_rows_without_labels(tmp_path):
    table = pyarrow.table(columns_of(TEXT, as_text)[1:], names=KAGGLE[1:]).select(sorted(KAGGLE[1:]))
    pyarrow.parquet.write_table(table, tmp_path / "rows.parquet")
    ((batch, _),) = parquet_rows.row_blocks(tmp_path / "rows.parquet", labelled=False)
    expected = tsv.parse("".join("\t".join(row[1:]) + "\n" for row in TEXT).encode(), labelled=False)
    assert np.array_equal(parquet_rows.rows_of(batch, labelled=False).values, expected.values)


@pytest.mark.parametrize("use_dictionary", [True, False])
def test_giant_values_do_not_fill_the_memory(tmp_path, use_dictionary):
    """16,384 rows of a 200,000-character value are 3 GB, and a few hundred kB in the file."""
    columns = columns_of(TEXT * (8192 if use_dictionary else 64), as_text)
    columns[20] = pyarrow.DictionaryArray.from_arrays([0] * len(columns[0]), ["a" * 200_000])
    table = pyarrow.table(columns, names=KAGGLE)
    pyarrow.parquet.write_table(table, tmp_path / "rows.parquet", use_dictionary=use_dictionary, store_schema=False)
    before = pyarrow.total_allocated_bytes()
    with pytest.raises(InputError, match=r"column 'C7' has a value of 200,000 bytes|row group 0 has .* bytes for 128"):
        list(parquet_rows.row_blocks(tmp_path / "rows.parquet"))
    assert pyarrow.total_allocated_bytes() - before < 1 << 20


def test_damage_names_the_file(tmp_path):
    """Bits flip in the footer, in the page headers and in the data, of a file with checksums."""
    table = pyarrow.table(columns_of(TEXT * 40, as_text), names=KAGGLE)
    path = tmp_path / "day_0.parquet"
    pyarrow.parquet.write_table(table, path, write_page_checksum=True)
    whole, source = path.read_bytes(), random.Random(4)
    ((batch, _),) = parquet_rows.row_blocks(path)
    expected, refused = parquet_rows.rows_of(batch).values, 0
    for place in [*source.choices(range(4, len(whole)), k=60), *range(len(whole) - 12, len(whole) - 4)]:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << source.randrange(8)
        path.write_bytes(damaged)
        try:
            values = [parquet_rows.rows_of(batch).values for batch, _ in parquet_rows.row_blocks(path)]
            assert len(values) == 1 and np.array_equal(values[0], expected)  # what the bit says is not read
        except InputError as error:
            assert str(error).startswith(f"{path}: ") and len(str(error).splitlines()) == 1
            refused += 1
    assert refused > 20


def test_a_truncated_file(tmp_path):
    path = save(tmp_path / "rows.parquet", columns_of(TEXT, as_text))
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(InputError, match="is not a whole parquet file"):
        parquet_rows.num_rows_of(path)
    path.write_bytes(b"text")
    with pytest.raises(InputError, match="is named .parquet but is not a parquet file"):
        parquet_rows.is_parquet(path)
