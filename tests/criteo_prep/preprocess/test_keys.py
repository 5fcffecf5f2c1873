"""Raw ids: the values themselves as keys, against the values in the logs and the ids of an ordinary run."""

import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
from support.layout_samples import files_of, to_layout
from support.log_samples import content, make, random_rows, write_rows

from criteo_prep.cli import main
from criteo_prep.feature_spec import Feature, FeatureSpec
from criteo_prep.preprocess.columns import encoder
from criteo_prep.preprocess.new_rows import encode
from criteo_prep.preprocess.parse import parse_files
from criteo_prep.preprocess.request import Resources
from criteo_prep.transcribe.layout_spec import LayoutError
from criteo_prep.verify import verify

HAND_MADE = Path(__file__).parents[2] / "data" / "hand_made.tsv"
NAMES = [f"cat_{i}" for i in range(26)]
RAW = {"threshold": None, "ids": "raw"}


@pytest.fixture(scope="module")
def days(tmp_path_factory):
    """Three days; cat_0 has the value 00000000 and missing values."""
    folder = tmp_path_factory.mktemp("days")
    rows = ["\t".join(["1", *[""] * 13, "00000000", *["f"] * 25]), *random_rows(7, 250)]
    return [write_rows(folder / f"day_{day}", rows[day::3]) for day in range(3)]


@pytest.fixture(scope="module")
def made(days):
    """The days with keys."""
    make(days, days[0].parent / "keys", **RAW)
    return days[0].parent / "keys"


def keys_of(root, split, name):
    return np.fromfile(root / split / f"{name}.bin", np.int64)


def test_hand_made_rows(tmp_path):
    outcome = make(HAND_MADE, tmp_path / "set", **RAW)
    expected = [0xA, 0xFFFFFFFF, -1, 0, 0xA, 0x12345678, 5, 0xFFFFFFFF, 0, 0xA, 5]
    assert keys_of(tmp_path / "set", "train", "cat_0").tolist() == expected
    assert keys_of(tmp_path / "set", "test", "cat_0").tolist() == [0xFFFFFFFF]
    assert set(keys_of(tmp_path / "set", "train", "cat_2").tolist()) == {-1}  # always missing
    assert outcome.spec.categorical == [Feature(name, "int64", key=True) for name in NAMES]
    assert "threshold" not in outcome.manifest["rules"] and not (tmp_path / "set" / "vocabularies").exists()
    assert outcome.summary().endswith("ids: raw keys: each value itself as int64; -1: missing")


@pytest.mark.parametrize("shuffle", ["none", "global"])
def test_through_the_vocabularies_keys_are_the_ids_of_an_ordinary_run(tmp_path, days, shuffle):
    ordinary = make(days, tmp_path / "ids", 2, shuffle=shuffle, seed=3).spec
    make(days, tmp_path / "keys", **RAW, shuffle=shuffle, seed=3)
    for split in ("train", "test", "validation"):
        for file in ("label.bin", "numerical.bin"):
            assert (tmp_path / "keys" / split / file).read_bytes() == (tmp_path / "ids" / split / file).read_bytes()
        for feature in ordinary.categorical:
            path = tmp_path / "ids" / "vocabularies" / f"{feature.name}.parquet"
            table = pyarrow.parquet.read_table(path).to_pydict()
            id_of = dict(zip(table["value"], table["id"], strict=True))
            ids = np.fromfile(tmp_path / "ids" / split / f"{feature.name}.bin", feature.dtype)
            keys = keys_of(tmp_path / "keys", split, feature.name)
            assert [id_of.get(key, 0) for key in keys.tolist()] == ids.tolist()
    assert {-1, 0} <= set(keys_of(tmp_path / "keys", "train", "cat_0").tolist())


def test_verify_finds_changed_bytes_and_missing_bytes(tmp_path, made):
    report = verify(made, quiet=True)
    assert report.good and "26 features hold raw keys, which have no range" in report.text()
    root = shutil.copytree(made, tmp_path / "set")
    path = root / "train" / "cat_3.bin"
    whole = path.read_bytes()
    path.write_bytes(bytes([whole[0] ^ 1]) + whole[1:])
    assert "do not fit their checksum" in verify(root, quiet=True).text()
    path.write_bytes(whole[:-8])
    assert f"has {len(whole) - 8} bytes, not {len(whole)}" in verify(root, quiet=True).text()


