"""`criteo-prep preprocess --schema` and `encode` as a user types them."""

import polars as pl
import pytest

from criteo_prep.cli import main
from criteo_prep.feature_spec import FeatureSpec
from criteo_prep.manifest import load_manifest

SCHEMA = "label: {column: y}\ncategorical: {a: {threshold: 2}}\nsplit: {test_fraction: 0.5}\n"


@pytest.fixture
def logs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "logs").mkdir()
    for name, rows in (("2", 4), ("10", 6)):
        frame = pl.DataFrame({"y": [0, 1] * (rows // 2), "a": [name] * rows})
        frame.write_csv(tmp_path / "logs" / f"part_{name}.csv")
    (tmp_path / "logs" / "notes.md").write_text("not a log")
    (tmp_path / "schema.yaml").write_text(SCHEMA)
    return tmp_path


@pytest.mark.parametrize("inputs", [
    ["logs/part_2.csv", "logs/part_10.csv"], ["logs"], ["logs/part_*.csv"],
    ["--input", "logs/part_2.csv", "logs/part_10.csv"],
])  # fmt: skip
def test_files_folders_and_patterns_in_natural_order(inputs, logs, capsys):
    assert main(["preprocess", "--schema", "schema.yaml", *inputs, "--output", "set", "--quiet"]) == 0
    output = capsys.readouterr()
    assert "rows in: 10 of 2 file(s)" in output.out and "set: complete" in output.out
    assert ("notes.md: was not read" in output.err) == (inputs == ["logs"])
    assert (logs / "set/train/a.bin").read_bytes() == bytes([2, 2, 2, 2, 1]), "part_2 comes before part_10"
    assert FeatureSpec.load(logs / "set/feature_spec.yaml").features["a"].cardinality == 3
    assert load_manifest(logs / "set")["columns"] == {"a": "a"}


@pytest.mark.parametrize("flags, complaint", [
    (["--threshold", "3"], "--threshold: leave it out; with --schema, the schema says it (a threshold for each"),
    (["--test_fraction", "0.1"], "--test_fraction: leave it out"),
    (["--days", "0-3"], "--days: leave it out"),
    (["--ids", "raw"], "--ids raw: is for Criteo's logs without a schema"),
    (["--keep_raw"], "--keep_raw: is for Criteo's logs"),
    (["--memory_limit", "1M"], "--memory_limit 1.05 MB: is too small"),
])  # fmt: skip
def test_flags_that_contradict_a_schema_are_refused(flags, complaint, logs, capsys):
    assert main(["preprocess", "--schema", "schema.yaml", "logs", "--output", "set", *flags]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert complaint in error and not (logs / "set").exists()


def test_the_output_may_not_touch_what_is_read(logs, capsys):
    for output in ("logs", "logs/part_2.csv", "."):
        assert main(["preprocess", "--schema", "schema.yaml", "logs", "--output", output]) == 1
    assert (logs / "logs" / "part_2.csv").exists() and (logs / "schema.yaml").read_text() == SCHEMA


def test_new_rows_are_encoded_through_the_same_command_as_criteos(logs, capsys):
    assert main(["preprocess", "--schema", "schema.yaml", "logs", "--output", "set", "--quiet"]) == 0
    (logs / "new.csv").write_text("a,other\n10,1\n2,1\n3,1\n,1\n")
    assert main(["encode", "--vocabulary", "set", "new.csv", "--output", "new", "--quiet"]) == 0
    assert (logs / "new/test/a.bin").read_bytes() == bytes([1, 2, 0, 0])
    assert main(["encode", "--vocabulary", "set", "new.csv", "--output", "new2", "--labelled", "yes", "--quiet"]) == 1
    assert "new.csv: has no column 'y'" in capsys.readouterr().err


def test_a_dataset_of_criteos_form_is_not_replaced_by_one_of_a_schema(logs, capsys):
    assert main(["preprocess", "--schema", "schema.yaml", "logs", "--output", "set", "--quiet"]) == 0
    row = "\t".join(["1", *["5"] * 13, *["0000000a"] * 26]) + "\n"
    (logs / "criteo.tsv").write_text(row * 20)
    assert main(["preprocess", "--input", "criteo.tsv", "--threshold", "0", "--output", "set", "--quiet"]) == 1
    assert "made by criteo-prep preprocess --schema" in capsys.readouterr().err
