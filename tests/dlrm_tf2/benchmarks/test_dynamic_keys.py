"""The keys of dynamicemb's benchmarks against numbers computed by hand."""

import numpy as np
import pytest

from dlrm_tf2.benchmarks.dynamic_config import CollectionConfig, TablesConfig
from dlrm_tf2.benchmarks.dynamic_keys import collection_batch, power_law_keys, tables_batch


@pytest.mark.parametrize("num_rows, alpha, uniform, keys", [
    # alpha 2: 1 / (1 - 3/4 u) = 1, 1.6, 3.08
    (4, 2.0, [0, 0.5, 0.9], [1, 1, 3]),
    # alpha 0: 10 u + 1 = 1, 6.5, 10.9
    (11, 0.0, [0, 0.55, 0.99], [1, 6, 10]),
    # alpha 1: 16 ** u = 1, 4, 8
    (16, 1.0, [0, 0.5, 0.75], [1, 4, 8]),
    # alpha 1.05: N ** -0.05 = exp(-0.05 * 15.94238) = 0.450624; (1 - 0.549376 / 2) ** -20 = 615.9
    (1 << 23, 1.05, [0.5], [615]),
])  # fmt: skip
def test_the_published_formula(num_rows, alpha, uniform, keys):
    assert power_law_keys(np.array(uniform), num_rows, alpha=alpha).tolist() == keys


def test_the_largest_number_stays_in_the_table():
    assert power_law_keys(np.array([np.nextafter(1, 0)]), 1000, alpha=1.05).tolist() == [999]


def test_the_frequencies_that_were_published_for_8_mi_rows():
    """The top key has 6.2 % of the traffic, the top 1000 have 53 %; a batch of 65,536 has 26.9 thousand keys."""
    keys = tables_batch(TablesConfig(batch_size=65536, rows=1 << 23, feature_distribution="pow-law"), 0)
    assert keys.min() == 1 and (keys == 1).mean() == pytest.approx(0.062, abs=0.003)
    assert (keys <= 1000).mean() == pytest.approx(0.53, abs=0.01)
    assert len(np.unique(keys)) == pytest.approx(26_900, rel=0.01)


def test_random_keys_are_all_keys_of_the_table():
    config = TablesConfig(batch_size=2000, rows=50)
    first = tables_batch(config, 0)
    assert set(first) == set(range(50))
    assert (tables_batch(config, 0) == first).all() and (tables_batch(config, 1) != first).any()


def test_ids_of_the_fused_table_begin_where_the_features_before_end():
    setting = {"batch_size": 40, "num_embeddings_per_feature": (5, 1, 3), "multi_hot_sizes": (2, 1, 4), "scale": 2.0}
    fused, apart = (
        collection_batch(CollectionConfig(**setting, use_dynamic_embedding=dynamic), 7) for dynamic in (True, False)
    )
    assert [ids.shape for ids in apart.values()] == [(40, 2), (40, 1), (40, 4)]
    for first, rows, feature in ((0, 10, "cate_0"), (10, 2, "cate_1"), (12, 6, "cate_2")):
        assert set(apart[feature].ravel()) == set(range(rows))
        assert (fused[feature] == apart[feature] + first).all() and fused[feature].dtype == np.int64