def test_a_stopped_run_is_resumed(tmp_path, days, made, monkeypatch):
    original = encoder.ColumnEncoder._encode

    def late(self, column, *rest):
        if column == 5:
            raise KeyboardInterrupt
        return original(self, column, *rest)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(encoder.ColumnEncoder, "_encode", late)
        make(days, tmp_path / "set", **RAW, workers=1)
    monkeypatch.setattr(parse_files, "text_blocks", None)  # nothing is parsed
    make(days, tmp_path / "set", **RAW)
    assert content(tmp_path / "set") == content(made)


def test_keys_after_a_run_that_was_stopped_among_its_vocabularies(tmp_path, days, made, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(encoder.ColumnEncoder, "_encode", lambda *rest: (_ for _ in ()).throw(KeyboardInterrupt))
        make(days, tmp_path / "set", 2, workers=1)
    assert (tmp_path / ".set.partial" / "vocabularies" / "cat_0.parquet").exists()
    make(days, tmp_path / "set", **RAW)
    assert content(tmp_path / "set") == content(made)


def test_keys_and_ids_replace_each_other(tmp_path, days, made, monkeypatch):
    make(days, tmp_path / "ids", 2, keep_raw=True)
    ids = content(tmp_path / "ids")
    with monkeypatch.context() as patch:
        patch.setattr(parse_files, "text_blocks", None)  # raw columns are there, nothing is parsed
        outcome = make(days, tmp_path / "ids", **RAW)
        assert "ids: existing 'id 0: missing" in outcome.warnings[0]
        keys = content(tmp_path / "ids")
        assert {name: keys[name] for name in content(made) if name != "manifest.json"} == {
            name: data for name, data in content(made).items() if name != "manifest.json"
        }
        make(days, tmp_path / "ids", 2)
        assert content(tmp_path / "ids") == ids
    root = shutil.copytree(made, tmp_path / "set")
    assert make(days, root, **RAW).already_complete
    make(days, root, 2)  # without raw columns, the days are parsed again
    assert content(root)["train/cat_0.bin"] == ids["train/cat_0.bin"] and verify(root, quiet=True).good


def test_new_rows_have_keys_too(tmp_path, made):
    text = "\t".join([*["3"] * 13, "00000000", "", *["ABCDEF"] * 24])
    (tmp_path / "new.tsv").write_text(text + "\n")
    quiet = Resources(quiet=True)
    outcome = encode(made, [tmp_path / "new.tsv"], destination=tmp_path / "new", resources=quiet)
    found = [keys_of(tmp_path / "new", "test", name).tolist() for name in NAMES]
    assert found == [[0], [-1], *[[0xABCDEF]] * 24]
    assert outcome.spec.features == FeatureSpec.load(made / "feature_spec.yaml").features
    assert verify(tmp_path / "new", quiet=True).good
    assert encode(made, [tmp_path / "new.tsv"], destination=tmp_path / "new", resources=quiet).already_complete


@pytest.mark.parametrize("layout", ["parquet", "csv"])
def test_layouts_that_hold_keys(tmp_path, made, layout):
    to_layout(made, "tf_raw", tmp_path / layout, layout)
    assert verify(tmp_path / layout, quiet=True).good
    to_layout(tmp_path / layout, layout, tmp_path / "again", "tf_raw")
    ours = {name: data for name, data in files_of(made).items() if name != "manifest.json"}
    assert files_of(tmp_path / "again") == ours
    assert FeatureSpec.load(tmp_path / "again" / "feature_spec.yaml").features["cat_0"].key


@pytest.mark.parametrize("layout", ["record_binary", "criteo_npy", "split_tfrecords"])
def test_layouts_that_do_not_hold_keys(tmp_path, made, layout):
    message = f"cat_0: holds raw keys, which are int64; {layout} holds ids of int32. tf_raw, parquet and csv hold keys"
    with pytest.raises(LayoutError, match=message):
        to_layout(made, "tf_raw", tmp_path / layout, layout)
    assert not (tmp_path / layout).exists()


def test_flags_that_contradict_raw_ids(tmp_path, days, capsys):
    command = ["preprocess", "--input", *map(str, days), "--output", str(tmp_path / "set"), "--quiet"]
    assert main([*command, "--ids", "raw", "--threshold", "3"]) == 1
    assert capsys.readouterr().err == (
        "criteo-prep: --threshold 3: is for vocabularies, and --ids raw makes none. Leave out one of the two flags.\n"
    )
    with pytest.raises(SystemExit, match="2"):
        main(command)
    assert "required: --threshold (or --ids raw" in capsys.readouterr().err
    assert not (tmp_path / "set").exists() and main([*command, "--ids", "raw"]) == 0
