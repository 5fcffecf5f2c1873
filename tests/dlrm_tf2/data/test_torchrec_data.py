"""The samples of TorchRec's example: limits, samples in memory, bags, random samples, and each rank's share."""

import numpy as np
import pytest
from support.day_files import ROWS, write_days

from dlrm_tf2.data.batches import RankData, RankShare, Reading
from dlrm_tf2.data.day_files import CATEGORICAL, FoldedIds
from dlrm_tf2.data.torchrec_data import DataRequest, provided_spec

BATCHES = {"train": 16, "validation": 8, "test": 8}


def spec_of(folder=None, **changes):
    values = {
        "folder": folder and str(folder), "kaggle": False, "multi_hot_files": False, "num_rows": ROWS, "bag_sizes": (),
        "distribution": "uniform", "in_memory": False, "batch_sizes": BATCHES, "shuffled": False,
        "limits": dict.fromkeys(BATCHES, None if folder else 10),
    }  # fmt: skip
    return provided_spec(DataRequest(**values | changes), FoldedIds())


def rank_data(spec, split="train", *, rank=0, size=1, shuffle="none", seed=3):
    share = RankShare(rank, size, sample_features=CATEGORICAL)
    return RankData(spec, split, share=share, reading=Reading(shuffle=shuffle, seed=seed))


def read_all(data, batch=16):
    """(labels, numericals, ids side by side) of a pass."""
    parts = [(b.label.copy(), b.numerical.copy(), b.ids.local_ids.fixed.copy()) for b in data.batches(batch)]
    return [np.concatenate(part) for part in zip(*parts, strict=True)]


def test_samples_in_memory_are_the_samples_of_the_files(tmp_path):
    sizes = (2, *(1,) * 25)
    write_days(tmp_path, hotness=sizes)
    files = spec_of(tmp_path, multi_hot_files=True)
    memory = spec_of(tmp_path, multi_hot_files=True, in_memory=True)
    for shuffle in ("none", "full"):
        for a, b in zip(*(read_all(rank_data(spec, shuffle=shuffle)) for spec in (files, memory)), strict=True):
            np.testing.assert_array_equal(a, b)
    assert files.held_bytes == {}
    rows = 90 + 110 + 61
    assert memory.held_bytes == {"label": rows * 53, "cat_0": rows * 8} | {f"cat_{k}": rows * 4 for k in range(1, 26)}


def test_a_limit_takes_the_first_batches_of_a_pass(tmp_path):
    write_days(tmp_path)
    whole = read_all(rank_data(spec_of(tmp_path)))
    limits = {"train": 3, "validation": 2, "test": 99}
    spec = spec_of(tmp_path, limits=limits)
    assert spec.num_samples == {"train": 48, "validation": 16, "test": 30}
    for a, b in zip(read_all(rank_data(spec)), whole, strict=True):
        np.testing.assert_array_equal(a, b[:48])
    shuffled = rank_data(spec_of(tmp_path, limits=limits, shuffled=True), shuffle="full")
    found = read_all(shuffled)[1]
    assert len(found) == 48 and len({*map(bytes, found)} - {*map(bytes, whole[1][:48])}) > 20  # of all 200 rows


def test_bags_are_functions_of_feature_and_id(tmp_path):
    days = write_days(tmp_path)
    sizes = (3, 1, 2, *(1,) * 23)
    spec = spec_of(tmp_path, bag_sizes=sizes)
    ids = read_all(rank_data(spec))[2]
    assert ids.shape == (200, 29)
    np.random.seed(0)
    others = np.random.randint(0, ROWS[0], size=(ROWS[0], 2))
    np.random.randint(0, ROWS[1], size=(ROWS[1], 0))
    third = np.random.randint(0, ROWS[2], size=(ROWS[2], 1))
    own = [np.concatenate([day[2][k][:, 0] for day in days[:2]]) for k in range(3)]
    np.testing.assert_array_equal(ids[:, :3], np.column_stack([own[0], others[own[0]]]))
    np.testing.assert_array_equal(ids[:, 3], own[1])
    np.testing.assert_array_equal(ids[:, 4:6], np.column_stack([own[2], third[own[2]]]))
    assert spec.held_bytes["cat_0"] == ROWS[0] * 3 * 4 and spec.held_bytes["cat_1"] == 0


def test_random_samples_are_ten_batches_again_and_again():
    """Uniform ids, labels that are fair coins, dense numbers of the normal distribution; a function of the seed."""
    spec = spec_of(limits={"train": 25, "validation": 10, "test": 10}, batch_sizes=BATCHES | {"train": 400})
    label, dense, ids = read_all(rank_data(spec), 400)
    assert len(label) == 25 * 400
    for part in (label, dense, ids):
        np.testing.assert_array_equal(part[:4000], part[4000:8000])
        np.testing.assert_array_equal(part[:2000], part[8000:])
        assert len(np.unique(part[:4000], axis=0)) > (1 if part.ndim == 1 else 3900)
    assert abs(label[:4000].mean() - 0.5) < 0.05
    assert abs(dense[:4000].mean()) < 0.02 and abs(dense[:4000].std() - 1) < 0.02
    counts = np.bincount(ids[:4000, 1], minlength=7)
    assert counts.min() > 450 and len(counts) == 7  # 571 expected
    assert not np.array_equal(read_all(rank_data(spec, seed=4), 400)[2], ids)


@pytest.mark.parametrize("shuffle", ["none", "full"])
def test_every_row_is_on_exactly_one_rank(tmp_path, shuffle):
    """Defect: without a seed the published shuffle drew another order on each rank, so rows came twice or never."""
    write_days(tmp_path)
    spec = spec_of(tmp_path, shuffled=shuffle == "full")
    whole = read_all(rank_data(spec, shuffle="none"))[1]
    shares = [read_all(rank_data(spec, rank=rank, size=3, shuffle=shuffle))[1] for rank in range(3)]
    found = np.concatenate(shares)
    assert len(found) == 200
    assert sorted(map(bytes, found)) == sorted(map(bytes, whole))
