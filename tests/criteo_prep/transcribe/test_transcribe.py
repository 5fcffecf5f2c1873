"""The published quick start, copies of tf_raw, and what is refused."""

import dataclasses
import os
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest

from criteo_prep.batch import Batch, Ids
from criteo_prep.cli import main as criteo_prep_main
from criteo_prep.feature_spec import Chunk, Feature, FeatureSpec, FeatureSpecError, tf_raw_spec
from criteo_prep.guard import DestinationError
from criteo_prep.synthetic.generator import Reader as SyntheticReader
from criteo_prep.synthetic.presets import preset, published_spec, scaled
from criteo_prep.transcribe import tf_raw
from criteo_prep.transcribe.__main__ import main
from criteo_prep.transcribe.layouts import standard_tf_raw_spec
from criteo_prep.transcribe.request import SYNTHETIC_BATCHES, Request, TranscribeError
from criteo_prep.transcribe.run import transcribe_dataset

ROOT = Path(__file__).parents[3]


@pytest.fixture
def shape(tmp_path):
    """A folder with the feature spec of a small synthetic dataset."""
    folder = tmp_path / "shape"
    folder.mkdir()
    published_spec(scaled(preset("criteo_t15_synthetic"), 0.001)).save(folder / "feature_spec.yaml")
    return folder


@pytest.fixture
def tables(tmp_path):
    """A tf_raw dataset with published names, three splits, 10 + 5 + 4 samples."""
    folder = tmp_path / "tables"
    spec = tf_raw_spec([Feature("store.bin", "int32", 90), Feature("item.bin", "int32", 70_000, alpha=1.1)], 2,
                       splits=("train", "test", "validation"))  # fmt: skip
    rng = np.random.default_rng(1)
    for split, rows in (("train", 10), ("test", 5), ("validation", 4)):
        with tf_raw.Writer(folder, spec, split) as writer:
            ids = {"store.bin": Ids(rng.integers(0, 90, rows)), "item.bin": Ids(rng.integers(0, 70_000, rows))}
            writer.write(Batch(rng.random(rows) < 0.5, rng.random((rows, 2)).astype(np.float16), ids))
    spec.save(folder / "feature_spec.yaml")
    return folder


def synthetic(shape, destination, **change):
    request = Request(shape, "synthetic", src_batch_size=100, dst_dataset_path=destination, dst_dataset_type="tf_raw",
                      max_batches_train=3, max_batches_test=1)  # fmt: skip
    return dataclasses.replace(request, **change)


def copy(source, destination, **change):
    request = Request(source, "tf_raw", dst_dataset_path=destination, dst_dataset_type="tf_raw")
    return dataclasses.replace(request, **change)


