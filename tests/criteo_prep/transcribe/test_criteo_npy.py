"""criteo_npy against numpy's own reading and writing, the oddities of published datasets, and what is refused."""

import numpy as np
import pytest
from support.layout_samples import FIXED, ONE_HOT, files_of, samples, to_layout, write_tf_raw

from criteo_prep.feature_spec import Chunk, Feature, FeatureSpec, FeatureSpecError
from criteo_prep.transcribe.criteo_npy import Reader
from criteo_prep.transcribe.layout_spec import LayoutError
from criteo_prep.transcribe.npy_array import npy_header

TABLES = (Feature("store", "int32", 90), Feature("item", "int32", 300))


def write_days(folder, rows=(4, 3), ids=np.int32, columns=2, days=(0, 1)):
    """Days as TorchRec has them: labels are two-dimensional. Returns the samples."""
    for seed, (day, count) in enumerate(zip(days, rows, strict=True)):
        batch = samples(TABLES, count, columns, seed)
        np.save(folder / f"day_{day}_dense.npy", batch.numerical.astype(np.float32))
        np.save(folder / f"day_{day}_labels.npy", batch.label.astype(np.int32).reshape(-1, 1))
        stacked = np.stack([batch.categorical[table.name].values for table in TABLES], axis=1)
        np.save(folder / f"day_{day}_sparse.npy", stacked.astype(ids))
    spec_for(folder, ids, days).save(folder / "feature_spec.yaml")


def spec_for(folder, ids, days):
    tables = [Feature(table.name, np.dtype(ids).name, table.cardinality) for table in TABLES]
    features = [*tables, Feature("num_0", "float32"), Feature("num_1", "float32"), Feature("label", "int32")]
    channels = {"categorical": ("store", "item"), "numerical": ("num_0", "num_1"), "label": ("label",)}
    chunks = [Chunk(channels[channel], tuple(f"day_{day}_{end}.npy" for day in days), "criteo_npy")
              for channel, end in (("label", "labels"), ("numerical", "dense"), ("categorical", "sparse"))]  # fmt: skip
    return FeatureSpec(
        {f.name: f for f in features}, channels, sources={"train": tuple(chunks)}, metadata={}, root=folder
    )


@pytest.mark.parametrize("ids", [np.int32, np.int64])
def test_days_that_torchrec_would_read(tmp_path, ids):
    write_days(tmp_path, (4, 0, 3), ids, days=(0, 1, 2))
    with Reader(tmp_path, FeatureSpec.load(tmp_path / "feature_spec.yaml"), split="train") as reader:
        assert reader.num_samples == 7
        batch = reader.read(2, 6)
    for day, (mine, theirs) in {0: (slice(0, 2), slice(2, 4)), 2: (slice(2, 4), slice(0, 2))}.items():
        sparse = np.load(tmp_path / f"day_{day}_sparse.npy")
        assert batch.categorical["item"].values[mine].tolist() == sparse[theirs, 1].tolist()
        assert batch.numerical[mine].tolist() == np.load(tmp_path / f"day_{day}_dense.npy")[theirs].tolist()
        assert batch.label[mine].tolist() == (np.load(tmp_path / f"day_{day}_labels.npy")[theirs, 0] == 1).tolist()


def test_what_is_written_is_what_numpy_writes(tmp_path):
    raw = write_tf_raw(tmp_path / "raw", splits={"train": 21})
    folder = to_layout(raw, "tf_raw", tmp_path / "a", "criteo_npy") / "train"
    for path in folder.iterdir():
        array = np.load(path)
        np.save(tmp_path / "again.npy", array)
        assert path.read_bytes() == (tmp_path / "again.npy").read_bytes()
    shapes = {path.name: (np.load(path).shape, np.load(path).dtype.name) for path in folder.iterdir()}
    assert shapes == {"day_0_labels.npy": ((21, 1), "int32"), "day_0_dense.npy": ((21, 2), "float32"),
                      "day_0_sparse.npy": ((21, 3), "int32")}  # fmt: skip


def test_several_ids_a_sample_are_an_npz_that_numpy_reads(tmp_path):
    raw = write_tf_raw(tmp_path / "raw", FIXED, {"train": 21})
    folder = to_layout(raw, "tf_raw", tmp_path / "a", "criteo_npy")
    archive = np.load(folder / "train/day_0_sparse_multi_hot.npz")
    expected = samples(FIXED, 21)
    assert sorted(archive) == ["0", "1", "2"]
    for i, feature in enumerate(FIXED):
        assert archive[str(i)].dtype == np.int32
        assert archive[str(i)].tolist() == expected.categorical[feature.name].values.reshape(21, -1).tolist()
    np.savez(folder / "train/day_0_sparse_multi_hot.npz", **{name: archive[name] for name in archive})
    assert files_of(to_layout(folder, "criteo_npy", tmp_path / "b", "tf_raw")) == files_of(raw)


def mixed(folder):
    np.save(folder / "day_1_sparse.npy", np.load(folder / "day_1_sparse.npy").astype(np.int64))


def unsigned(folder):
    for path in folder.glob("*_sparse.npy"):
        np.save(path, np.load(path).astype(np.uint64))


def fractions(folder):
    np.save(folder / "day_0_sparse.npy", np.load(folder / "day_0_sparse.npy").astype(np.float32))


