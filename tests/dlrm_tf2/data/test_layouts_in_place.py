"""Datasets of other layouts than tf_raw, read as they are: the same batches as their tf_raw transcription."""

import dataclasses

import numpy as np
import pytest
from support.layout_samples import FIXED, ONE_HOT, to_layout, write_tf_raw

from criteo_prep.feature_spec import Chunk, FeatureSpec, FeatureSpecError
from criteo_prep.schema import log_numerical
from criteo_prep.transcribe import in_place
from dlrm_tf2.config import TrainConfig
from dlrm_tf2.data.batches import RankData, RankShare, Reading, check_splits
from dlrm_tf2.data.fingerprint import fingerprint_of
from dlrm_tf2.job.planning import data_shape_of

ROWS = 83
FEATURES = {"one-hot": ONE_HOT, "multi-hot": FIXED}
LAYOUTS = ["record_binary", "columns of records", "criteo_npy", "criteo_npy, int64, two days"]


def spec_of(folder):
    return FeatureSpec.load(folder / "feature_spec.yaml")


def with_chunks(spec, chunks):
    """The spec with other chunks in its split train, kept in memory."""
    return dataclasses.replace(spec, sources={"train": tuple(chunks)})


def columns_of_records(folder, spec):
    """The form of split-bin: one file of the label, one of the numericals, one of the ids."""
    words = np.fromfile(folder / "train.bin", np.int32).reshape(ROWS, -1)
    names, chunks, first = spec.channels, [], 0
    for file, channel in (("label.bin", "label"), ("dense.bin", "numerical"), ("category.bin", "categorical")):
        width = sum(spec.features[name].hotness for name in names[channel])
        words[:, first : first + width].tofile(folder / file)
        chunks.append(Chunk(names[channel], (file,), "record_binary"))
        first += width
    return with_chunks(spec, chunks)


def two_days(folder, spec):
    """The arrays cut after 50 rows, one-hot ids as int64."""
    chunks = []
    for chunk in spec.sources["train"]:
        path = folder / chunk.files[0]
        ending = path.name.removeprefix("day_0")
        if path.suffix == ".npz":
            with np.load(path) as archive:
                arrays = {name: archive[name] for name in archive}
            for day, rows in enumerate((slice(0, 50), slice(50, None))):
                np.savez(folder / f"cut_{day}{ending}", **{name: array[rows] for name, array in arrays.items()})
        else:
            array = np.load(path)
            array = array.astype(np.int64) if "sparse" in ending else array
            for day, rows in enumerate((slice(0, 50), slice(50, None))):
                np.save(folder / f"cut_{day}{ending}", array[rows])
        chunks.append(dataclasses.replace(chunk, files=tuple(f"cut_{day}{ending}" for day in (0, 1))))
    one_hot = all(feature.hotness == 1 for feature in spec.categorical)
    wide = {f.name: dataclasses.replace(f, dtype="int64") for f in spec.categorical} if one_hot else {}
    return with_chunks(dataclasses.replace(spec, features={**spec.features, **wide}), chunks)


@pytest.fixture(scope="module")
def specs(tmp_path_factory):
    """Features -> layout -> spec of the same samples; "tf_raw" is the reference."""
    made = {}
    for name, features in FEATURES.items():
        root = tmp_path_factory.mktemp(name)
        raw = write_tf_raw(root / "raw", features, {"train": ROWS}, num_numerical=3)
        made[name] = {"tf_raw": spec_of(raw)}
        for layout in ("record_binary", "criteo_npy"):
            made[name][layout] = spec_of(to_layout(raw, "tf_raw", root / layout, layout))
        made[name]["columns of records"] = columns_of_records(root / "record_binary", made[name]["record_binary"])
        made[name]["criteo_npy, int64, two days"] = two_days(root / "criteo_npy", made[name]["criteo_npy"])
    return made


def batches_of(spec, rank, reading):
    features = spec.channels["categorical"]
    share = RankShare(rank, 2, global_features=features[1:], sample_features=features[:1])
    return list(RankData(spec, "train", share=share, reading=reading).batches(30))


