import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from criteo_prep import schema


def test_names():
    assert schema.NUMERICAL[0] == "num_0" and schema.NUMERICAL[12] == "num_12" and len(schema.NUMERICAL) == 13
    assert schema.CATEGORICAL[0] == "cat_0" and schema.CATEGORICAL[25] == "cat_25" and len(schema.CATEGORICAL) == 26


def test_the_numerical_rule_by_hand():
    values = np.array([0, 1, -1, -2, -3, -4, 5, 2**31 - 1, -(2**62)])
    missing = np.array([False] * 6 + [True] + [False] * 2)
    expected = [math.log(3), math.log(4), math.log(2), 0.0, 0.0, 0.0, 0.0, math.log(2**31 + 2), 0.0]
    found = schema.log_numerical(values, missing)
    assert found.dtype == np.float16
    np.testing.assert_array_equal(found, np.array(expected, np.float16))


@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.uint8, np.float32, np.float64])
def test_the_numerical_rule_takes_any_number(dtype):
    found = schema.log_numerical(np.array([[0, 97]], dtype), np.zeros((1, 2), bool))
    np.testing.assert_array_equal(found, np.array([[math.log(3), math.log(100)]], np.float16))


@pytest.mark.filterwarnings("error")
def test_what_stands_under_a_missing_mark_does_not_count():
    values = np.array([np.nan, np.inf, -np.inf, -1e300])
    np.testing.assert_array_equal(schema.log_numerical(values, np.ones(4, bool)), np.zeros(4, np.float16))


@pytest.mark.parametrize(
    "name, number",
    [
        ("day_0", 0),
        ("day_23", 23),
        ("day_7.gz", 7),
        ("/a/b/day_11.tsv.gz", 11),
        ("day_03.tsv", 3),
        ("day_4.00", 4),
        ("day_4.1.tsv.gz", 4),
        ("day_5.parquet", 5),
        ("day_5.csv.zst", 5),
        ("day_3.tmp", None),
        ("day_0.npz", None),
        ("day_0.gz.md5", None),
        ("day_0.gz.tsv", None),
        ("day_", None),
        ("day_1_2", None),
        ("my_day_1", None),
        ("train.txt", None),
        ("day_1.", None),
        ("day_x", None),
    ],
)
def test_day_numbers(name, number):
    assert schema.day_number(name) == schema.day_number(Path(name)) == number


def test_natural_order():
    names = ["day_10", "day_2", "day_1.gz", "b", "a10b2", "a10b10", "a9", "", "²", "1²"]
    assert sorted(names, key=schema.natural_key) == [
        "",
        "1²",
        "a9",
        "a10b2",
        "a10b10",
        "b",
        "day_1.gz",
        "day_2",
        "day_10",
        "²",
    ]


def test_the_last_day_is_halved_with_an_odd_row_to_test():
    assert schema.split_rows_of_last_day(178_274_637) == (89_137_319, 89_137_318)
    assert [schema.split_rows_of_last_day(n) for n in range(4)] == [(0, 0), (1, 0), (1, 1), (2, 1)]


def test_one_file_keeps_its_end_for_test():
    assert schema.split_rows_of_one_file(1999, 0.1) == (1800, 199)
    assert schema.split_rows_of_one_file(10, 0.1) == (9, 1)  # 10 * 0.1 is exactly one
    assert schema.split_rows_of_one_file(9, 0.1) == (9, 0)
    assert schema.split_rows_of_one_file(100, 0.29) == (71, 29)  # in float64, 100 * 0.29 is 28.999999999999996
    assert schema.split_rows_of_one_file(100, np.float64(0.29)) == (71, 29)
    assert schema.split_rows_of_one_file(5, 0) == (5, 0) and schema.split_rows_of_one_file(5, 1.0) == (0, 5)


@given(st.integers(0, 10**12), st.integers(0, 1000))
def test_one_file_splits_into_all_its_rows(num_rows, thousandths):
    train, test = schema.split_rows_of_one_file(num_rows, thousandths / 1000)
    assert train + test == num_rows and test == num_rows * thousandths // 1000
