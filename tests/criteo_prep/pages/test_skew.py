import numpy as np
import polars as pl
import pytest

from criteo_prep.pages.skew import CountHistogram


def histogram(counts):
    return CountHistogram.of([pl.Series("count", part, pl.Int64) for part in np.array_split(np.array(counts), 3)])


def test_by_hand():
    """Ids seen 5, 3, 3, 1 times, and one that was never seen."""
    found = histogram([1, 3, 0, 5, 3])
    assert (found.counts.tolist(), found.num_ids.tolist()) == ([5, 3, 1], [1, 2, 1])
    assert (found.total, found.total_ids) == (12, 4)
    assert [found.kept(threshold) for threshold in (0, 1, 2, 3, 4, 5, 6)] == [
        (12, 4), (12, 4), (11, 3), (11, 3), (5, 1), (5, 1), (0, 0)
    ]  # fmt: skip
    assert [found.top(number) for number in (1, 2, 3, 4, 1000)] == [5, 8, 11, 12, 12]
    assert found.exponent() is None


def test_nothing_was_counted():
    for empty in (CountHistogram(), histogram([0, 0])):
        assert (empty.total, empty.total_ids, empty.kept(0), empty.top(10), empty.exponent()) == (0, 0, (0, 0), 0, None)


def test_any_counts_as_a_sort_says():
    counts = np.random.default_rng(1).zipf(1.3, 3000).clip(max=10**6)
    found, descending = histogram(counts), np.sort(counts)[::-1]
    for threshold in (1, 2, 7, 50, 999_999):
        kept = descending[descending >= threshold]
        assert found.kept(threshold) == (kept.sum(), len(kept))
    assert [found.top(number) for number in (1, 10, 1000)] == [descending[:number].sum() for number in (1, 10, 1000)]


@pytest.mark.parametrize("exponent", [0, 0.5, 1.0, 1.4])
def test_the_exponent_of_a_power_law(exponent):
    counts = np.round(1e7 * np.arange(1, 10_001.0) ** -exponent).astype(np.int64)
    assert histogram(counts).exponent() == pytest.approx(exponent, abs=0.01)
