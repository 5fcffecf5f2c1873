"""Initial weights against SplitMix64 in plain Python, and as a property of any cut of a table."""

from zlib import crc32

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from dlrm_tf2.embedding.initial_weights import initial_rows
from dlrm_tf2.sharding.tables import TableConfig

TABLE = TableConfig("cat_3", 50, 12)
MASK = 2**64 - 1


def mixed(z):
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & MASK
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB & MASK
    return z ^ (z >> 31)


def test_splitmix64_known_outputs():
    """The first outputs of the generator seeded with 1234567, as its reference implementation prints them."""
    outputs = [mixed((1234567 + i * 0x9E3779B97F4A7C15) & MASK) for i in (1, 2, 3)]
    assert outputs == [6457827717110365317, 3203168211198807973, 9817491932198370423]


def test_equals_plain_python():
    key = mixed((11 << 1) ^ (crc32(b"cat_3") << 32))
    for row, column in [(0, 0), (0, 11), (7, 3), (49, 11)]:
        bits = mixed((key + (row * 12 + column) * 0x9E3779B97F4A7C15) & MASK)
        expected = ((bits >> 40) * 2.0**-23 - 1) * 50**-0.5
        value = initial_rows(TABLE, 11, start=row, stop=row + 1, columns=(column, column + 1))[0, 0]
        np.testing.assert_allclose(value, expected, rtol=1e-6)


@given(st.tuples(st.integers(0, 50), st.integers(0, 50)), st.tuples(st.integers(0, 12), st.integers(0, 12)))
def test_any_rectangle_has_the_weights_of_the_whole(rows, columns):
    (start, stop), (left, right) = sorted(rows), sorted(columns)
    whole = initial_rows(TABLE, 5, start=0, stop=50, columns=(0, 12))
    np.testing.assert_array_equal(
        initial_rows(TABLE, 5, start=start, stop=stop, columns=(left, right)), whole[start:stop, left:right]
    )


def test_range_and_independence():
    table = TableConfig("cat_0", 4000, 64)
    weights, bound = initial_rows(table, 1, start=0, stop=4000, columns=(0, 64)), 4000**-0.5
    assert np.abs(weights).max() <= bound
    assert abs(weights.mean()) < 0.01 * bound
    assert abs(weights.std() / (bound / 3**0.5) - 1) < 0.01
    for seed, name in ((2, "cat_0"), (1, "cat_1")):
        other = initial_rows(TableConfig(name, 4000, 64), seed, start=0, stop=4000, columns=(0, 64))
        assert abs(np.corrcoef(weights.ravel(), other.ravel())[0, 1]) < 0.01
