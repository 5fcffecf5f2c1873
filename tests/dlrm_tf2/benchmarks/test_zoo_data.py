"""The data of the synthetic models: their laws, their limits, and the same global batch on any number of ranks."""

import numpy as np
import pytest

from dlrm_tf2.benchmarks.zoo import TableGroup, ZooModel
from dlrm_tf2.benchmarks.zoo_data import ZooData
from dlrm_tf2.data.batches import RankShare

ZOO = ZooModel("test", (TableGroup(1, (1, 10), 1000, 4), TableGroup(1, (1,), 10, 4)), num_numerical=2, mlp_dims=(1,))
FEATURES = tuple(ZOO.hotness)
SLICES = {"cat_0": slice(0, 1), "cat_1": slice(1, 11), "cat_2": slice(11, 12)}


def make(alpha=1.05, seed=1, batch_size=4000, **share):
    share = RankShare(**{"sample_features": FEATURES, **share})
    return ZooData(ZOO, share, batch_size=batch_size, alpha=alpha, seed=seed)


def ids_of(batch, feature):
    return batch.ids.local_ids.fixed[:, SLICES[feature]]


# The published inverse: id = floor((r * ((rows + 1)^g - 1) + 1)^(1 / g)) - 1 with g = 1 - alpha and r uniform, so
# P(id < k) = ((k + 1)^g - 1) / ((rows + 1)^g - 1). For alpha 1 the limit of g -> 0, log(k + 1) / log(rows + 1).
@pytest.mark.parametrize("alpha", [1.05, 1.0, 0.5, 0.0])
@pytest.mark.parametrize("feature, rows", [("cat_1", 1000), ("cat_2", 10)])
def test_ids_follow_the_power_law(alpha, feature, rows):
    ids = ids_of(make(alpha).batch(0), feature).reshape(-1)
    assert ids.dtype == np.int32 and ids.min() == 0 and ids.max() < rows
    g = 1 - alpha
    for k in (1, 2, 5, rows // 2, rows):
        below = np.log(k + 1) / np.log(rows + 1) if g == 0 else ((k + 1) ** g - 1) / ((rows + 1) ** g - 1)
        deviation = np.sqrt(below * (1 - below) / len(ids))
        assert np.mean(ids < k) == pytest.approx(below, abs=5 * deviation + 1e-9)


def test_numericals_and_labels():
    batch = make().batch(0)
    assert batch.numerical.shape == (4000, 2) and batch.numerical.dtype == batch.label.dtype == np.float32
    assert 0 <= batch.numerical.min() < 1 and 99 < batch.numerical.max() < 100
    assert batch.numerical.mean() == pytest.approx(50, abs=5 * 29 / np.sqrt(8000))
    assert set(batch.label) == {0.0, 1.0} and batch.label.mean() == pytest.approx(0.5, abs=5 * 0.5 / np.sqrt(4000))


def test_batches_differ_and_a_seed_repeats_them():
    def ids(seed, number):
        return make(seed=seed).batch(number).ids.local_ids.fixed

    np.testing.assert_array_equal(ids(1, 2), ids(1, 2))
    assert (ids(1, 0) != ids(1, 1)).mean() > 0.5 and (ids(1, 0) != ids(2, 0)).mean() > 0.5


def test_ranks_have_the_parts_of_one_global_batch():
    alone = make(batch_size=11).batch(3)
    parts = [make(batch_size=11, rank=rank, world_size=3).batch(3) for rank in range(3)]
    assert [len(part.label) for part in parts] == [4, 4, 3]
    np.testing.assert_array_equal(np.concatenate([part.label for part in parts]), alone.label)
    np.testing.assert_array_equal(np.concatenate([part.numerical for part in parts]), alone.numerical)
    np.testing.assert_array_equal(np.concatenate([p.ids.local_ids.fixed for p in parts]), alone.ids.local_ids.fixed)
    # Model-parallel input: the rank of a table has the ids of all samples.
    by_table = {"sample_features": (), "global_features": ("cat_2", "cat_1")}
    of_table = make(batch_size=11, rank=1, world_size=3, **by_table).batch(3)
    fixed = of_table.ids.global_ids.fixed
    np.testing.assert_array_equal(fixed, np.hstack([ids_of(alone, "cat_2"), ids_of(alone, "cat_1")]))
    assert of_table.ids.local_ids.fixed.shape == (4, 0) and of_table.global_batch == 11


def test_distinct_rows_are_counted():
    data = make()
    batch = data.batch(0)
    named = set(ids_of(batch, "cat_0").reshape(-1)) | set(ids_of(batch, "cat_1").reshape(-1))
    assert data.distinct_rows(ZOO.tables[0], (0, 1000)) == len(named)
    assert data.distinct_rows(ZOO.tables[0], (100, 300)) == sum(100 <= row < 300 for row in named)
