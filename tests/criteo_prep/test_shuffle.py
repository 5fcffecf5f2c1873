"""An order in which every row comes once, the same for all files."""

import numpy as np
import pytest

from criteo_prep.preprocess import shuffle
from criteo_prep.preprocess.numerical import log_of
from criteo_prep.preprocess.shuffle import ShuffledFile, order_of
from criteo_prep.schema import log_numerical


@pytest.mark.parametrize("num_rows", [0, 1, 2, 999, 5000])
def test_every_row_once_and_every_file_in_the_same_order(tmp_path, monkeypatch, num_rows):
    monkeypatch.setattr(shuffle, "BUCKET_ROWS", 300)
    monkeypatch.setattr(shuffle, "_BUFFER_BYTES", 64)
    order = order_of(7, num_rows)
    assert np.array_equal(np.sort(order), np.arange(num_rows))
    for dtype, width in ((np.int8, 1), (np.int32, 1), (np.float16, 13), (bool, 1)):
        rows = np.arange(num_rows * width).reshape(num_rows, width).astype(dtype)
        with ShuffledFile(tmp_path / "f", tmp_path / "scratch", num_rows, np.dtype(dtype), width, 7) as file:
            for start in range(0, num_rows, 700):
                file.write(rows[start : start + 700])
        assert (tmp_path / "f").read_bytes() == rows[order].tobytes()
        assert not (tmp_path / "scratch").exists()


def test_the_seed_and_the_number_of_rows_make_the_order():
    assert not np.array_equal(order_of(1, 1000), order_of(2, 1000))
    assert not np.array_equal(order_of(1, 1001)[:1000], order_of(1, 1000))


def test_the_order_looks_random():
    """Where row 0 ends up, over many seeds: about as often in each tenth."""
    places = [int(np.flatnonzero(order_of(seed, 50) == 0)[0]) for seed in range(1000)]
    assert np.all(np.abs(np.bincount(np.array(places) // 5, minlength=10) - 100) < 45)


def test_logarithms_from_the_table_have_the_bits_of_the_rule():
    source = np.random.default_rng(1)
    numbers = np.concatenate([
        np.arange(-20, 70_000), (10 ** source.uniform(0, 18, 60_000)).astype(np.int64), -(10 ** np.arange(18)),
        [10**18 - 1, 2**31, 2**32, 1 - 10**18],
    ])  # fmt: skip
    numbers = np.resize(numbers, (len(numbers) // 13 + 1, 13))
    missing = source.integers(0, 1 << 14, len(numbers)).astype(np.uint64)
    absent = (missing[:, None] >> np.arange(1, 14, dtype=np.uint64)) & np.uint64(1) != 0
    assert np.array_equal(log_of(numbers, missing).view(np.uint16), log_numerical(numbers, absent).view(np.uint16))
