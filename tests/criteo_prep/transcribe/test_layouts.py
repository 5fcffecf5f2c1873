"""Every layout into every other: same samples, same bytes on the way back; and what a layout cannot hold."""

import dataclasses
import itertools

import numpy as np
import pytest
from support.layout_samples import FIXED, ONE_HOT, RAGGED, drop_checksums, files_of, to_layout, write_tf_raw

from criteo_prep.feature_spec import Feature, FeatureSpec, FeatureSpecError
from criteo_prep.transcribe import checks, reading
from criteo_prep.transcribe.layout_spec import HOLDS_INTEGERS, HOLDS_MULTI_HOT, HOLDS_RAGGED, LayoutError
from criteo_prep.transcribe.layouts import READERS, WRITERS
from criteo_prep.transcribe.request import Request
from criteo_prep.transcribe.run import transcribe_dataset

DATA = {"one-hot": (ONE_HOT, tuple(WRITERS)), "fixed": (FIXED, HOLDS_MULTI_HOT), "ragged": (RAGGED, HOLDS_RAGGED)}
PAIRS = [(kind, first, second) for kind, (_, layouts) in DATA.items()
         for first, second in itertools.product(layouts, repeat=2)]  # fmt: skip


def test_every_layout_is_read_and_written():
    assert set(READERS) == {*WRITERS, "synthetic"}


@pytest.mark.parametrize("kind, first, second", PAIRS)
def test_every_pair_round_trips(tmp_path, kind, first, second):
    raw = write_tf_raw(tmp_path / "raw", DATA[kind][0])
    a = to_layout(raw, "tf_raw", tmp_path / "a", first)
    b = to_layout(a, first, tmp_path / "b", second, src_batch_size=5)
    again = to_layout(b, second, tmp_path / "again", first, src_batch_size=9)
    assert files_of(a) and files_of(again) == files_of(a)
    back = to_layout(b, second, tmp_path / "back", "tf_raw")
    assert files_of(back) == files_of(raw)
    assert FeatureSpec.load(back / "feature_spec.yaml").features == FeatureSpec.load(raw / "feature_spec.yaml").features


@pytest.mark.parametrize("layout", WRITERS)
@pytest.mark.parametrize("splits", [{"train": 1}, {"train": 12, "test": 0}])
def test_few_samples_and_none(tmp_path, layout, splits):
    raw = write_tf_raw(tmp_path / "raw", splits=splits)
    back = to_layout(to_layout(raw, "tf_raw", tmp_path / "a", layout), layout, tmp_path / "back", "tf_raw")
    assert files_of(back) == files_of(raw)


@pytest.mark.parametrize("layout", WRITERS)
def test_no_numericals(tmp_path, layout):
    raw = write_tf_raw(tmp_path / "raw", num_numerical=0)
    back = to_layout(to_layout(raw, "tf_raw", tmp_path / "a", layout), layout, tmp_path / "back", "tf_raw")
    assert files_of(back) == files_of(raw)


@pytest.mark.parametrize("layout", WRITERS)
def test_some_batches_of_each_split(tmp_path, layout):
    raw = write_tf_raw(tmp_path / "raw")
    whole = to_layout(raw, "tf_raw", tmp_path / "a", layout)
    few = to_layout(
        whole, layout, tmp_path / "few", "tf_raw", src_batch_size=3, max_batches_train=2, max_batches_test=1
    )
    for name, size in (("train/label.bin", 6), ("test/label.bin", 3), ("validation/label.bin", 3)):
        assert files_of(few)[name] == files_of(raw)[name][:size]