@pytest.mark.parametrize("features", FEATURES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shuffle", ["none", "window", "full"])
def test_the_batches_are_those_of_tf_raw(specs, features, layout, shuffle):
    reading = Reading(shuffle, window=25, seed=3)
    for rank in (0, 1):
        expected = batches_of(specs[features]["tf_raw"], rank, reading)
        found = batches_of(specs[features][layout], rank, reading)
        assert len(found) == len(expected) == 3
        for mine, theirs in zip(found, expected, strict=True):
            np.testing.assert_array_equal(mine.label, theirs.label)
            np.testing.assert_array_equal(mine.numerical, theirs.numerical)
            for ids in ("global_ids", "local_ids"):
                np.testing.assert_array_equal(getattr(mine.ids, ids).fixed, getattr(theirs.ids, ids).fixed)
                assert getattr(mine.ids, ids).fixed.dtype == np.int32


@pytest.mark.parametrize("layout", LAYOUTS)
def test_only_the_features_that_are_asked_for_are_decoded(specs, layout):
    spec = specs["multi-hot"][layout]
    with in_place.open_split(spec, "train", ("tags",)) as reader:
        batch = reader.read(3, 9)
    assert (batch.label, batch.numerical, list(batch.categorical)) == (None, None, ["tags"])
    with in_place.open_split(specs["multi-hot"]["tf_raw"], "train") as reader:
        assert batch.categorical["tags"].values.tolist() == reader.read(3, 9).categorical["tags"].values.tolist()
    with pytest.raises(FeatureSpecError, match="there is no feature 'colour'"):
        in_place.open_split(spec, "train", ("colour",))


@pytest.mark.parametrize("layout, file", [("columns of records", "category.bin"), ("record_binary", "train.bin")])
@pytest.mark.parametrize("shuffle", ["none", "full"])
def test_an_id_out_of_range_has_its_row_in_any_order(specs, layout, file, shuffle):
    spec = specs["one-hot"][layout]
    content = (spec.root / file).read_bytes()
    words = np.frombuffer(content, np.int32).reshape(ROWS, -1).copy()
    words[70, -2] = 300
    try:
        words.tofile(spec.root / file)
        with pytest.raises(FeatureSpecError, match=f"{file}: row 70: id 300 of 'item' is not below its cardinality"):
            batches_of(spec, 0, Reading(shuffle, seed=1))
    finally:
        (spec.root / file).write_bytes(content)


def test_columns_of_different_lengths_are_refused(specs):
    spec = specs["one-hot"]["columns of records"]
    content = (spec.root / "label.bin").read_bytes()
    try:
        (spec.root / "label.bin").write_bytes(content[:-4])
        with pytest.raises(FeatureSpecError, match=r"dense.bin: holds 83 samples, but label.bin holds 82"):
            check_splits(TrainConfig(dataset_path=str(spec.root), evals_per_epoch=0, seed=1), spec)
    finally:
        (spec.root / "label.bin").write_bytes(content)


@pytest.fixture
def integers(tmp_path):
    """Records with integer numericals, and these integers."""
    raw = write_tf_raw(tmp_path / "raw", ONE_HOT, {"train": ROWS}, num_numerical=3)
    spec = spec_of(to_layout(raw, "tf_raw", tmp_path / "a", "record_binary"))
    words = np.fromfile(tmp_path / "a/train.bin", np.int32).reshape(ROWS, -1)
    words[:, 1:4] = np.random.default_rng(0).integers(-9, 1 << 20, (ROWS, 3))
    words.tofile(tmp_path / "a/train.bin")
    whole = {name: dataclasses.replace(spec.features[name], dtype="int32") for name in spec.channels["numerical"]}
    return dataclasses.replace(spec, features={**spec.features, **whole}), words[:, 1:4]


def numericals(spec):
    return next(RankData(spec, "train", share=RankShare()).batches(ROWS)).numerical


def test_the_logarithm_is_taken_where_the_spec_says_so_and_integers_need_a_word(integers):
    spec, numbers = integers
    with pytest.raises(FeatureSpecError, match=r"feature_spec.yaml: 'num_0' is an integer. Write `dense_log: true`"):
        numericals(spec)
    logs = numericals(dataclasses.replace(spec, metadata={"dense_log": True}))
    missing = np.zeros(numbers.shape, bool)
    np.testing.assert_array_equal(logs, log_numerical(numbers, missing).astype(np.float32))
    np.testing.assert_array_equal(numericals(dataclasses.replace(spec, metadata={"dense_log": False})), numbers)
    with pytest.raises(FeatureSpecError, match="metadata: dense_log is 'yes'"):
        numericals(dataclasses.replace(spec, metadata={"dense_log": "yes"}))


def test_what_cannot_be_read_in_place_is_refused_by_name(specs):
    spec = specs["one-hot"]["record_binary"]
    with pytest.raises(FeatureSpecError, match="train: is of type 'parquet', of which samples cannot be read at any"):
        RankData(with_chunks(spec, [Chunk(tuple(spec.features), ("a",), "parquet")]), "train", share=RankShare())
    spec = specs["one-hot"]["criteo_npy, int64, two days"]
    wide = dataclasses.replace(spec.features["user"], cardinality=2**31)
    with pytest.raises(FeatureSpecError, match="'user' has 2147483648 ids; a table has at most 2147483647"):
        RankData(dataclasses.replace(spec, features={**spec.features, "user": wide}), "train", share=RankShare())


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_file_is_in_the_fingerprint_and_in_the_number_of_samples(specs, layout):
    spec = specs["one-hot"][layout]
    before = fingerprint_of(spec, ("train",))
    for chunk in spec.sources["train"]:
        for file in chunk.files:
            content = (spec.root / file).read_bytes()
            (spec.root / file).write_bytes(content[:-1] + b"\x07")
            assert fingerprint_of(spec, ("train",)) != before, file
            (spec.root / file).write_bytes(content)
    assert fingerprint_of(spec, ("train",)) == before
    counted = data_shape_of(TrainConfig(dataset_path=str(spec.root), seed=1), spec).num_samples["train"]
    assert ROWS <= counted <= ROWS + 64  # with the header of 128 bytes of each of two files
