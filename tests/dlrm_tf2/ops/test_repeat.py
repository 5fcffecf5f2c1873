"""Values repeated by counts, against numpy, and in little memory where one count is large."""

import numpy as np
import pytest
import tensorflow as tf

from dlrm_tf2.ops.repeat import repeat_each


@pytest.mark.parametrize("counts", [[], [0], [0, 0], [3], [0, 2, 0, 0, 1, 0], [1, 1, 1], [0, 5, 2]])
@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_like_numpy(counts, dtype):
    values = np.arange(len(counts), dtype=np.int64) - 7
    found = repeat_each(tf.constant(values), tf.constant(counts, dtype))
    np.testing.assert_array_equal(found, np.repeat(values, counts))


def test_one_key_in_every_sample_takes_no_matrix():
    """tf.repeat makes a mask of keys x largest count, here 300 GB."""
    counts = np.ones(1_000_000, np.int64)
    counts[5] = 300_000
    found = tf.function(repeat_each)(tf.range(len(counts)), tf.constant(counts)).numpy()
    assert len(found) == 1_299_999 and (found[5:300_005] == 5).all() and found[300_005] == 6
