"""Draws by place, and ids with the law's frequencies."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from criteo_prep.synthetic.power_law import MISSING, PowerLaw, draw, stream_key

MASK = 2**64 - 1


def slow_draw(key, counter):
    """SplitMix64 in plain Python."""
    bits = (int(key) + (counter + 1) * 0x9E3779B97F4A7C15) & MASK
    bits = (bits ^ bits >> 30) * 0xBF58476D1CE4E5B9 & MASK
    bits = (bits ^ bits >> 27) * 0x94D049BB133111EB & MASK
    return bits ^ bits >> 31


def slow_id(key, counter, cardinality, alpha):
    """Inverse of the law's distribution function at the draw's upper 53 bits."""
    u = (slow_draw(key, counter) >> 11) / 2**53
    power = 1 - alpha
    x = (cardinality + 1) ** u if power == 0 else (1 + u * ((cardinality + 1) ** power - 1)) ** (1 / power)
    return min(math.floor(x) - 1, cardinality - 1)


def ids_of(cardinality, alpha, key, first, count, dtype=np.int32, missing=0):
    out = np.empty(count, dtype)
    PowerLaw(cardinality, alpha).fill(key, first, out=out, missing=missing)
    return out


def test_the_generator_is_splitmix64():
    # The first outputs for state 1234567, published with the reference generator.
    assert [int(draw(np.uint64(1234567), i)) for i in range(3)] == [
        6457827717110365317, 3203168211198807973, 9817491932198370423]  # fmt: skip


@given(key=st.integers(0, MASK), counter=st.integers(0, 2**40))
def test_draw_against_plain_python(key, counter):
    assert int(draw(np.uint64(key), counter)) == slow_draw(key, counter)


@pytest.mark.parametrize(
    "cardinality, alpha", [(1, 1.45), (2, 1.45), (90, 1.0), (5000, 0.0), (7_912_889, 1.45), (64, 3.0)]
)
def test_ids_against_plain_python(cardinality, alpha):
    key = stream_key(3, "train", "cat_0")
    ids = ids_of(cardinality, alpha, key, 17, 3000)
    expected = [slow_id(key, 17 + i, cardinality, alpha) for i in range(3000)]
    # The two may differ where rounding puts x on the other side of a whole number; none of these does.
    assert ids.tolist() == expected


@pytest.mark.parametrize(
    "cardinality, alpha", [(7_912_889, 1.45), (2209, 1.45), (4, 1.45), (1000, 1.0), (300, 0.0), (50, 0.5)]
)
def test_frequencies_follow_the_law(cardinality, alpha):
    count = 400_000
    law = PowerLaw(cardinality, alpha)
    ids = ids_of(cardinality, alpha, stream_key(11, "frequencies"), 0, count)
    edges = np.unique(np.minimum(np.array([0, 1, 2, 3, 5, 10, 30, 100, 1000, 10**5, cardinality - 1]), cardinality - 1))
    expected = np.diff(np.concatenate([[0.0], law.cdf(edges)])) * count
    found = np.diff(np.concatenate([[0], [(ids <= edge).sum() for edge in edges]]))
    chi_square = ((found - expected) ** 2 / expected).sum()
    assert chi_square < len(edges) + 5 * math.sqrt(2 * len(edges))  # five standard deviations of the statistic
    assert law.cdf(cardinality - 1) == pytest.approx(1.0)


def test_the_published_frequencies_of_a_large_table():
    law = PowerLaw(7_912_889, 1.45)
    assert law.cdf(0) == pytest.approx(0.268, abs=5e-4)
    assert law.cdf(9) == pytest.approx(0.66, abs=5e-3)
    assert law.cdf(999) == pytest.approx(0.956, abs=1e-3)


@settings(deadline=None, max_examples=60)
@given(cardinality=st.integers(1, 2**31 - 2), alpha=st.floats(0, 8), seed=st.integers(0), missing=st.integers(0, 31))
def test_ids_are_below_the_cardinality_or_missing(cardinality, alpha, seed, missing):
    ids = ids_of(cardinality, alpha, stream_key(seed, "any"), 0, 500, missing=missing)
    assert ids.max() < cardinality
    assert ids.min() >= (MISSING if missing else 0)


@settings(deadline=None, max_examples=30)
@given(cuts=st.lists(st.integers(0, 1000), max_size=4).map(sorted))
def test_any_cut_into_blocks_makes_the_same_ids(cuts):
    key = stream_key(5, "blocks")
    whole = ids_of(30_000, 1.45, key, 0, 1000)
    ends = [0, *cuts, 1000]
    parts = [ids_of(30_000, 1.45, key, start, stop - start) for start, stop in zip(ends, ends[1:], strict=False)]
    assert np.concatenate(parts).tolist() == whole.tolist()


@pytest.mark.parametrize("dtype", ["int8", "int16", "int32"])
def test_the_dtype_does_not_change_the_ids(dtype):
    key = stream_key(5, "dtypes")
    assert ids_of(100, 1.45, key, 0, 5000, dtype).tolist() == ids_of(100, 1.45, key, 0, 5000).tolist()


def test_missing_occurs_at_its_rate_and_independently_of_the_id():
    ids = ids_of(10_000, 1.45, stream_key(1, "missing"), 0, 200_000, missing=8)
    assert (ids == MISSING).mean() == pytest.approx(0.25, abs=0.005)
    present = ids[ids != MISSING]
    assert (present == 0).mean() == pytest.approx(PowerLaw(10_000, 1.45).cdf(0), abs=0.005)


def test_streams_differ_by_seed_and_by_each_name():
    paths = [(1, "train", "cat_0"), (2, "train", "cat_0"), (1, "test", "cat_0"), (1, "train", "cat_1"), (1, "train"),
             (1, "traincat_0")]  # fmt: skip
    assert len({int(stream_key(*path)) for path in paths}) == len(paths)
    first, second = (ids_of(1000, 0.0, stream_key(1, "train", name), 0, 20_000) for name in ("cat_0", "cat_1"))
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.03
    assert abs(np.corrcoef(first[1:], first[:-1])[0, 1]) < 0.03
