"""Tensors with a part in a file: they are zeros, keep what is written, and end with their owner."""

import re
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from dlrm_tf2 import ops
from dlrm_tf2.ops.tiered_memory import TierSizes, fetch_rows, tiered_rows, tiered_zeros

pytestmark = pytest.mark.skipif(not ops.available(), reason=f"the op library is not built: {ops.why_unavailable()}")

SHAPE = 5000, 320  # 6.4 MB: three large pages of 2 MiB, and a part of the fourth


def bytes_in_files(folder):
    """Bytes of this process's memory that are in deleted files of a folder."""
    found = 0
    for line in Path("/proc/self/maps").read_text().splitlines():
        if match := re.fullmatch(rf"(\w+)-(\w+) rw-s .*{re.escape(str(folder))}/.*\(deleted\)", line):
            found += int(match[2], 16) - int(match[1], 16)
    return found


@pytest.mark.parametrize(("share", "mib"), [(1.0, 0), (0.5, 6), (0.0, 8)])
def test_a_variable_keeps_what_is_written_in_both_parts(tmp_path, share, mib):
    variable = tf.Variable(tiered_zeros(SHAPE, tf.float32, TierSizes(share, str(tmp_path))))
    assert bytes_in_files(tmp_path) == mib << 20
    np.testing.assert_array_equal(variable[:], 0)
    rows = np.array([0, 2600, 4999, 17])
    values = np.random.default_rng(0).normal(size=(4, 320)).astype(np.float32)
    variable.scatter_update(tf.IndexedSlices(values, rows))
    assert bytes_in_files(tmp_path) == mib << 20  # not copied to ordinary memory
    tiered, asked = tiered_rows(variable), tf.constant([4999, 2600, -1, 5000, 0], tf.int64)
    for ahead in (False, True, False):
        fetch_rows(tiered, asked, ahead)  # the rows that are none are left out
    expected = np.zeros(SHAPE, np.float32)
    expected[rows] = values
    np.testing.assert_array_equal(variable[:], expected)
    assert list(tmp_path.iterdir()) == []
    del variable, tiered
    assert bytes_in_files(tmp_path) == 0


def test_a_folder_without_room_is_named(tmp_path):
    with pytest.raises(tf.errors.ResourceExhaustedError, match="nowhere for 8388608 bytes: No such file or directory"):
        tiered_zeros(SHAPE, tf.float32, TierSizes(0.0, str(tmp_path / "nowhere")))
    with pytest.raises(tf.errors.ResourceExhaustedError, match="no room in .* bytes: No space left"):
        tiered_zeros((1 << 30, 2048), tf.float32, TierSizes(0.0, str(tmp_path)))
