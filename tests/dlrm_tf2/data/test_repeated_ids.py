"""Which features are deduplicated, and what that saves."""

import numpy as np
import pytest
from support.small_dataset import write_dataset

from dlrm_tf2.config import TrainConfig
from dlrm_tf2.data import repeated_ids
from dlrm_tf2.embedding.ids import IdBatch
from dlrm_tf2.runtime.comm import SingleProcess


def test_different_ids_by_hand():
    fixed = np.array([[1, 5, 5], [1, 6, 5], [2, 5, 7]])
    batch = IdBatch(fixed, {"c": (np.array([4, 4, 4, 9]), np.array([3, 0, 1]))}, {})
    assert repeated_ids.different_ids(batch, ("a", "c", "b"), (1, None, 2)) == {"a": 2, "c": 2, "b": 3}


def config(root, **flags):
    return TrainConfig(dataset_path=str(root), data_parallel_input=True, batch_size=200, seed=1, **flags)


@pytest.mark.parametrize("dedup_ids, chosen", [
    ("off", ()), ("on", ("cat_0", "cat_1", "cat_2", "cat_3", "cat_4")),
    # 100 samples a rank: at most 50, 7, 3 and 90 different ids of cat_0, 1, 3 and 4, and about 88 of the 400 of cat_2
    ("auto", ("cat_0", "cat_1", "cat_3")),
])  # fmt: skip
def test_all_ranks_choose_the_features_whose_ids_repeat(tmp_path, run_ranks, dedup_ids, chosen):
    spec = write_dataset(tmp_path)
    results = run_ranks(2, lambda comm: repeated_ids.choose_features(config(tmp_path, dedup_ids=dedup_ids), spec, comm))
    assert [features for features, _ in results] == [chosen] * 2
    if dedup_ids == "auto":
        assert "3 of 5 features" in results[0][1]


def test_alone_there_is_nothing_to_save(tmp_path):
    assert repeated_ids.choose_features(config(tmp_path), write_dataset(tmp_path), SingleProcess()) == ((), None)
