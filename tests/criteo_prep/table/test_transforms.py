"""The transforms against hand-written values; statistics of train rows only."""

import math

import numpy as np
import pytest

from criteo_prep.schema import log_numerical
from criteo_prep.table import transforms
from criteo_prep.table.schema import Numerical
from criteo_prep.table.transforms import statistics, transformed

NAN = float("nan")


def numbers(*values):
    return np.array(values, np.float64)


def column(transform, **more):
    return Numerical("x", "x", transform, **more)


@pytest.mark.parametrize("transform, values, expected", [
    ("log1p", (0, 1, -1, -5, NAN, math.e - 1), (0, math.log(2), 0, 0, 0, 1)),
    ("none", (0.5, -2, 65504, NAN), (0.5, -2, 65504, 0)),
    ("log_shift", (-3, -2, 0, 7, NAN), (0, 0, math.log(3), math.log(10), 0)),
])  # fmt: skip
def test_values_by_hand(transform, values, expected):
    found = transformed(numbers(*values), column(transform), {})
    assert found.dtype == np.float16 and np.allclose(found, expected, rtol=1e-3)


def test_log_shift_is_the_rule_of_criteos_logs():
    values = np.random.default_rng(0).integers(-10, 10**6, 10_000).astype(np.float64)
    assert np.array_equal(transformed(values, column("log_shift"), {}), log_numerical(values, np.zeros(10_000, bool)))


def test_clip_comes_before_missing_and_missing_before_the_transform():
    each = column("log1p", clip=(0.0, 3.0), missing=9.0)
    assert np.allclose(transformed(numbers(-4, 100, NAN), each, {}), np.log1p([0, 3, 9]), rtol=1e-3)


def test_statistics_by_hand():
    blocks = [np.array([[1.0, 5.0], [2.0, NAN]]), np.array([[NAN, 7.0], [9.0, 7.0]])]
    columns = (Numerical("a", "a", "standardize", clip=(0.0, 3.0)), Numerical("b", "b", "quantile"))
    known = statistics(columns, lambda: iter(blocks), num_rows=4)
    assert known["a"]["mean"] == 2.0 and known["a"]["standard_deviation"] == pytest.approx(math.sqrt(2 / 3))
    assert known["b"] == {"num_values": 3, "limits": [5.0, 7.0, 7.0]}
    found = transformed(numbers(1, 2, 9, NAN), columns[0], known["a"])
    assert np.allclose(found, [-1 / math.sqrt(2 / 3), 0, 1 / math.sqrt(2 / 3), 0], rtol=1e-3)
    # Smaller values, and half of the equal ones.
    assert np.allclose(
        transformed(numbers(0, 5, 6, 7, 8, NAN), columns[1], known["b"]), [0, 1 / 6, 1 / 3, 2 / 3, 1, 0], 1e-3
    )


def test_a_column_with_one_value_or_none_has_no_infinite_numbers():
    columns = (Numerical("a", "a", "standardize"), Numerical("b", "b", "quantile"))
    for values in (np.full((5, 2), 3.0), np.full((5, 2), NAN)):
        known = statistics(columns, lambda: iter([values]), num_rows=5)  # noqa: B023
        for each in columns:
            assert np.isfinite(transformed(numbers(3, 4, NAN), each, known[each.feature])).all()


def test_quantiles_of_many_values_are_close_to_the_shares_of_rows(monkeypatch):
    values = np.random.default_rng(1).exponential(size=(50_000, 1))
    each = Numerical("b", "b", "quantile")
    for most, blocks in ((1 << 22, [values]), (5_000, np.array_split(values, 7))):
        monkeypatch.setattr(transforms, "MOST_VALUES", most)
        known = statistics((each,), lambda: iter(blocks), num_rows=len(values))["b"]  # noqa: B023
        assert ("every_row" in known) == (most == 5_000)
        found = transformed(values[:, 0], each, known).astype(np.float64)
        shares = np.searchsorted(np.sort(values[:, 0]), values[:, 0]) / len(values)
        assert np.abs(found - shares).max() < (0.002 if most > 5_000 else 0.03)
