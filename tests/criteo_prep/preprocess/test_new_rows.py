"""New rows through the vocabularies of a dataset that is there."""

import os
import shutil

import numpy as np
import pytest

from criteo_prep import cli
from criteo_prep.feature_spec import FeatureSpec
from criteo_prep.guard import DestinationError
from criteo_prep.manifest import ManifestError
from criteo_prep.preprocess.new_rows import encode
from criteo_prep.preprocess.parse.text_stream import InputError
from criteo_prep.preprocess.request import Resources
from criteo_prep.preprocess.rules import make_rules
from criteo_prep.preprocess.run import DifferentDatasetError, preprocess
from criteo_prep.transcribe.tf_raw import Reader
from criteo_prep.verify import verify

QUIET = Resources(quiet=True)


def row(label, number, value):
    return "\t".join([*([label] if label else []), *[number] * 13, *[value] * 26]) + "\n"


@pytest.fixture
def dataset(tmp_path):
    """Values a (five times), b (twice) and c (once), threshold 2: ids 1, 2, 0."""
    text = row("1", "5", "a") * 5 + row("0", "", "b") * 2 + row("1", "1", "c")
    (tmp_path / "rows.tsv").write_text(text)
    preprocess([tmp_path / "rows.tsv"], tmp_path / "set", rules=make_rules(2), resources=QUIET)
    return tmp_path / "set"


@pytest.mark.parametrize("labels", [["0", "1", "0", "1", "1"], [""] * 5])
def test_ids_are_those_of_the_dataset(tmp_path, dataset, labels):
    rows = zip(labels, ["", "0", "-3", "5", "9"], ["b", "c", "", "0000000A", "dddddddd"], strict=True)
    (tmp_path / "new.tsv").write_text("".join(row(*fields) for fields in rows))
    outcome = encode(dataset, [tmp_path / "new.tsv"], destination=tmp_path / "new", resources=QUIET)
    with Reader(tmp_path / "new", outcome.spec, split="test") as reader:
        batch = reader.read(0, reader.num_samples)
    assert batch.label.tolist() == [label == "1" for label in labels]
    assert (
        batch.numerical[:, 4].tolist() == np.array([0, np.log(3), 0, np.log(8), np.log(12)]).astype(np.float16).tolist()
    )
    for feature in outcome.spec.categorical:
        assert batch.categorical[feature.name].values.tolist() == [2, 0, 0, 1, 0]
        assert feature == FeatureSpec.load(dataset / "feature_spec.yaml").features[feature.name]
    assert outcome.manifest["rules"]["labels"].startswith("as given" if labels[0] else "none")
    assert list(outcome.manifest["splits"]) == ["test"] and verify(tmp_path / "new", quiet=True).good
    assert encode(dataset, [tmp_path / "new.tsv"], destination=tmp_path / "new", resources=QUIET).already_complete


def test_encoding_the_training_rows_gives_the_training_ids(tmp_path, dataset):
    spec = encode(dataset, [tmp_path / "rows.tsv"], destination=tmp_path / "new", resources=QUIET).spec
    for feature in spec.categorical:
        old = [(dataset / split / f"{feature.name}.bin").read_bytes() for split in ("train", "test")]
        assert (tmp_path / "new" / "test" / f"{feature.name}.bin").read_bytes() == b"".join(old)


def test_misuse(tmp_path, dataset):
    (tmp_path / "short.tsv").write_text("1\t2\n")
    with pytest.raises(
        InputError, match=r"short.tsv: no good row .* \(40 fields\) or none \(39 fields\). Add --labelled"
    ):
        encode(dataset, [tmp_path / "short.tsv"], destination=tmp_path / "new", resources=QUIET)
    with pytest.raises(ManifestError, match="there is no manifest"):
        encode(tmp_path, [tmp_path / "rows.tsv"], destination=tmp_path / "new", resources=QUIET)
    copy = shutil.copytree(dataset, tmp_path / "copy")
    with pytest.raises(DifferentDatasetError, match="made by criteo-prep preprocess, not criteo-prep encode"):
        encode(dataset, [tmp_path / "rows.tsv"], destination=copy, resources=QUIET)
    shutil.rmtree(copy)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("mine")
    with pytest.raises(DestinationError, match="is not empty"):
        encode(dataset, [tmp_path / "rows.tsv"], destination=tmp_path / "other", resources=QUIET)
    assert sorted(os.listdir(tmp_path)) == ["other", "rows.tsv", "set", "short.tsv"]


