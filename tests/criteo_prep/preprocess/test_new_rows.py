"""New rows through the vocabularies of a dataset that is there."""

import os
import shutil

import numpy as np
import pytest

from criteo_prep import cli
from criteo_prep.destination import DestinationError
from criteo_prep.feature_spec import FeatureSpec
from criteo_prep.manifest import ManifestError
from criteo_prep.preprocess.new_rows import encode
from criteo_prep.preprocess.parse.text_blocks import InputError
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
    with pytest.raises(InputError, match="its first row has 2 fields; expected 40, or 39 without the label"):
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
