"""Logs that do not fit their schema: one line says file, column, row and what is expected; nothing is half-written."""

import gzip
import shutil

import numpy as np
import polars as pl
import pyarrow.ipc
import pyarrow.parquet
import pytest
from support.any_json import cuts

from criteo_prep.preprocess.request import Resources
from criteo_prep.table.run import preprocess_table

SCHEMA = """
label: {column: y}
numerical: {x: {transform: none}}
categorical: {a: {}, b: {}}
split: {test_fraction: 0.5}
"""
GOOD = {"y": [0, 1, 0, 1], "x": [0.5, 1.5, None, 3.0], "a": ["p", "q", "p", None], "b": [1, 2, 3, 4]}


def make(folder, files, schema=SCHEMA, **options):
    (folder / "schema.yaml").write_text(schema, encoding="utf-8")
    quiet = Resources(2, quiet=True)
    return preprocess_table(files, folder / "out", schema=folder / "schema.yaml", options=options, resources=quiet)


def parquet(path, **changed):
    pl.DataFrame({**GOOD, **changed}, strict=False).write_parquet(path)
    return path


def csv(path, lines, encoding="utf-8"):
    path.write_bytes("".join(line + "\n" for line in ["y,x,a,b", *lines]).encode(encoding))
    return path


def refused(folder, files, *expected, **more):
    """Asserts that the files are refused, in one line that has these words, and that nothing is left."""
    with pytest.raises(ValueError) as raised:
        make(folder, files, **more)
    message = str(raised.value)
    assert "\n" not in message and all(word in message for word in map(str, expected)), message
    assert not (folder / "out").exists() and not (folder / ".out.partial").exists()


@pytest.mark.parametrize("changed, schema, expected", [
    ({}, SCHEMA.replace("b: {}", "c: {}"), ["has no column 'c'", "'y', 'x', 'a', 'b'"]),
    ({"y": [0, 1, 2, 1]}, SCHEMA, ["column 'y'", "the label has the values '1', '0', '2'", "expected two"]),
    ({"y": [0, None, 0, 1]}, SCHEMA, ["row 2, column 'y': found nothing, expected a label"]),
    ({"x": ["1", "2", "?", "3"]}, SCHEMA, ["row 3, column 'x': found '?', expected a number"]),
    ({"x": [1.0, float("inf"), 2.0, 3.0]}, SCHEMA, ["row 2, column 'x': found inf, expected a number"]),
    ({"x": [1.0, 2.0, 3.0, 1e6]}, SCHEMA, ["row 4, column 'x'", "65504"]),
    ({"x": [[1], [2], [3], [4]]}, SCHEMA, ["column 'x': is of type List(Int64), expected numbers"]),
    ({"b": [1.0, 2.0, 2.5, 4.0]}, SCHEMA, ["row 3, column 'b': found 2.5, expected an integer, and no decimal"]),
    ({"b": ["1", "2", "3", "x"]}, SCHEMA.replace("b: {}", "b: {type: integer}"), ["row 4, column 'b': found 'x'"]),
    ({"b": ["1", "g", "3", "4"]}, SCHEMA.replace("b: {}", "b: {type: hexadecimal}"), ["row 2", "hexadecimal digits"]),
    ({"b": [{"k": 1}] * 4}, SCHEMA, ["column 'b': is of type Struct"]),
    ({"a": [["p"], ["q", "r", "s"], [], None]}, SCHEMA.replace("a: {}", "a: {max_length: 2}"),
     ["row 2, column 'a'", "expected 2 values at most (the schema's max_length)"]),
    ({"a": [["p"], ["q", "r", "s"], [], None]}, SCHEMA.replace("a: {}", "a: {hotness: 2}"), ["row 2", "hotness"]),
    ({}, SCHEMA.replace("test_fraction: 0.5", "column: b, test: [1, 2, 3, 4]"), ["leaves no train row of 4"]),
    ({}, SCHEMA.replace("test_fraction: 0.5", "time: b, test_after: 2026-01-01"), ["column 'b': is of type Int64"]),
    ({}, SCHEMA.replace("test_fraction: 0.5", "time: a, test_after: 5"), ["row 1, column 'a': found 'p'"]),
    ({}, SCHEMA.replace("test_fraction: 0.5", "test_file: other"), ["test_file: other: is not one of the given files"]),
    ({}, SCHEMA.replace("a: {}", "a: {vocabulary: v}").replace("b: {}", "b: {vocabulary: v}"), ["share a vocabulary"]),
])  # fmt: skip
def test_a_log_that_does_not_fit(changed, schema, expected, tmp_path):
    path = parquet(tmp_path / "log.parquet", **changed)
    refused(tmp_path, [path], *expected, schema=schema)


