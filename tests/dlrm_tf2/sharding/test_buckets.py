"""The buckets of a dynamic table: their number and rows by hand, the hash against known values."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlrm_tf2.sharding.buckets import Buckets, buckets_of, hash_of


@pytest.mark.parametrize("capacity, bucket_capacity, expected", [
    (1024, 16_384, Buckets(1, 1024)),
    (32_767, 16_384, Buckets(1, 32_767)),
    (32_768, 16_384, Buckets(2, 16_384 + 576)),  # 4.5 * 128
    (100_000, 16_384, Buckets(4, 25_000 + 712)),  # 4.5 * 158.11 = 711.5
    (1 << 30, 16_384, Buckets(256, (1 << 22) + 9216)),  # 4.5 * 2048
    (64, 16, Buckets(4, 34)),
])  # fmt: skip
def test_number_and_rows_by_hand(capacity, bucket_capacity, expected):
    assert buckets_of(capacity, bucket_capacity) == expected
    assert expected.num_rows == expected.num_buckets * expected.rows_per_bucket >= capacity


@pytest.mark.parametrize("capacity, bucket_capacity", [(0, 16), (-1, 16), (16, 0)])
def test_no_table_without_rows(capacity, bucket_capacity):
    with pytest.raises(ValueError, match="expected 1 or more"):
        buckets_of(capacity, bucket_capacity)


@given(st.integers(0, 8), st.integers(1, 300))
def test_every_bucket_has_one_rank(log_buckets, world_size):
    buckets = Buckets(1 << log_buckets, 10)
    owned = [bucket for rank in range(world_size) for bucket in buckets.of_rank(rank, world_size)]
    assert owned == list(range(buckets.num_buckets))


def test_known_hashes():
    """The first outputs of SplitMix64 seeded with 0 and 1234567 are the hashes of these multiples of its increment."""
    gamma = 0x9E3779B97F4A7C15
    keys = np.array([gamma, 1234567 + gamma], np.uint64).view(np.int64)
    assert hash_of(keys).tolist() == [0xE220A8397B1DCDAF, 6457827717110365317]
    assert hash_of(np.array([0])).tolist() == [0]


@pytest.mark.parametrize("num_buckets", [1, 2, 256])
def test_buckets_are_the_high_bits_of_the_hash(num_buckets):
    keys = np.concatenate([np.arange(-20_000, 20_000), [np.iinfo(np.int64).min, np.iinfo(np.int64).max]])
    wanted = [(int(value) >> 32) * num_buckets >> 32 for value in hash_of(keys)]
    found = Buckets(num_buckets, 1).bucket_of(keys)
    assert found.dtype == np.int64 and found.tolist() == wanted
    counts = np.bincount(found, minlength=num_buckets)
    mean = len(keys) / num_buckets
    assert np.abs(counts - mean).max() <= 5 * np.sqrt(mean)


def test_capacity_keys_find_room():
    buckets = buckets_of(1 << 20)
    for start in (0, -(1 << 40), 12_345_678_901):
        counts = np.bincount(buckets.bucket_of(start + np.arange(1 << 20)), minlength=buckets.num_buckets)
        assert len(counts) == 64 and counts.max() <= buckets.rows_per_bucket
