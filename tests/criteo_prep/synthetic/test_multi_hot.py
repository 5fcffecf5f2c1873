"""The bags of ids against numpy's legacy generator, drawn directly and in one piece."""

import numpy as np
import pytest

from criteo_prep.synthetic import multi_hot
from criteo_prep.synthetic.multi_hot import MultiHotTables

ROWS, SIZES = (70, 5, 31, 9), (4, 1, 3, 100)


def drawn_directly(distribution):
    np.random.seed(0)
    tables = []
    for rows, size in zip(ROWS, SIZES, strict=True):
        if distribution == "uniform":
            others = np.random.randint(0, rows, size=(rows, size - 1))
        else:
            values = np.random.pareto(0.25, size=(rows, size - 1))
            others = np.array([int(v) if v < 2**31 else -(2**31) for v in values.flat]).reshape(values.shape) % rows
        tables.append(np.concatenate([np.arange(rows)[:, None], others], axis=1))
    return tables


@pytest.mark.parametrize("distribution", multi_hot.DISTRIBUTIONS)
@pytest.mark.parametrize("reserved", [(0, 1, 2, 3), (2,), (3, 1)])
def test_bags_are_the_published_ones(monkeypatch, distribution, reserved):
    """For any features that a process asks for, and across the blocks in which they are drawn."""
    monkeypatch.setattr(multi_hot, "_BLOCK", 8)
    tables, expected = MultiHotTables(ROWS, SIZES, distribution), drawn_directly(distribution)
    tables.reserve(reserved)
    for feature in reserved:
        ids = np.arange(ROWS[feature])[::-1]
        bags = tables.bags(feature, ids)
        np.testing.assert_array_equal(bags, expected[feature][ids])
        assert bags.dtype == np.int32 and (bags >= 0).all() and (bags < ROWS[feature]).all()


def test_a_feature_that_is_reserved_later_gets_the_same_bags():
    tables, expected = MultiHotTables(ROWS, SIZES, "uniform"), drawn_directly("uniform")
    tables.reserve([3])
    tables.bags(3, np.array([0]))
    tables.reserve([0])
    np.testing.assert_array_equal(tables.bags(0, np.array([7, 7])), expected[0][[7, 7]])
    np.testing.assert_array_equal(tables.bags(3, np.array([8])), expected[3][[8]])


def test_bytes_of_the_published_sizes():
    """40 million ids of 100 each in 4 bytes; a feature of one id has no table."""
    tables = MultiHotTables((40_000_000, 155), (100, 1), "uniform")
    assert tables.num_bytes(0) == 40_000_000 * 100 * 4 and tables.num_bytes(1) == 0