def test_a_file_whose_columns_differ_from_the_first(tmp_path):
    first = parquet(tmp_path / "1.parquet")
    pl.DataFrame({**GOOD}).drop("b").write_parquet(tmp_path / "2.parquet")
    refused(tmp_path, [first, tmp_path / "2.parquet"], tmp_path / "2.parquet", "has no column 'b', which", first, "has")
    third = parquet(tmp_path / "3.parquet", b=["x", "y", "z", "1"])
    with pytest.raises(ValueError, match="3.parquet: column 'b' has text values, but integer values in .*1.parquet"):
        make(tmp_path, [first, third])


@pytest.mark.parametrize("lines, encoding, expected", [
    (["0,1,p,1", "1,2,q"], "utf-8", ["row 2: has 3 fields, expected 4: '1,2,q'", "--on_bad_row skip"]),
    (["0,1,p,1", "1,2,q,2,3"], "utf-8", ["row 2: has 5 fields, expected 4"]),
    (["0,1,p,1", "1,2,q,2", "1,2,ä,3"], "latin-1", ["line 4: is not text in UTF-8 (byte 0xe4)"]),
    (["0,1,p,1", '1,2,"q,2'], "utf-8", ["row 2"]),
    ([], "utf-8", ["no good row"]),
])  # fmt: skip
def test_csv_that_is_not_whole(lines, encoding, expected, tmp_path):
    path = csv(tmp_path / "log.csv", lines, encoding)
    refused(tmp_path, [path], path, *expected)


def test_other_files_that_cannot_be_read(tmp_path):
    path = tmp_path / "log.ndjson"
    path.write_text('{"y": 0, "x": 1, "a": "p", "b": 1}\n{"y": 1, "x": }\n', encoding="utf-8")
    refused(tmp_path, [path], path, "row 2", "is not a JSON object")
    path = parquet(tmp_path / "log.parquet")
    path.write_bytes(path.read_bytes()[:-200])
    refused(tmp_path, [path], path, "is not a whole parquet file")
    pl.DataFrame(GOOD).write_ipc(tmp_path / "log.arrow")
    (tmp_path / "log.arrow").write_bytes((tmp_path / "log.arrow").read_bytes()[:100])
    refused(tmp_path, [tmp_path / "log.arrow"], "is not a whole Arrow IPC file")
    refused(tmp_path, [tmp_path / "no*.csv"], "no file has a name like this")
    refused(tmp_path, [tmp_path / "none.csv"], "does not exist")
    (tmp_path / "empty").mkdir()
    refused(tmp_path, [tmp_path / "empty"], "holds no file with a known ending")


def test_bad_rows_are_skipped_and_counted(tmp_path):
    lines = ["0,1,p,1", "1,x,q,2", "0,3", "1,4,r,7", ",5,s,8", "1,6,t,9", "0,7"]
    outcome = make(tmp_path, [csv(tmp_path / "log.csv", lines)], skip_bad_rows=True)
    (entry,) = outcome.manifest["inputs"]
    assert entry["rows"] == 3 and entry["skipped"] == {"wrong_number_of_fields": 2, "bad_label": 1, "bad_number": 1}
    assert any("row" in line and "found 'x'" in line for line in outcome.warnings)


