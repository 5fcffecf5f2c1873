"""Exact counting in bounded memory, by hash table and by bitmap; the bitmap that numbers its members."""

from collections import Counter

import numpy as np
import pytest

from criteo_prep.preprocess.columns import count, hash_table
from criteo_prep.preprocess.columns.count import LargeCounts, SmallCounts, count_small
from criteo_prep.preprocess.columns.id_table import IdTable
from criteo_prep.preprocess.columns.rank_bitmap import RankBitmap
from criteo_prep.preprocess.columns.vocabulary import make_vocabulary, rank_by_count


@pytest.fixture(scope="module")
def blocks():
    """A few blocks of values: frequent ones, single ones, 0, neighbours, both ends of the range."""
    generator = np.random.default_rng(1)
    made = []
    for rows in (0, 1, 3000, 40_000, 7):
        values = (generator.zipf(1.3, rows).astype(np.uint64) * np.uint64(0x9E3779B1)).astype(np.uint32)
        values[: rows // 9] = 0
        values[rows // 9 : rows // 8] = 0xFFFFFFFF
        values[rows // 8 : rows // 7] = generator.integers(0, 3000, rows // 7 - rows // 8)
        made.append(values)
    return made


def expected_counts(blocks, num_zeros):
    counted = Counter(np.concatenate(blocks).tolist())
    counted[0] = num_zeros
    return {value: times for value, times in counted.items() if times}


@pytest.mark.parametrize("num_zeros", [0, 5])
def test_small_columns(blocks, num_zeros):
    """More values than the first table has slots, so that it grows in the middle of a block, several times."""
    values, counts = count_small(blocks, num_zeros)
    assert dict(zip(values.tolist(), counts.tolist(), strict=True)) == expected_counts(blocks, num_zeros)
    assert np.all(values[1:] > values[:-1]) and len(values) > 1024


def test_too_many_values_for_a_table(blocks, monkeypatch):
    monkeypatch.setattr(hash_table, "MAX_VALUES", 100)
    assert count_small(blocks, 0) is None


def test_memory_follows_the_distinct_values_not_the_rows():
    counts = SmallCounts()
    for _ in range(100):
        counts.add(np.arange(500, dtype=np.uint32))
    assert counts.num_slots == 1024


def test_counts_past_32_bits_are_put_aside(monkeypatch):
    monkeypatch.setattr(count, "_MAX_ROWS", 10)
    counts = SmallCounts()
    for _ in range(7):
        counts.add(np.array([5, 9, 5], np.uint32))
    values, times = counts.result()
    assert (values.tolist(), times.tolist()) == ([5, 9], [14, 7])


@pytest.mark.parametrize("num_zeros", [0, 5])
@pytest.mark.parametrize("threshold", [0, 1, 2, 3, 1000])
def test_large_columns_are_ranked_as_small_ones(blocks, num_zeros, threshold):
    large = LargeCounts()
    for values in blocks:
        large.mark(values)
    large.index()
    large.allocate()
    for values in blocks:
        large.count(values)
    large.set_zeros(num_zeros)
    assert large.members.num_values == len(expected_counts(blocks, 1))
    ranked = rank_by_count(large.counts, threshold, large.num_wraps)
    kept = np.empty(ranked.num_kept, np.uint32)
    large.members.select(large.counts, 1, kept)
    expected = make_vocabulary(*count_small(blocks, num_zeros), threshold)
    assert kept.tolist() == expected.values.tolist()
    assert ranked.counts_of(1, ranked.num_kept + 1).tolist() == expected.counts.tolist()


def test_a_count_above_32_bits():
    bitmap = RankBitmap()
    bitmap.add(np.array([7, 3, 7], np.uint32))
    bitmap.index()
    counts = np.array([0xFFFFFFFE, 5], np.uint32)
    assert bitmap.count(np.array([3, 7, 3, 3], np.uint32), counts).tolist() == [0]
    assert counts.tolist() == [1, 6]
    ranked = rank_by_count(counts, 6, {0: 1})
    assert counts.tolist() == [1, 2]
    assert ranked.counts_of(1, 3).tolist() == [2**32 + 1, 6]


def test_bitmap_by_hand():
    bitmap = RankBitmap()
    bitmap.add(np.array([511, 0xFFFFFFFF, 512, 0, 63, 64, 511], np.uint32))
    bitmap.index()
    assert bitmap.num_values == 6
    ids_by_rank = np.zeros(6, np.int32)
    bitmap.put(np.array([0, 63, 64, 511, 512, 0xFFFFFFFF], np.uint32), np.arange(10, 16, dtype=np.int32), ids_by_rank)
    assert ids_by_rank.tolist() == [10, 11, 12, 13, 14, 15]
    ids = np.empty(8, np.int32)
    asked = np.array([512, 1, 0, 0xFFFFFFFF, 511, 65, 63, 64], np.uint32)
    bitmap.look_up(asked, ids_by_rank, ids)
    assert ids.tolist() == [14, 0, 10, 15, 13, 0, 11, 12]
    values = np.empty(2, np.uint32)
    bitmap.select(ids_by_rank, 13, values)
    assert values.tolist() == [511, 512]


@pytest.mark.parametrize("cap", [None, 50])
def test_bitmap_and_hash_table_give_the_same_ids(blocks, monkeypatch, cap):
    vocabulary = make_vocabulary(*count_small(blocks, 5), 1)
    table = IdTable(lambda: [vocabulary.values], len(vocabulary.values), cap)
    monkeypatch.setattr(hash_table, "MAX_VALUES", 0)
    bitmap = IdTable(lambda: [vocabulary.values[:7], vocabulary.values[7:]], len(vocabulary.values), cap)
    assert table.dtype == bitmap.dtype and table.cardinality == bitmap.cardinality
    for values in blocks:
        zero_rows = np.flatnonzero(values == 0)[::2]
        assert np.array_equal(table.encode(values, zero_rows), bitmap.encode(values, zero_rows))
