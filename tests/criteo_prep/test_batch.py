import numpy as np

from criteo_prep.batch import Batch, Ids


def test_ids_count_samples_not_values():
    assert Ids(np.arange(5)).num_samples == 5
    assert Ids(np.arange(5), np.array([2, 0, 3], np.int32)).num_samples == 3


def test_a_batch_counts_by_whatever_it_holds():
    ids = {"cat_0": Ids(np.arange(5), np.array([5], np.int32))}
    assert Batch(np.zeros(4, bool), None, {}).num_samples == 4
    assert Batch(None, np.zeros((3, 13), np.float16), {}).num_samples == 3
    assert Batch(None, None, ids).num_samples == 1
    assert Batch(None, None, {}).num_samples == 0
