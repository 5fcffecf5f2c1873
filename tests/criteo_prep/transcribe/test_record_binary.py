"""record_binary by hand, published sizes, specs in another order, and what is refused."""

import numpy as np
import pytest
from support.layout_samples import FIXED, drop_checksums, files_of, to_layout, write_tf_raw

from criteo_prep.batch import Batch, Ids
from criteo_prep.feature_spec import Chunk, Feature, FeatureSpec, FeatureSpecError, tf_raw_spec
from criteo_prep.transcribe.layout_spec import LayoutError
from criteo_prep.transcribe.record_binary import Reader, Writer, record_binary_spec
from criteo_prep.transcribe.request import Request
from criteo_prep.transcribe.run import transcribe_dataset

MULTI_HOT = (3, 2, 1, 2, 6, 1, 1, 1, 1, 7, 3, 8, 1, 6, 9, 5, 1, 1, 1, 12, 100, 27, 10, 3, 1, 1)


def test_the_bytes_by_hand(tmp_path):
    spec = record_binary_spec(tf_raw_spec([Feature("a", "", 100), Feature("b", "", 70_000, hotness=2)], 1), ("train",))
    batch = Batch(np.array([True, False]), np.array([[1.0], [-2.0]]), {
        "a": Ids(np.array([7, 99])), "b": Ids(np.array([65536, 1, 2, 3]), np.array([2, 2]))})  # fmt: skip
    with Writer(tmp_path, spec, "train") as writer:
        writer.write(batch)
    assert (tmp_path / "train.bin").read_bytes().hex(" ", 4) == (
        "01000000 0000803f 07000000 00000100 01000000 00000000 000000c0 63000000 02000000 03000000"
    )


@pytest.mark.parametrize("hotness, size", [((1,) * 26, 160), (MULTI_HOT, 912)])
def test_the_published_sizes_of_a_record(tmp_path, hotness, size):
    tables = [Feature(f"cat_{i}", "", 100, hotness=h) for i, h in enumerate(hotness)]
    raw = write_tf_raw(tmp_path / "raw", tables, {"train": 11}, 13)
    folder = to_layout(raw, "tf_raw", tmp_path / "a", "record_binary")
    assert (folder / "train.bin").stat().st_size == 11 * size


def test_another_order_other_types_and_several_files(tmp_path):
    """A spec written for files that somebody else made: uint32 ids, float labels, integers, a table in front."""
    features = {
        "item": Feature("item", "uint32", 50),
        "price": Feature("price", "int32"),
        "store": Feature("store", "int32", 9, hotness=2),
        "age": Feature("age", "int32"),
        "bought": Feature("bought", "float32"),
    }
    channels = {"categorical": ("store", "item"), "numerical": ("age", "price"), "label": ("bought",)}
    chunk = Chunk(("item", "price", "store", "age", "bought"), ("day_0.bin", "day_1.bin"), "record_binary")
    FeatureSpec(features, channels, {"train": (chunk,)}).save(tmp_path / "feature_spec.yaml")
    words = np.arange(5 * 6, dtype=np.int32).reshape(5, 6) % 7
    words[:, 5] = np.array([0, 1, 1, 0, 1], np.float32).view(np.int32)
    words[:2].tofile(tmp_path / "day_0.bin")
    words[2:].tofile(tmp_path / "day_1.bin")
    spec = FeatureSpec.load(tmp_path / "feature_spec.yaml")
    with Reader(tmp_path, spec, split="train") as reader:
        assert reader.num_samples == 5
        whole, part = reader.read(0, 5), reader.read(1, 4)
    assert whole.label.tolist() == [False, True, True, False, True]
    assert whole.numerical.tolist() == words[:, [4, 1]].tolist()
    assert whole.categorical["store"].values.tolist() == words[:, 2:4].reshape(-1).tolist()
    assert whole.categorical["store"].row_lengths.tolist() == [2] * 5
    assert whole.categorical["item"].values.tolist() == words[:, 0].tolist()
    assert part.numerical.tolist() == words[1:4, [4, 1]].tolist()


