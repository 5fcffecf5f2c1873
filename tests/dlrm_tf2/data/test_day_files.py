"""TorchRec's files in place: which rows a split has, what is read of them, and what the published reader got wrong."""

import numpy as np
import pytest
from support.day_files import ROWS, write_day, write_days

from criteo_prep.feature_spec import FeatureSpecError
from criteo_prep.transcribe.sample_order import FullPermutation
from dlrm_tf2.data.day_files import CATEGORICAL, LABEL, NUMERICAL, DaySamples, FoldedIds, find_splits, hotness_of

ALL = (LABEL, *NUMERICAL, *CATEGORICAL)


def samples_of(folder, name, features=ALL, *, rows=ROWS, folded=None, kaggle=False, multi_hot=False):
    split = find_splits(folder, kaggle=kaggle, multi_hot=multi_hot)[name]
    num_rows = dict(zip(CATEGORICAL, rows, strict=True))
    return DaySamples(split, features, num_rows=num_rows, folded=folded or FoldedIds())


def assert_rows(batch, days, rows):
    """The batch holds these rows, counted over the days."""
    labels, dense, ids = (
        [np.concatenate(part) for part in zip(*parts, strict=True)]
        if isinstance(parts[0], list)
        else np.concatenate(parts)
        for parts in zip(*days, strict=True)
    )
    np.testing.assert_array_equal(batch.label, labels[rows] == 1)
    np.testing.assert_array_equal(batch.numerical, dense[rows])
    for name, column in zip(CATEGORICAL, ids, strict=True):
        np.testing.assert_array_equal(batch.categorical[name].values, column[rows].reshape(-1))
        assert batch.categorical[name].values.dtype == np.int32
    assert batch.numerical.dtype == np.float32


@pytest.mark.parametrize("hotness", [None, (3, 1, 2, *(1,) * 23)])
def test_the_last_day_is_for_evaluation_its_first_half_for_validation(tmp_path, hotness):
    """61 rows: 31 for validation, 30 for the test. Rows of any day, in any order, also across two days."""
    days = write_days(tmp_path, hotness=hotness)
    multi_hot = hotness is not None
    train, validation, test = (
        samples_of(tmp_path, name, multi_hot=multi_hot) for name in ("train", "validation", "test")
    )
    assert (train.num_samples, validation.num_samples, test.num_samples) == (200, 31, 30)
    assert_rows(train.read(80, 130), days[:2], np.arange(80, 130))
    rows = np.array([199, 0, 90, 89, 150, 90])
    assert_rows(train.take(rows), days[:2], rows)
    assert_rows(validation.read(0, 31), days[2:], np.arange(31))
    assert_rows(test.read(1, 30), days[2:], np.arange(32, 61))
    found = hotness_of(find_splits(tmp_path, kaggle=False, multi_hot=multi_hot)["train"])
    assert found == (hotness or (1,) * 26)


def test_only_what_is_asked_for_is_read(tmp_path):
    write_days(tmp_path)
    batch = samples_of(tmp_path, "train", ("cat_4", "cat_1")).read(0, 5)
    assert batch.label is None and batch.numerical is None and list(batch.categorical) == ["cat_1", "cat_4"]
    batch = samples_of(tmp_path, "train", (LABEL, *NUMERICAL)).read(0, 5)
    assert len(batch.label) == len(batch.numerical) == 5 and batch.categorical == {}


def test_ids_beyond_their_table_are_folded_and_counted(tmp_path):
    """Also ids that no int32 holds: the hashes of the first step of the published preparation."""
    days, folded = write_days(tmp_path, high=(2**32, *ROWS[1:])), FoldedIds()
    ids = days[2][2][0][:31]  # the last day is int64
    assert ids.max() > 2**31
    batch = samples_of(tmp_path, "validation", ("cat_0", "cat_1"), folded=folded).read(0, 31)
    np.testing.assert_array_equal(batch.categorical["cat_0"].values, ids[:, 0] % ROWS[0])
    assert folded.counts == {"cat_0": (int((ids >= ROWS[0]).sum()), 31), "cat_1": (0, 31)}