def test_batches_beyond_what_is_held_in_memory(tmp_path, monkeypatch):
    raw = write_tf_raw(tmp_path / "raw")
    monkeypatch.setattr(reading, "_MAX_BATCH", 4)
    few = to_layout(raw, "tf_raw", tmp_path / "a", "record_binary", src_batch_size=5, max_batches_train=2)
    back = files_of(to_layout(few, "record_binary", tmp_path / "b", "tf_raw", src_batch_size=10**12))
    for name, data in files_of(raw).items():
        assert back[name] == (data[: len(data) * 10 // 23] if name.startswith("train") else data)


@pytest.mark.parametrize("layout", WRITERS)
def test_every_layout_is_read_and_checked_by_its_spec_alone(tmp_path, layout):
    source = to_layout(write_tf_raw(tmp_path / "raw"), "tf_raw", tmp_path / "a", layout)
    spec = FeatureSpec.load(source / "feature_spec.yaml")
    for split, rows in (("train", 23), ("test", 7), ("validation", 5)):
        assert sum(batch.num_samples for batch in reading.checked_batches(spec, split)) == rows
    spec.features["item"] = dataclasses.replace(spec.features["item"], cardinality=299)
    with pytest.raises(FeatureSpecError, match="row 22: id 299 of 'item' is not below its cardinality 299"):
        list(reading.checked_batches(spec, "train"))
    spec.sources["train"] = tuple(dataclasses.replace(chunk, type="hdf5") for chunk in spec.sources["train"])
    with pytest.raises(LayoutError, match="feature_spec.yaml: source_spec: train: .* is of the unknown type 'hdf5'"):
        list(reading.checked_batches(spec, "train"))


@pytest.mark.parametrize("kind, layout", [("ragged", "tf_raw"), ("fixed", "record_binary"), ("fixed", "criteo_npy")])
def test_samples_with_very_many_ids_are_read_a_few_at_a_time(tmp_path, monkeypatch, kind, layout):
    raw = write_tf_raw(tmp_path / "raw", DATA[kind][0])
    source = to_layout(raw, "tf_raw", tmp_path / "a", layout)
    sizes = []
    check_ids = checks.check_ids
    monkeypatch.setattr(reading, "_MAX_BATCH_BYTES", 100)
    monkeypatch.setattr(
        checks, "check_ids", lambda ids, *args, **kw: (sizes.append(ids.num_samples), check_ids(ids, *args, **kw))
    )
    assert files_of(to_layout(source, layout, tmp_path / "b", "tf_raw", src_batch_size=50)) == files_of(raw)
    assert 1 <= max(sizes) < 10  # a sample has more than 10 bytes


@pytest.mark.parametrize("layout", ["tf_raw", "split_tfrecords"])
def test_a_number_that_is_too_large_is_named_with_its_row(tmp_path, layout):
    source = to_layout(write_tf_raw(tmp_path / "raw"), "tf_raw", tmp_path / "a", "record_binary")
    records = np.fromfile(source / "train.bin", np.float32).reshape(-1, 6)
    records[13, 2] = -1e6
    records.tofile(source / "train.bin")
    with pytest.raises(FeatureSpecError, match="row 13: 'num_1' is -1000000.0, but float16 has numbers up to 65504"):
        to_layout(source, "record_binary", tmp_path / "b", layout)


def test_a_file_that_lost_whole_samples_is_found_by_its_size(tmp_path):
    source = to_layout(write_tf_raw(tmp_path / "raw"), "tf_raw", tmp_path / "a", "record_binary")
    records = (source / "train.bin").read_bytes()
    (source / "train.bin").write_bytes(records[: 22 * 24])
    with pytest.raises(LayoutError, match="train.bin: has 528 bytes, but 552 were written, says feature_spec.yaml"):
        to_layout(source, "record_binary", tmp_path / "b", "tf_raw")
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize("layout", WRITERS)
def test_cardinalities_that_are_to_be_found(tmp_path, layout):
    source = to_layout(write_tf_raw(tmp_path / "raw"), "tf_raw", tmp_path / "a", layout)
    path = source / "feature_spec.yaml"
    path.write_text(path.read_text().replace("cardinality: 300", "cardinality: auto"))
    back = to_layout(source, layout, tmp_path / "back", "tf_raw")
    assert FeatureSpec.load(back / "feature_spec.yaml").features["item"] == Feature("item", "int16", 300)
    assert files_of(back) == files_of(tmp_path / "raw")


def test_logarithms_of_floats_are_doubted_aloud(tmp_path):
    raw, heard = write_tf_raw(tmp_path / "raw"), []
    for path in raw.rglob("numerical.bin"):
        path.write_bytes(bytes(path.stat().st_size))
    request = Request(raw, "tf_raw", dst_dataset_path=tmp_path / "a", dst_dataset_type="tf_raw", dense_log=True)
    transcribe_dataset(request, quiet=True, warn=heard.append)
    (message,) = heard
    assert message.startswith("--dense_log: the numericals of the source are float16. If they are logarithms already")


@pytest.mark.parametrize(
    "bad, fault", [(-3, "is negative; ids start at 0"), (2**31 - 1, "is too large; ids are below")]
)
def test_ids_that_are_out_of_range_while_cardinalities_are_found(tmp_path, bad, fault):
    source = to_layout(write_tf_raw(tmp_path / "raw"), "tf_raw", tmp_path / "a", "record_binary")
    path = source / "feature_spec.yaml"
    path.write_text(path.read_text().replace("cardinality: 300", "cardinality: auto"))
    records = np.fromfile(source / "train.bin", np.int32).reshape(-1, 6)
    records[4, 4] = bad
    records.tofile(source / "train.bin")
    with pytest.raises(FeatureSpecError, match=f"train.bin: row 4: id {bad} of 'item' {fault}"):
        to_layout(source, "record_binary", tmp_path / "b", "tf_raw")


@pytest.mark.parametrize("layout", WRITERS)
def test_a_link_that_leads_to_itself_is_named(tmp_path, layout):
    source = to_layout(write_tf_raw(tmp_path / "raw"), "tf_raw", tmp_path / "a", layout)
    path = sorted(path for path in source.rglob("*") if path.suffix not in (".yaml", ".json"))[-1]
    path = path / "data_0.tfrecords" if path.is_dir() else path
    path.unlink()
    path.symlink_to(path.name)
    with pytest.raises(FeatureSpecError, match=f"{path.name}: is a link that leads to no file"):
        to_layout(source, layout, tmp_path / "b", "tf_raw")


@pytest.mark.parametrize("layout", [name for name in WRITERS if name not in HOLDS_RAGGED])
def test_ragged_features_are_refused_with_who_holds_them(tmp_path, layout):
    raw = write_tf_raw(tmp_path / "raw", RAGGED)
    with pytest.raises(LayoutError, match=rf"tags: samples differ .* {layout} cannot .* tf_raw, .* and parquet can"):
        to_layout(raw, "tf_raw", tmp_path / "a", layout)
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("layout", [name for name in WRITERS if name not in HOLDS_MULTI_HOT])
def test_multi_hot_features_are_refused_with_who_holds_them(tmp_path, layout):
    raw = write_tf_raw(tmp_path / "raw", FIXED)
    with pytest.raises(LayoutError, match=rf"tags: hotness 3; {layout} holds one id a sample. tf_raw, .* hold more"):
        to_layout(raw, "tf_raw", tmp_path / "a", layout)


def integers(folder):
    """A record_binary dataset whose numericals are raw integers."""
    folder = to_layout(write_tf_raw(folder / "raw"), "tf_raw", folder / "integers", "record_binary")
    path = folder / "feature_spec.yaml"
    path.write_text(path.read_text().replace("float32", "int32"))
    drop_checksums(folder)
    for split in ("train", "test", "validation"):
        records = np.fromfile(folder / f"{split}.bin", np.int32).reshape(-1, 6)
        records[:, 1:3] = np.arange(records[:, 1:3].size).reshape(-1, 2) - 5
        records.tofile(folder / f"{split}.bin")
    return folder


@pytest.mark.parametrize("layout", WRITERS)
def test_integers_stay_integers_or_become_logarithms_on_request(tmp_path, layout):
    source = integers(tmp_path)
    if layout in HOLDS_INTEGERS:
        there = to_layout(source, "record_binary", tmp_path / "a", layout)
        assert files_of(to_layout(there, layout, tmp_path / "b", "record_binary")) == files_of(source)
    else:
        with pytest.raises(LayoutError, match=rf"num_0: is int32; {layout} holds floats. Add --dense_log"):
            to_layout(source, "record_binary", tmp_path / "a", layout)
    logs = to_layout(source, "record_binary", tmp_path / "logs", layout, dense_log=True)
    raw = to_layout(logs, layout, tmp_path / "raw logs", "tf_raw")
    x = np.arange(14) - 5
    expected = np.log(np.maximum(x, -2) + 3.0) * (x > -3)
    assert np.fromfile(raw / "test/numerical.bin", np.float16).tolist() == expected.astype(np.float16).tolist()