def objects(folder):
    np.save(folder / "day_0_sparse.npy", np.array([[{}, 1]] * 4, object), allow_pickle=True)


def fortran(folder):
    np.save(folder / "day_0_dense.npy", np.asfortranarray(np.load(folder / "day_0_dense.npy")))


def short(folder):
    path = folder / "day_1_dense.npy"
    path.write_bytes(path.read_bytes()[:-4])


def absurd(folder):
    path = folder / "day_1_dense.npy"
    path.write_bytes(npy_header("float32", (10**15, 2)) + path.read_bytes()[128:])


def one_column(folder):
    np.save(folder / "day_0_sparse.npy", np.load(folder / "day_0_sparse.npy")[:, :1])


def other_rows(folder):
    np.save(folder / "day_0_dense.npy", np.zeros((5, 2), np.float32))


def out_of_range(folder):
    np.save(folder / "day_1_sparse.npy", np.array([[0, 0], [0, 300], [0, 0]], np.int32))


def no_number(folder):
    np.save(folder / "day_1_dense.npy", np.array([[0, 0], [0, 0], [np.nan, 0]], np.float32))


@pytest.mark.parametrize("damage, reason", [
    (mixed, "day_1_sparse.npy: is int64, but .* says int32. Write int64 into the .* of all days have one dtype"),
    (unsigned, "day_0_sparse.npy: is uint64, .* A feature spec cannot say uint64 here: save the file with int32"),
    (fractions, "day_0_sparse.npy: is float32, .* A feature spec cannot say float32 here: save the file with int32"),
    (objects, "day_0_sparse.npy: dtype object; arrays of little-endian numbers are read, objects never"),
    (fortran, "day_0_dense.npy: is in Fortran order"),
    (short, r"day_1_dense.npy: the header says \(3, 2\) of float32, 24 bytes, but 20 bytes follow it"),
    (absurd, r"day_1_dense.npy: the header says \(1000000000000000, 2\) of float32, 8000000000000000 bytes, but 24"),
    (one_column, "day_0_sparse.npy: has 1 columns, but the feature spec has 2"),
    (other_rows, "day_0_dense.npy: has 5 rows, but day_0_labels.npy has 4"),
    (out_of_range, "row 5: id 300 of 'item' is not below its cardinality 300"),
    (no_number, "row 6: 'num_0' is nan"),
    (lambda folder: (folder / "day_0_labels.npy").write_bytes(b"PK\x03\x04"), "day_0_labels.npy: is not a .npy array"),
    (lambda folder: (folder / "day_0_labels.npy").unlink(), "day_0_labels.npy: there is no such file"),
])  # fmt: skip
def test_damage_is_named(tmp_path, damage, reason):
    (tmp_path / "days").mkdir()
    write_days(tmp_path / "days")
    to_layout(tmp_path / "days", "criteo_npy", tmp_path / "good", "tf_raw")
    damage(tmp_path / "days")
    with pytest.raises((LayoutError, FeatureSpecError), match=reason):
        to_layout(tmp_path / "days", "criteo_npy", tmp_path / "out", "tf_raw")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("save, reason", [
    (lambda path, arrays: np.savez_compressed(path, **arrays), "0.npy: is compressed, .* Save it with numpy.savez"),
    (lambda path, arrays: np.savez(path, **{"0": arrays["0"]}), "has no member 1.npy; its members are"),
    (lambda path, arrays: path.write_bytes(b"PK\x03\x04 no archive"), "is not an .npz"),
    (lambda path, arrays: np.savez(path, **{**arrays, "1": arrays["1"][:, :2]}), "has 2 columns, but the .* has 3"),
    (lambda path, arrays: np.savez(path, **{**arrays, "2": arrays["2"][:-1]}), "has 20 rows, but .* has 21"),
])  # fmt: skip
def test_archives_that_are_refused(tmp_path, save, reason):
    folder = to_layout(write_tf_raw(tmp_path / "raw", FIXED, {"train": 21}), "tf_raw", tmp_path / "a", "criteo_npy")
    path = folder / "train/day_0_sparse_multi_hot.npz"
    with np.load(path) as archive:
        save(path, {name: archive[name] for name in archive})
    with pytest.raises(LayoutError, match=reason):
        to_layout(folder, "criteo_npy", tmp_path / "b", "tf_raw")


@pytest.mark.parametrize("features, old, new, reason", [
    (ONE_HOT, "hotness: 1", "hotness: 2", "store is hotness 2, but train/day_0_sparse.npy holds one id a sample"),
    (ONE_HOT, "hotness: 1", "hotness: 2\n    ragged: true", "store is ragged, but train/day_0_sparse.npy holds one id"),
    (FIXED, "hotness: 3", "hotness: 3\n    ragged: true", "tags is ragged, but .*npz holds equally many ids a sample"),
])  # fmt: skip
def test_specs_of_other_numbers_of_ids(tmp_path, features, old, new, reason):
    folder = to_layout(write_tf_raw(tmp_path / "raw", features), "tf_raw", tmp_path / "a", "criteo_npy")
    path = folder / "feature_spec.yaml"
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(LayoutError, match=reason):
        to_layout(folder, "criteo_npy", tmp_path / "b", "tf_raw")