def test_columns_that_the_schema_does_not_name_are_counted_aloud(tmp_path, capsys):
    path = parquet(tmp_path / "log.parquet", extra=[1, 2, 3, 4])
    (tmp_path / "schema.yaml").write_text(SCHEMA, encoding="utf-8")
    preprocess_table([path], tmp_path / "out", schema=tmp_path / "schema.yaml", options={})
    assert "1 columns are not in the schema and are left out: 'extra'" in capsys.readouterr().err


def test_csv_with_a_byte_order_mark_and_windows_line_ends(tmp_path):
    rows = ["y,x,a,b", "0,1.5,p,1", "1,,q,2", "0,3,p,3", "1,4,,4"]
    (tmp_path / "log.csv").write_bytes("".join(row + "\r\n" for row in rows).encode("utf-8-sig"))
    outcome = make(tmp_path, [tmp_path / "log.csv"])
    assert [entry["rows"] for entry in outcome.manifest["inputs"]] == [4]
    assert pl.read_parquet(tmp_path / "out/vocabularies/a.parquet")["value"].to_list() == ["p", "q"]


def test_compressed_files_that_end_early(tmp_path):
    rows = "".join(f"{row % 2},{row},p{row},{row * 7919}\n" for row in range(4000))
    for name, text in (
        ("log.csv.gz", "y,x,a,b\n" + rows),
        ("log.ndjson.gz", '{"y": 0, "x": 1, "a": "p", "b": 1}\n' * 9000),
    ):
        data = gzip.compress(text.encode())
        (tmp_path / name).write_bytes(data[: len(data) * 2 // 3])
        refused(tmp_path, [tmp_path / name], tmp_path / name, "ends early")


@pytest.mark.parametrize("kind", ["parquet", "arrow"])
def test_text_that_is_not_utf8_in_files_with_types(kind, tmp_path):
    buffers = [None, pyarrow.py_buffer(np.array([0, 1, 3, 4, 5], np.int32)), pyarrow.py_buffer(b"p\xff\xfeqr")]
    text = pyarrow.Array.from_buffers(pyarrow.string(), 4, buffers)
    table = pyarrow.table({**{name: GOOD[name] for name in "yxb"}, "a": text})
    path = tmp_path / f"log.{kind}"
    if kind == "parquet":
        pyarrow.parquet.write_table(table, path)
    else:
        with pyarrow.ipc.new_file(path, table.schema) as file:
            file.write_table(table)
    refused(tmp_path, [path], path, "rows 1 to 4, column 'a': holds text that is not UTF-8")


@pytest.mark.parametrize("kind", ["csv", "ndjson", "arrow"])
def test_any_bytes_are_a_log_or_an_error(kind, tmp_path):
    """Cuts and changed bits; the error is one line, and no half-written dataset is left."""
    frame = pl.DataFrame({**GOOD, "tags": [["p", "q"], [], ["r"], ["s"]]}) if kind != "csv" else pl.DataFrame(GOOD)
    path, source = tmp_path / f"log.{kind}", tmp_path / "source"
    getattr(frame, {"csv": "write_csv", "ndjson": "write_ndjson", "arrow": "write_ipc"}[kind])(source)
    num_refused = 0
    for changed in cuts(source.read_bytes(), 60):
        path.write_bytes(changed)
        try:
            make(tmp_path, [path], SCHEMA if kind == "csv" else SCHEMA.replace("b: {}", "b: {}, tags: {}"))
            shutil.rmtree(tmp_path / "out")
        except (ValueError, OSError) as error:
            num_refused += 1
            assert "\n" not in str(error)
            assert not (tmp_path / "out").exists() and not (tmp_path / ".out.partial").exists()
    assert 10 < num_refused < 60