def test_days_of_different_types_in_one_split(tmp_path):
    """Defect: the published files mix int32 and int64 in one folder. An id that only int64 holds stays as it is."""
    write_day(tmp_path, "day_0", 20, seed=0)
    expected = write_day(tmp_path, "day_1", 20, seed=1, high=(2**40, *ROWS[1:]), dtype=np.int64)[2][0]
    write_day(tmp_path, "day_2", 20, seed=2)
    samples = samples_of(tmp_path, "train", ("cat_0",))
    for batch in (samples.read(20, 40), samples.take(np.arange(20, 40)), samples.read(0, 40).part(20, 40)):
        np.testing.assert_array_equal(batch.categorical["cat_0"].values, expected[:, 0] % ROWS[0])


def test_a_shuffle_keeps_ids_above_2_to_the_24(tmp_path):
    """Defect: the published shuffle goes through float32, which rounds 16777217 to 16777216."""
    write_day(tmp_path, "day_0", 64, high=(3, *ROWS[1:]))
    large = np.arange(2**24, 2**24 + 64, dtype=np.int64)
    ids = np.load(tmp_path / "day_0_sparse.npy").astype(np.int32)
    ids[:, 0] = large
    np.save(tmp_path / "day_0_sparse.npy", ids)
    write_day(tmp_path, "day_1", 8)
    samples = samples_of(tmp_path, "train", ("cat_0",), rows=(40_000_000, *ROWS[1:]))
    shuffled = FullPermutation(samples, seed=5, window=1).read(0, 0, 64).categorical["cat_0"].values
    assert not (shuffled == large).all()
    np.testing.assert_array_equal(np.sort(shuffled), large)


def test_no_row_of_kaggles_logs_is_in_two_splits(tmp_path):
    """Defect: the published program trains on all 70 rows, and evaluates on the last 35 of them, twice."""
    days = [write_day(tmp_path, "train", 73)]
    parts = {name: samples_of(tmp_path, name, kaggle=True) for name in ("train", "validation", "test")}
    assert {name: part.num_samples for name, part in parts.items()} == {"train": 63, "validation": 5, "test": 5}
    first = 0
    for part in parts.values():
        assert_rows(part.read(0, part.num_samples), days, np.arange(first, first + part.num_samples))
        first += part.num_samples
    assert first == 73


def damaged(folder, name, change):
    array = np.load(folder / name)
    np.save(folder / name, change(array))


@pytest.mark.parametrize("damage, message", [
    (lambda f: (f / "day_1_labels.npy").unlink(), "day_1_labels.npy: is missing, and later days exist"),
    (lambda f: (f / "day_0_sparse.npy").unlink(), "day_0_sparse.npy: is missing"),
    (lambda f: damaged(f, "day_1_dense.npy", lambda a: a[:-1]), "day_1_dense.npy: has 109 rows, but .* has 110"),
    (lambda f: damaged(f, "day_2_sparse.npy", lambda a: a[:, 1:]), "day_2_sparse.npy: has 25 columns, expected 26"),
    (lambda f: damaged(f, "day_2_sparse.npy", lambda a: a.astype(np.float32)), "ids are int32 or int64"),
    (lambda f: [(f / f"day_{d}_labels.npy").unlink() for d in (1, 2)], "has 1 days"),
])  # fmt: skip
def test_a_missing_or_damaged_file_is_named(tmp_path, damage, message):
    write_days(tmp_path)
    damage(tmp_path)
    with pytest.raises(FeatureSpecError, match=message):
        find_splits(tmp_path, kaggle=False, multi_hot=False)


@pytest.mark.parametrize("name, change, message", [
    ("day_0_sparse.npy", lambda a: a - 1, "day_0_sparse.npy and the next 1: cat_.*: id -1 is negative"),
    ("day_0_labels.npy", lambda a: a - 1, "a label is 0 or 1"),
    ("day_0_dense.npy", lambda a: a * np.nan, "'int_0' is nan"),
])  # fmt: skip
def test_a_wrong_number_is_named(tmp_path, name, change, message):
    write_days(tmp_path)
    damaged(tmp_path, name, change)
    with pytest.raises(FeatureSpecError, match=message):
        samples_of(tmp_path, "train").read(0, 90)