def test_the_verb(tmp_path, dataset, capsys):
    argv = [
        "encode",
        "--vocabulary",
        str(dataset),
        "--input",
        str(tmp_path / "rows.tsv"),
        "--output",
        str(tmp_path / "n"),
    ]
    assert cli.main([*argv, "--quiet"]) == 0
    assert "samples: test 8" in capsys.readouterr().out


def ids_in(outcome, root):
    with Reader(root, outcome.spec, split="test") as reader:
        return reader.read(0, reader.num_samples).categorical["cat_0"].values.tolist()


def test_a_broken_first_row_does_not_decide_whether_rows_have_labels(tmp_path, dataset):
    """Without its last field, a row with a label is a good row without one, shifted by a column."""
    broken = row("1", "5", "a").rpartition("\t")[0] + "\n"
    (tmp_path / "new.tsv").write_text(broken + row("1", "5", "b") * 3)
    outcome = encode(dataset, [tmp_path / "new.tsv"], destination=tmp_path / "n", on_bad_row="skip", resources=QUIET)
    assert ids_in(outcome, tmp_path / "n") == [2, 2, 2]
    assert outcome.manifest["inputs"][0]["skipped"] == {"too_few_fields": 1}


@pytest.mark.parametrize("label", ["1", ""])
def test_blank_lines_and_empty_files_come_first(tmp_path, dataset, label):
    (tmp_path / "empty.tsv").touch()
    (tmp_path / "new.tsv").write_text("\n" + row(label, "5", "b"))
    files = [tmp_path / "empty.tsv", tmp_path / "new.tsv"]
    outcome = encode(dataset, files, destination=tmp_path / "n", on_bad_row="skip", resources=QUIET)
    assert ids_in(outcome, tmp_path / "n") == [2]
    assert outcome.manifest["rules"]["labels"].startswith("as given" if label else "none")


def test_what_the_user_says_of_labels_decides(tmp_path, dataset):
    broken = row("1", "5", "a").rpartition("\t")[0] + "\n"
    (tmp_path / "new.tsv").write_text(broken + row("1", "5", "b"))  # one row of either kind
    argv = [
        "encode",
        "--vocabulary",
        str(dataset),
        "--input",
        str(tmp_path / "new.tsv"),
        "--on_bad_row",
        "skip",
        "--quiet",
    ]
    assert cli.main([*argv, "--output", str(tmp_path / "n")]) == 1
    assert cli.main([*argv, "--output", str(tmp_path / "yes"), "--labelled", "yes"]) == 0
    assert cli.main([*argv, "--output", str(tmp_path / "no"), "--labelled", "no"]) == 0
    labels = [(tmp_path / name / "test" / "label.bin").read_bytes() for name in ("yes", "no")]
    assert labels == [b"\1", b"\0"]


def test_files_that_differ_in_labels_are_named(tmp_path, dataset):
    (tmp_path / "a.tsv").write_text(row("", "5", "b"))
    (tmp_path / "b.tsv").write_text(row("1", "5", "b"))
    with pytest.raises(InputError, match=r"b\.tsv: rows have labels, but the rows of .*a\.tsv have none"):
        encode(dataset, [tmp_path / "a.tsv", tmp_path / "b.tsv"], destination=tmp_path / "n", resources=QUIET)


@pytest.mark.parametrize("on_bad_row", ["error", "skip"])
def test_preprocess_names_encode_for_rows_without_labels(tmp_path, on_bad_row):
    (tmp_path / "train.txt").write_text(row("1", "5", "b") * 9)
    (tmp_path / "test.txt").write_text(row("", "5", "b") * 9)
    rules = make_rules(0, on_bad_row=on_bad_row)
    for paths, test_file in (["test.txt"], None), (["train.txt"], tmp_path / "test.txt"):
        paths = [tmp_path / path for path in paths]
        with pytest.raises(InputError, match=r"test\.txt: its rows have 39 fields and no label.* criteo-prep encode"):
            preprocess(paths, tmp_path / "set", rules=rules, test_file=test_file, resources=QUIET)
    assert sorted(os.listdir(tmp_path)) == ["test.txt", "train.txt"]
