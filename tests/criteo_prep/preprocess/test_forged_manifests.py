"""A manifest with a right checksum and wrong content: every command that reads it ends with a message for users."""

import os
import random
import shutil

import pytest
from support.any_json import mutations

from criteo_prep.manifest import ManifestError, load_manifest, save_manifest
from criteo_prep.preprocess.finished import load_finished
from criteo_prep.preprocess.new_rows import encode
from criteo_prep.preprocess.request import Resources
from criteo_prep.preprocess.rules import make_rules
from criteo_prep.preprocess.run import preprocess

COUNTS = {"rules": 16, "inputs": 12, "splits": 5, "files": 5, "made_by": 2}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Rows, and a dataset of them with a cap; keeps raw columns or not."""
    root = tmp_path_factory.mktemp("forged")
    source = random.Random(1)
    rows = ["\t".join([str(source.randrange(2)), *[str(source.randrange(99))] * 13,
                       *[f"{source.randrange(9):x}" for _ in range(26)]]) for _ in range(60)]  # fmt: skip
    (root / "rows.tsv").write_text("\n".join(rows) + "\n")
    for keep_raw, name in ((False, "ids"), (True, "raw")):
        prepare(root / "rows.tsv", root / name, 2, keep_raw)
    return root


def prepare(rows, destination, threshold, keep_raw):
    rules = make_rules(threshold, "9")
    return preprocess([rows], destination, rules=rules, keep_raw=keep_raw, resources=Resources(1, quiet=True))


def forged(made, folder, name, change):
    """A copy of a dataset, of linked files, whose manifest has other values."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(made / name, folder / "set", copy_function=os.link)
    save_manifest(folder / "set", load_manifest(folder / "set") | change)
    return folder / "set"


@pytest.mark.parametrize("name", ["ids", "raw"])
def test_random_values_are_refused_or_read(made, tmp_path, name):
    document, refused = load_manifest(made / name), 0
    for key, count in COUNTS.items():
        for changed in mutations({key: document[key]}, count) if key == "made_by" else mutations(document[key], count):
            change = changed if key == "made_by" else {key: changed}
            for verb in ("encode", "preprocess"):
                dataset = forged(made, tmp_path / "copy", name, change)
                try:
                    if verb == "encode":
                        encode(dataset, [made / "rows.tsv"], destination=tmp_path / "copy" / "out",
                               resources=Resources(1, quiet=True))  # fmt: skip
                    else:
                        prepare(made / "rows.tsv", dataset, 3, name == "raw").summary()
                except (ValueError, OSError) as error:
                    assert len(str(error)) < 5000
                    refused += 1
    assert refused > 25


@pytest.mark.parametrize("change, message", [
    ({"rules": {}}, "its rule 'threshold' is None, so somebody changed it"),
    ({"rules": {"threshold": True}}, "its rule 'threshold' is True"),
    ({"rules": {"threshold": ["2"]}}, r"its rule 'threshold' is \['2'\]"),
    ({"rules": {"threshold": "2,3"}}, "its rules are not valid: --threshold 2,3: gives the number for all columns"),
    ({"rules": {"threshold": -1}}, "its rules are not valid: --threshold -1: is negative"),
    ({"rules": {"threshold": 2, "max_cardinality": {"a": 1}}}, "its rule 'max_cardinality' is {'a': 1}"),
    ({"rules": {"threshold": 2, "max_cardinality": 1}}, "its rules are not valid: --max_cardinality 1: must be at"),
    ({"inputs": [{"name": "rows.tsv", "rows": "60", "skipped": {}}]}, "its input 'rows.tsv' has no numbers of good"),
    ({"inputs": [{"name": "rows.tsv", "rows": 60}]}, "its input 'rows.tsv' has no numbers of good and of skipped"),
    ({"inputs": [{"name": "rows.tsv", "rows": 60, "skipped": {"a": None}}]}, "its input 'rows.tsv' has no numbers"),
    ({"inputs": [{"name": "rows.tsv", "rows": 61, "skipped": {}}]}, "its inputs have 61 good rows, its splits 60"),
    ({"splits": {}}, "its inputs have 60 good rows, its splits 0 samples"),
    ({"files": {}}, "it does not list the file feature_spec.yaml"),
])  # fmt: skip
def test_what_no_command_writes_is_named(made, tmp_path, change, message):
    dataset = forged(made, tmp_path / "copy", "ids", change)
    with pytest.raises(ManifestError, match=f"set/manifest.json: {message}") as error:
        load_finished(dataset)
    assert "\n" not in str(error.value) and "make the dataset again" in str(error.value)


@pytest.mark.parametrize("name, missing", [
    ("ids", "vocabularies/cat_7.parquet"), ("ids", "test/cat_7.bin"), ("ids", "train/label.bin"),
    ("raw", "raw/cat_25.zeros"), ("raw", "raw/cat_0.raw"),
])  # fmt: skip
def test_a_file_that_the_manifest_does_not_list(made, tmp_path, name, missing):
    files = load_manifest(made / name)["files"]
    del files[missing]
    with pytest.raises(ManifestError, match=f"it does not list the file {missing}"):
        load_finished(forged(made, tmp_path / "copy", name, {"files": files}))


def test_what_the_commands_write_is_right(made, tmp_path):
    for name in ("ids", "raw"):
        assert load_finished(made / name) == load_manifest(made / name)
    encode(made / "ids", [made / "rows.tsv"], destination=tmp_path / "out", resources=Resources(1, quiet=True))
    assert load_finished(tmp_path / "out") == load_manifest(tmp_path / "out")
    assert "somebody changed" not in str(
        load_finished(forged(made, tmp_path / "copy", "ids", {"made_by": "criteo-prep x"}))
    )