def spec_of(folder):
    return FeatureSpec.load(folder / "feature_spec.yaml")


@pytest.fixture
def folder(tmp_path):
    """9 records of 6 words: label, 2 numericals, 3 ids."""
    return to_layout(write_tf_raw(tmp_path / "raw", splits={"train": 9}), "tf_raw", tmp_path / "a", "record_binary")


@pytest.mark.parametrize("word, value, reason", [
    (4, -1, "row 7: id -1 of 'item' is negative; ids start at 0"),
    (4, 300, "row 7: id 300 of 'item'"),
    (0, 2, "row 7: 2, but a label is 0 or 1"),
    (1, 0x7FC00000, "row 7: 'num_0' is nan, which no model can be trained on"),
    (2, 0x7F800000, "row 7: 'num_1' is inf"),
])  # fmt: skip
def test_what_is_refused_has_its_row(folder, tmp_path, word, value, reason):
    words = np.fromfile(folder / "train.bin", np.int32)
    words[7 * 6 + word] = value
    words.tofile(folder / "train.bin")
    with pytest.raises(FeatureSpecError, match=f"train.bin: {reason}"):
        to_layout(folder, "record_binary", tmp_path / "b", "tf_raw")
    assert not (tmp_path / "b").exists()


def test_a_size_that_is_not_whole(folder):
    (folder / "train.bin").write_bytes(bytes(100))
    with pytest.raises(LayoutError, match="train.bin: 100 bytes is not a multiple of 24, the size of a record"):
        Reader(folder, spec_of(folder), split="train")


def test_files_that_are_missing_or_elsewhere(folder, tmp_path):
    (folder / "train.bin").rename(tmp_path / "elsewhere.bin")
    with pytest.raises(FeatureSpecError, match="train.bin: there is no such file"):
        Reader(folder, spec_of(folder), split="train")
    (folder / "train.bin").symlink_to(tmp_path / "elsewhere.bin")
    with pytest.raises(FeatureSpecError, match="train.bin: leads out of the dataset folder"):
        Reader(folder, spec_of(folder), split="train")


@pytest.mark.parametrize("old, new, reason", [
    ("dtype: float32", "dtype: float64", "num_0 is float64; a record holds int32, uint32, float32"),
    ("num_1:\n    dtype: float32", "num_1:\n    dtype: int32", "the numericals are float32 and int32; all"),
    ("type: record_binary", "type: csv", "is of type 'csv', not 'record_binary'. .* give --src_dataset_type csv"),
    ("cardinality: 300", "cardinality: 300\n    ragged: true", "item is ragged; a record holds"),
])  # fmt: skip
def test_specs_that_are_not_of_this_layout(folder, old, new, reason):
    path = folder / "feature_spec.yaml"
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(LayoutError, match=reason):
        Reader(folder, spec_of(folder), split="train")


def test_numbers_that_float16_does_not_hold_are_rounded_aloud_or_refused(folder, tmp_path):
    heard = []
    drop_checksums(folder)
    words = np.fromfile(folder / "train.bin", np.float32)
    words[[1, 2, 7]] = [0.1, 0.5, 1e-3]
    words.tofile(folder / "train.bin")
    request = Request(folder, "record_binary", dst_dataset_path=tmp_path / "b", dst_dataset_type="tf_raw")
    transcribe_dataset(request, quiet=True, warn=heard.append)
    assert heard == ["train: 2 numericals were rounded to float16."]
    words[7] = 70_000
    words.tofile(folder / "train.bin")
    with pytest.raises(FeatureSpecError, match="'num_0' is 70000.0, but float16 has numbers up to 65504.*--dense_log"):
        to_layout(folder, "record_binary", tmp_path / "c", "tf_raw")


def test_multi_hot_survives(tmp_path):
    raw = write_tf_raw(tmp_path / "raw", FIXED)
    there = to_layout(raw, "tf_raw", tmp_path / "a", "record_binary")
    assert files_of(to_layout(there, "record_binary", tmp_path / "b", "tf_raw")) == files_of(raw)