def files_of(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_the_published_quick_start(tmp_path):
    def run(*command):
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        subprocess.run([sys.executable, "-m", *command], cwd=tmp_path, env=environment, check=True)

    run("criteo_prep.generate_feature_spec", "--variant", "criteo_t15_synthetic", "--dst", "feature_spec.yaml")
    run("criteo_prep.transcribe", "--src_dataset_type", "synthetic", "--src_dataset_path", ".",
        "--dst_dataset_path", str(tmp_path / "data" / "preprocessed"), "--max_batches_train", "1",
        "--max_batches_test", "1", "--dst_dataset_type", "tf_raw")  # fmt: skip
    folder = tmp_path / "data" / "preprocessed"
    assert sorted(path.name for path in folder.iterdir()) == ["feature_spec.yaml", "test", "train"]
    names = {"label.bin", "numerical.bin", *(f"cat_{i}.bin" for i in range(26))}
    for split in ("train", "test"):
        assert {path.name for path in (folder / split).iterdir()} == names
    assert len(files_of(folder)) == 57
    spec = FeatureSpec.load(folder / "feature_spec.yaml")
    assert spec.validate_files("train") == spec.validate_files("test") == 65536
    assert {(feature.hotness, feature.alpha) for feature in spec.categorical} == {(1, 1.45)}
    assert sum(spec.sample_bytes(chunk) for chunk in spec.sources["train"]) == 89  # bytes per sample, as published


def test_the_destination_is_what_the_source_says(shape, tmp_path):
    assert transcribe_dataset(synthetic(shape, tmp_path / "out", seed=5), quiet=True) == {"train": 300, "test": 100}
    spec = FeatureSpec.load(tmp_path / "out" / "feature_spec.yaml")
    source = FeatureSpec.load(shape / "feature_spec.yaml")
    for split, rows in (("train", 300), ("test", 100)):
        expected = SyntheticReader(source, split, num_samples=rows, seed=5).read(0, rows)
        with tf_raw.Reader(tmp_path / "out", spec, split=split) as reader:
            found = reader.read(0, rows)
        assert found.label.tolist() == expected.label.tolist()
        assert found.numerical.tolist() == expected.numerical.tolist()
        for name, ids in expected.categorical.items():
            assert found.categorical[name].values.tolist() == ids.values.tolist()


def test_the_seed_decides_the_bytes_and_the_batch_size_does_not(shape, tmp_path):
    def made(name, **change):
        transcribe_dataset(synthetic(shape, tmp_path / name, **change), quiet=True)
        return files_of(tmp_path / name)

    one = made("one")
    assert one == made("again")
    assert one == made("batches", src_batch_size=50, max_batches_train=6, max_batches_test=2)
    other = made("other", seed=1)
    assert one["train/cat_0.bin"] != other["train/cat_0.bin"]


def test_the_spec_of_a_finished_dataset_makes_synthetic_samples_again(shape, tmp_path):
    transcribe_dataset(synthetic(shape, tmp_path / "one"), quiet=True)
    for path in (tmp_path / "one").rglob("*.bin"):
        path.unlink()
    assert transcribe_dataset(synthetic(tmp_path / "one", tmp_path / "two"), quiet=True) == {"train": 300, "test": 100}


def test_the_spec_holds_counts_and_checksums(shape, tmp_path):
    transcribe_dataset(synthetic(shape, tmp_path / "out", seed=3), quiet=True)
    metadata = FeatureSpec.load(tmp_path / "out" / "feature_spec.yaml").metadata
    assert metadata["source"] == {"dataset_type": "synthetic", "seed": 3}
    assert metadata["splits"] == {"train": {"num_samples": 300}, "test": {"num_samples": 100}}
    there = files_of(tmp_path / "out")
    assert len(metadata["files"]) == 56
    for name, entry in metadata["files"].items():
        assert entry == {"bytes": len(there[name]), "crc32": f"{zlib.crc32(there[name]):08x}"}


def test_all_batches_of_the_synthetic_source_are_a_stated_number(shape, tmp_path, capsys):
    argv = ["--src_dataset_type", "synthetic", "--src-dataset-path", str(shape), "--dst_dataset_type", "tf_raw",
            "--src_batch_size", "2", "--dst_dataset_path", str(tmp_path / "out")]  # fmt: skip
    assert main(argv) == 0
    heard = capsys.readouterr()
    assert "--max_batches_train -1: the synthetic source has no end; 1000 batches are taken" in heard.err
    assert "--max_batches_test -1: the synthetic source has no end; 100 batches are taken" in heard.err
    assert "train 2,000, test 200" in heard.out
    assert SYNTHETIC_BATCHES == {"train": 1000, "test": 100}


def test_tf_raw_to_tf_raw_keeps_every_sample_of_every_split(tables, tmp_path):
    assert transcribe_dataset(copy(tables, tmp_path / "out", src_batch_size=3), quiet=True) == {
        "train": 10, "test": 5, "validation": 4}  # fmt: skip
    before, after = files_of(tables), files_of(tmp_path / "out")
    for split in ("train", "test", "validation"):
        for file in ("store.bin", "item.bin", "label.bin", "numerical.bin"):
            assert after[f"{split}/{file}"] == before[f"{split}/{file}"]
    spec = FeatureSpec.load(tmp_path / "out" / "feature_spec.yaml")
    assert [(feature.name, feature.cardinality, feature.alpha) for feature in spec.categorical] == [
        ("store", 90, None), ("item", 70_000, 1.1)]  # fmt: skip


def test_a_copy_of_a_copy_has_the_same_bytes(tables, tmp_path):
    transcribe_dataset(copy(tables, tmp_path / "one"), quiet=True)
    transcribe_dataset(copy(tmp_path / "one", tmp_path / "two", src_batch_size=1), quiet=True)
    assert files_of(tmp_path / "one") == files_of(tmp_path / "two")


def test_max_batches_and_train_only(tables, shape, tmp_path):
    request = copy(tables, tmp_path / "few", src_batch_size=3, max_batches_train=2, max_batches_test=1)
    assert transcribe_dataset(request, quiet=True) == {"train": 6, "test": 3, "validation": 3}
    assert (tmp_path / "few/train/label.bin").read_bytes() == (tables / "train/label.bin").read_bytes()[:6]
    request = copy(tables, tmp_path / "more", src_batch_size=3, max_batches_train=100, train_only=True)
    assert transcribe_dataset(request, quiet=True) == {"train": 10}
    assert sorted(path.name for path in (tmp_path / "more").iterdir()) == ["feature_spec.yaml", "train"]
    assert FeatureSpec.load(tmp_path / "more" / "feature_spec.yaml").splits == ("train",)
    assert transcribe_dataset(synthetic(shape, tmp_path / "third", train_only=True), quiet=True) == {"train": 300}
    assert transcribe_dataset(copy(tmp_path / "third", tmp_path / "fourth"), quiet=True) == {"train": 300}


def test_other_names_and_order_in_the_source_spec(tmp_path):
    """The channel's order decides, whatever the files are called and however feature_spec is sorted."""
    folder = tmp_path / "source"
    (folder / "x").mkdir(parents=True)
    features = {"bought": Feature("bought", "bool"), "a": Feature("a", "int8", 5), "price": Feature("price", "float16"),
                "b": Feature("b", "int32", 7)}  # fmt: skip
    channels = {"categorical": ("b", "a"), "numerical": ("price",), "label": ("bought",)}
    chunks = (Chunk(("a",), ("x/one.dat",)), Chunk(("bought",), ("x/y",)), Chunk(("price",), ("x/p",)),
              Chunk(("b",), ("x/two.dat",)))  # fmt: skip
    FeatureSpec(features, channels, {"train": chunks}).save(folder / "s.yaml")
    np.array([1, 2, 4], np.int8).tofile(folder / "x/one.dat")
    np.array([6, 0, 3], np.int32).tofile(folder / "x/two.dat")
    np.array([True, False, True]).tofile(folder / "x/y")
    np.array([0.5, 1, 2], np.float16).tofile(folder / "x/p")
    transcribe_dataset(copy(folder, tmp_path / "out", src_feature_spec="s.yaml", dst_feature_spec="t.yaml"), quiet=True)
    spec = FeatureSpec.load(tmp_path / "out" / "t.yaml")
    assert spec.channels["categorical"] == ("b", "a")
    assert np.fromfile(tmp_path / "out/train/b.bin", np.int8).tolist() == [6, 0, 3]
    assert np.fromfile(tmp_path / "out/train/a.bin", np.int8).tolist() == [1, 2, 4]
    assert np.fromfile(tmp_path / "out/train/numerical.bin", np.float16).tolist() == [0.5, 1, 2]
    assert (tmp_path / "out/train/label.bin").read_bytes() == b"\1\0\1"


@pytest.mark.parametrize("change, message", [
    *(({"src_dataset_type": name}, f"--src_dataset_type {name}: is not a layout here; {why}. Give .* or synthetic")
      for name, why in (("binary_multihot", "tf_raw holds several ids a sample"),
                        ("tfrecords_multihot", "split_tfrecords holds several ids a sample"),
                        ("nvt", "parquet reads what NVTabular writes"))),
    ({"src_dataset_type": "hdf5"}, "--src_dataset_type hdf5: is not a layout here. Give .* tf_raw or "),
    ({"dst_dataset_type": "synthetic"}, "--dst_dataset_type synthetic: is not"),
    ({"dst_prebatch_size": 0}, "--dst_prebatch_size 0: must be at least 1"),
    ({"max_batches_train": 0}, "--max_batches_train 0: must be -1, which is all, or at least 1"),
    ({"max_batches_test": -2}, "--max_batches_test -2"),
    ({"src_batch_size": 0}, "--src_batch_size 0: must be at least 1"),
    ({"dst_feature_spec": "../f.yaml"}, "--dst_feature_spec ../f.yaml: must be a file name"),
    ({"src_feature_spec": "none.yaml"}, "there is no such file"),
    ({"max_batches_train": 10**12}, "the dataset needs .* bytes .*, the disk has .* bytes .* left"),
])  # fmt: skip
def test_requests_that_are_refused_leave_nothing(shape, tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        transcribe_dataset(synthetic(shape, tmp_path / "out", **change), quiet=True)
    assert [path.name for path in tmp_path.iterdir()] == ["shape"]


def test_a_destination_that_is_the_source_or_overlaps_it_is_refused(tables, tmp_path):
    before = files_of(tables)
    (tmp_path / "link").symlink_to(tables)
    for destination in (tables, tmp_path, tmp_path / "link", tables / ".." / "tables"):
        with pytest.raises(DestinationError, match="is read,? and would be lost"):
            transcribe_dataset(copy(tables, destination, overwrite=True), quiet=True)
    with pytest.raises(DestinationError, match="new: lies in .*, which is read"):
        transcribe_dataset(copy(tables, tables / "new"), quiet=True)
    assert files_of(tables) == before


def test_the_spec_of_a_synthetic_dataset_may_stand_above_its_destination(shape):
    assert transcribe_dataset(synthetic(shape, shape / "data"), quiet=True) == {"train": 300, "test": 100}


def test_a_destination_that_holds_files_needs_overwrite(shape, tmp_path):
    transcribe_dataset(synthetic(shape, tmp_path / "out"), quiet=True)
    first = files_of(tmp_path / "out")
    with pytest.raises(DestinationError, match="is not empty"):
        transcribe_dataset(synthetic(shape, tmp_path / "out", seed=9), quiet=True)
    assert files_of(tmp_path / "out") == first
    transcribe_dataset(synthetic(shape, tmp_path / "out", seed=9, overwrite=True), quiet=True)
    assert files_of(tmp_path / "out") != first


def test_bad_sources_are_named_and_leave_nothing(tables, shape, tmp_path):
    path = tables / "train" / "item.bin"
    good = path.read_bytes()
    path.write_bytes(good[:-4] + (70_000).to_bytes(4, "little"))
    with pytest.raises(FeatureSpecError, match="row 9: id 70000 of 'item.bin' is not below its cardinality 70000"):
        transcribe_dataset(copy(tables, tmp_path / "out"), quiet=True)
    path.write_bytes(good[:-4])
    with pytest.raises(FeatureSpecError, match="holds 9 samples"):
        transcribe_dataset(copy(tables, tmp_path / "out"), quiet=True)
    with pytest.raises(TranscribeError, match="names no files of any split. .* add --src_dataset_type synthetic"):
        transcribe_dataset(copy(shape, tmp_path / "out"), quiet=True)
    with pytest.raises(FeatureSpecError, match="store.bin: has no alpha"):
        transcribe_dataset(synthetic(tables, tmp_path / "out"), quiet=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["shape", "tables"]


@pytest.mark.parametrize("names, twice", [(("price", "price.bin"), "price"), (("label.bin",), "label")])
def test_names_that_clash_with_the_standard_ones_are_refused(names, twice):
    tables = [Feature(name, "int8", 5) for name in names]
    source = FeatureSpec({table.name: table for table in tables}, {"categorical": names, "numerical": (), "label": ()})
    with pytest.raises(FeatureSpecError, match=f"two features are named '{twice}' in the standard layout"):
        standard_tf_raw_spec(source, ("train",))


def test_flags_without_effect_say_so(shape, tmp_path, capsys):
    argv = ["transcribe", "--src_dataset_type=synthetic", f"--src_dataset_path={shape}", "--dst_dataset_type=tf_raw",
            f"--dst_dataset_path={tmp_path / 'out'}", "--max_batches_train=1", "--max_batches_test=1",
            "--src_batch_size=10", "--src_synthetic_dataset_use_feature_spec", "--dst_prebatch_size=128"]  # fmt: skip
    assert criteo_prep_main(argv) == 0
    heard = capsys.readouterr().err
    assert "--src_synthetic_dataset_use_feature_spec: no effect" in heard
    assert "--dst_prebatch_size: no effect, tf_raw has no pre-batches" in heard


def test_the_published_defaults_are_explained(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main([]) == 1
    assert "synthetic_dataset: is read, and would be lost. Name another destination" in capsys.readouterr().err
    with pytest.raises(SystemExit) as end:
        main(["--max_batches", "3"])
    assert end.value.code == 2
