"""Ids from the counts in buckets: by hand, and against a sort of all values."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from criteo_prep.preprocess.columns.vocabulary import Vocabulary, make_vocabulary
from criteo_prep.preprocess.distributed import ranking
from criteo_prep.preprocess.distributed.counts import Bucket, CountJob, collect_counts
from criteo_prep.preprocess.distributed.ranking import VocabularyJob, fill_values, rank_buckets, write_column_vocabulary


def test_ids_by_hand(tmp_path):
    # Counts: 3: 7, 5: 2; 10: 2, 11: 9, 12: 7. By the rule the order is 11, then 3 and 12, then 5 and 10.
    np.array([3, 5], np.uint32).tofile(tmp_path / "low")
    np.array([11, 12, 10], np.uint32).tofile(tmp_path / "high")
    low = Bucket("low", np.array([7, 2]), np.array([1, 1]))
    high = Bucket("high", np.array([9, 7, 2]), np.array([1, 1, 1]))
    ids, buckets = rank_buckets([low, high])
    assert ids.num_kept == 5
    assert ids.counts_of(1, 6).tolist() == [9, 7, 7, 2, 2]
    assert [bucket.first_ids.tolist() for bucket in buckets] == [[2, 4], [1, 3, 5]]
    values = np.zeros(3, np.uint32)
    for bucket in buckets:
        fill_values(tmp_path / bucket.file, bucket, first=2, values=values)
    assert values.tolist() == [3, 12, 5]


COUNTS = st.dictionaries(st.integers(0, 60), st.sampled_from([1, 2, 2, 3, 3, 70_000, 1 << 33]), max_size=40)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("buckets")


@given(COUNTS, st.integers(0, 3), st.lists(st.integers(1, 59), max_size=4, unique=True), st.sampled_from([None, 4]))
def test_the_vocabulary_is_the_local_one(folder, counts, threshold, cuts, cap):
    boundaries = np.array(sorted(cuts), np.uint32)
    job = CountJob(folder, (0,), (boundaries,), thresholds=(threshold,), counted=range(1), folder=folder)
    values = np.array(sorted(counts), np.uint32)
    totals = np.array([counts[value] for value in values.tolist()], np.int64)
    place = np.searchsorted(boundaries, values, side="right")
    buckets = []
    for number in range(len(boundaries) + 1):
        here = place == number
        halves = [(values[here], totals[here] // 2), (values[here], totals[here] - totals[here] // 2)]
        buckets.append(collect_counts(job, number, iter(halves)))
    ids, ranked = rank_buckets(buckets)
    write_column_vocabulary(VocabularyJob(folder / "spread", folder, ranking=ids, buckets=ranked, cap=cap))
    make_vocabulary(values, totals, threshold).save(folder / "local", cap)
    assert (folder / "spread").read_bytes() == (folder / "local").read_bytes()


def test_windows_of_a_large_vocabulary(folder, monkeypatch):
    from criteo_prep.preprocess.columns import vocabulary

    random = np.random.default_rng(1)
    values = np.sort(random.choice(10_000, 3000, replace=False)).astype(np.uint32)
    totals = random.integers(1, 20, len(values))
    job = CountJob(folder, (0,), (np.array([4000], np.uint32),), thresholds=(2,), counted=range(1), folder=folder)
    halves = (values < 4000, values >= 4000)
    buckets = [collect_counts(job, n, iter([(values[half], totals[half])])) for n, half in enumerate(halves)]
    ids, ranked = rank_buckets(buckets)
    monkeypatch.setattr(vocabulary, "WINDOW_IDS", 128)
    monkeypatch.setattr(vocabulary, "FILE_ROWS", 64)
    write_column_vocabulary(VocabularyJob(folder / "windows", folder, ranking=ids, buckets=ranked, cap=None))
    found, expected = Vocabulary.load(folder / "windows"), make_vocabulary(values, totals, 2)
    assert np.array_equal(found.values, expected.values) and np.array_equal(found.counts, expected.counts)
    assert ranking.rank_buckets(buckets)[0].num_kept == len(expected.values) > 2000
