"""`criteo-prep synthesize`: from a preset to a dataset on disk, with a manifest."""

import dataclasses
import json
import zlib

import numpy as np
import pytest

from criteo_prep.cli import main
from criteo_prep.feature_spec import FeatureSpec, FeatureSpecError
from criteo_prep.guard import DestinationError
from criteo_prep.manifest import check_files, load_manifest
from criteo_prep.synthesize import Synthesis, SynthesizeError, synthesize
from criteo_prep.synthetic.criteo_tsv import id_of_value
from criteo_prep.synthetic.generator import Reader as SyntheticReader
from criteo_prep.synthetic.presets import MULTI_HOT
from criteo_prep.transcribe.tf_raw import Reader
from criteo_prep.verify import verify

SMALL = Synthesis("criteo_t3_synthetic", 3_000, scale=0.0001, seed=4, labels="teacher")


def files_of(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_tf_raw(tmp_path):
    splits = synthesize(SMALL, tmp_path / "set", quiet=True)
    spec = FeatureSpec.load(tmp_path / "set" / "feature_spec.yaml")
    assert {split: spec.validate_files(split) for split in spec.splits} == {"train": 3_000, "test": 300}
    assert [feature.cardinality for feature in spec.categorical][:5] == [4584, 4, 158, 35, 2]
    assert {feature.alpha for feature in spec.categorical} == {1.45}
    with Reader(tmp_path / "set", spec, split="test") as reader:
        batch = reader.read(0, 300)  # the reader checks the range of the ids
    assert batch.label.sum() == splits["test"]["num_clicks"]
    assert batch.numerical.shape == (300, 13)
    assert np.all(batch.numerical < 1)


def test_keys_in_place_of_ids(tmp_path):
    small = dataclasses.replace(SMALL, preset="criteo_t15_multi_hot", num_samples=500)
    with_ids = synthesize(small, tmp_path / "ids", quiet=True)
    with_keys = synthesize(dataclasses.replace(small, ids="raw"), tmp_path / "keys", quiet=True)
    assert with_keys == with_ids  # best AUC, log loss and clicks
    for name, data in files_of(tmp_path / "ids").items():
        if name.endswith(("label.bin", "numerical.bin")):
            assert (tmp_path / "keys" / name).read_bytes() == data
    specs = [FeatureSpec.load(tmp_path / name / "feature_spec.yaml") for name in ("ids", "keys")]
    for feature, keyed in zip(*(spec.categorical for spec in specs), strict=True):
        assert keyed == dataclasses.replace(feature, dtype="int64", cardinality=None, key=True)
        for split in ("train", "test"):
            ids = np.fromfile(specs[0].path_of(split, feature.name), feature.dtype)
            keys = np.fromfile(specs[1].path_of(split, feature.name), np.int64)
            assert [id_of_value(feature.name, key) for key in keys.tolist()] == ids.tolist()
    assert verify(tmp_path / "keys", quiet=True).good
    with pytest.raises(FeatureSpecError, match="cat_0: holds raw keys, and synthetic ids need a cardinality"):
        SyntheticReader(specs[1], "train", num_samples=5, seed=1)
    with pytest.raises(SynthesizeError, match="--ids raw: criteo_tsv has values, of which preprocess --ids raw makes"):
        synthesize(dataclasses.replace(small, ids="raw", layout="criteo_tsv"), tmp_path / "days", quiet=True)


@pytest.mark.parametrize("layout", ["tf_raw", "criteo_tsv"])
def test_manifest(tmp_path, layout):
    synthesize(dataclasses.replace(SMALL, layout=layout), tmp_path / "set", quiet=True)
    manifest = load_manifest(tmp_path / "set")
    check_files(tmp_path / "set", manifest)
    files = files_of(tmp_path / "set")
    assert set(files) == {*manifest["files"], "manifest.json"}
    for name, entry in manifest["files"].items():
        assert entry == {"bytes": len(files[name]), "crc32": f"{zlib.crc32(files[name]):08x}"}
    for facts in manifest["splits"].values():
        assert 0.6 < facts["best_auc"] < 0.95
        assert 0.2 < facts["best_log_loss"] < 0.6
    rules = manifest["rules"]
    assert (rules["preset"], rules["seed"]) == ("criteo_t3_synthetic", 4)
    assert (rules["base_rate"], rules["signal"]) == (0.25, 1.4)
    if layout == "criteo_tsv":
        assert set(manifest["days"]) == {"day_0", "day_1"}
        assert set(manifest["splits"]) == {"train", "test", "validation"}


@pytest.mark.parametrize("layout", ["tf_raw", "criteo_tsv"])
def test_workers_do_not_change_the_bytes_and_the_seed_does(tmp_path, layout):
    def made(name, **change):
        synthesize(dataclasses.replace(SMALL, layout=layout, **change), tmp_path / name, quiet=True)
        return files_of(tmp_path / name)

    one = made("one", workers=1)
    assert one == made("three", workers=3)
    other = made("other", seed=5)
    changed = [name for name in one if one[name] != other[name]]
    assert "manifest.json" in changed and len(changed) > 1


def test_a_longer_dataset_begins_with_the_shorter_one(tmp_path):
    synthesize(SMALL, tmp_path / "short", quiet=True)
    synthesize(dataclasses.replace(SMALL, num_samples=70_000, num_test_samples=10), tmp_path / "long", quiet=True)
    for name in ("label.bin", "cat_0.bin", "numerical.bin"):
        assert (tmp_path / "long/train" / name).read_bytes().startswith((tmp_path / "short/train" / name).read_bytes())
    assert (tmp_path / "long/test/label.bin").stat().st_size == 10


def test_random_labels(tmp_path):
    splits = synthesize(dataclasses.replace(SMALL, labels="random"), tmp_path / "set", quiet=True)
    assert splits["train"]["best_auc"] == 0.5
    assert splits["train"]["num_clicks"] / 3_000 == pytest.approx(0.5, abs=0.05)


def test_a_multi_hot_dataset(tmp_path):
    request = dataclasses.replace(SMALL, preset="criteo_t15_multi_hot", num_samples=200)
    splits = synthesize(request, tmp_path / "set", quiet=True)
    assert 0.5 < splits["train"]["best_auc"] < 1
    spec = FeatureSpec.load(tmp_path / "set/feature_spec.yaml")
    assert spec.validate_files("train") == 200
    sizes = {feature.name: (tmp_path / f"set/train/{feature.name}.bin").stat().st_size for feature in spec.categorical}
    assert sizes["cat_20"] == 200 * 100 * np.dtype(spec.features["cat_20"].dtype).itemsize
    batch = Reader(tmp_path / "set", spec, split="train").read(50, 60)
    assert sum(len(ids.values) for ids in batch.categorical.values()) == 10 * sum(MULTI_HOT)


def test_preprocess_takes_the_days_and_not_the_manifest(tmp_path):
    synthesize(dataclasses.replace(SMALL, layout="criteo_tsv", num_days=3), tmp_path / "days", quiet=True)
    assert main(["preprocess", "--input", str(tmp_path / "days"), "--output", str(tmp_path / "set"), "--threshold", "2",
                 "--quiet"]) == 0  # fmt: skip
    spec = FeatureSpec.load(tmp_path / "set" / "feature_spec.yaml")
    assert [spec.validate_files(split) for split in ("train", "test", "validation")] == [3_000, 150, 150]
    clicks = json.loads((tmp_path / "days" / "manifest.json").read_text())["splits"]["validation"]["num_clicks"]
    assert sum((tmp_path / "set" / "validation" / "label.bin").read_bytes()) == clicks


def test_as_a_verb(tmp_path, capsys):
    argv = ["synthesize", "--preset", "criteo_t15", "--scale=0.001", "--num-samples", "500",
            "--dst", str(tmp_path / "d"), "--labels", "teacher", "--base_rate", "0.1", "--signal", "2"]  # fmt: skip
    assert main(argv) == 0
    out = capsys.readouterr().out
    assert "train: 500 samples" in out and "best AUC 0." in out
    assert load_manifest(tmp_path / "d")["rules"]["base_rate"] == 0.1
    assert main(argv) == 1
    assert "is not empty" in capsys.readouterr().err
    assert main([*argv, "--overwrite"]) == 0


@pytest.mark.parametrize("change, message", [
    ({"preset": "t15"}, "no preset 't15'"),
    ({"num_samples": 0}, "--num_samples 0: must be at least 1"),
    ({"num_test_samples": 0}, "--num_test_samples 0: must be at least 1"),
    ({"labels": "coins"}, "--labels coins: must be random or teacher"),
    ({"layout": "csv"}, "--layout csv: must be tf_raw or criteo_tsv"),
    ({"num_days": 3}, "--num_days: only criteo_tsv has day files"),
    ({"labels": "random", "signal": 2.0}, "--signal: belongs to the teacher"),
    ({"base_rate": 2.0}, "base_rate 2.0: must be between 0 and 1"),
    ({"scale": -1.0}, "scale -1.0: must be a positive number"),
    ({"workers": 0}, "workers 0: must be at least 1"),
    ({"num_samples": 10**13}, "the dataset needs .* bytes .*, the disk has .* bytes .* left"),
    ({"layout": "criteo_tsv", "num_days": 9_999}, "do not fill 9999 days"),
])  # fmt: skip
def test_misuse_leaves_nothing(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        synthesize(dataclasses.replace(SMALL, **change), tmp_path / "set", quiet=True)
    assert list(tmp_path.iterdir()) == []


def test_a_destination_that_holds_files_is_kept(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(DestinationError, match="is not empty"):
        synthesize(SMALL, tmp_path, quiet=True)
    with pytest.raises(SynthesizeError):
        synthesize(dataclasses.replace(SMALL, num_samples=0), tmp_path, overwrite=True, quiet=True)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
