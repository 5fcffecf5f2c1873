"""An order in which every row comes once, the same for all files."""

import tempfile
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from criteo_prep.preprocess import shuffle
from criteo_prep.preprocess.parse.numerical import log_numbers
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
        with ShuffledFile(
            tmp_path / "f", tmp_path / "scratch", num_rows=num_rows, dtype=np.dtype(dtype), width=width, seed=7
        ) as file:
            for start in range(0, num_rows, 700):
                file.write(rows[start : start + 700])
        assert (tmp_path / "f").read_bytes() == rows[order].tobytes()
        assert not (tmp_path / "scratch").exists()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 700), st.integers(1, 400), st.integers(1, 300), st.integers(1, 250), st.integers(0, 2**63 - 1))
def test_any_size_of_bucket_buffer_and_block(num_rows, bucket_rows, buffer_bytes, block_rows, seed):
    rows = np.arange(3 * num_rows, dtype=np.int16).reshape(-1, 3)
    with (
        mock.patch.object(shuffle, "BUCKET_ROWS", bucket_rows),
        mock.patch.object(shuffle, "_BUFFER_BYTES", buffer_bytes),
        tempfile.TemporaryDirectory() as folder,
    ):
        path = Path(folder) / "file"
        with ShuffledFile(
            path, Path(folder) / "scratch", num_rows=num_rows, dtype=rows.dtype, width=3, seed=seed
        ) as file:
            for start in range(0, num_rows, block_rows):
                file.write(rows[start : start + block_rows])
        order = order_of(seed, num_rows)
        assert path.read_bytes() == rows[order].tobytes()
    assert np.array_equal(np.sort(order), np.arange(num_rows))


def test_several_buckets_of_their_usual_size(tmp_path):
    """Every row once, and two files in the same order; no bucket keeps to the place where it was dealt."""
    num_rows = 2 * shuffle.BUCKET_ROWS + 12345
    rows, files = np.arange(num_rows, dtype=np.int32), {}
    for dtype in (np.int32, np.int8):
        with ShuffledFile(
            tmp_path / "f", tmp_path / "scratch", num_rows=num_rows, dtype=np.dtype(dtype), width=1, seed=3
        ) as file:
            for start in range(0, num_rows, 1 << 20):
                file.write(rows[start : start + (1 << 20)].astype(dtype))
        files[dtype] = np.fromfile(tmp_path / "f", dtype)
    order = files[np.int32]
    assert np.array_equal(files[np.int8], order.astype(np.int8))
    assert np.array_equal(np.bincount(order, minlength=num_rows), np.ones(num_rows))
    thirds = [np.bincount(third // (num_rows // 3 + 1), minlength=3) for third in np.array_split(order, 3)]
    assert np.all(np.abs(np.array(thirds) / (num_rows / 9) - 1) < 0.01)


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
    assert np.array_equal(log_numbers(numbers, missing).view(np.uint16), log_numerical(numbers, absent).view(np.uint16))
