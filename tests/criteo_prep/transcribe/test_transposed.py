"""Rows as columns and back, against numpy's transposition."""

import numpy as np
import pytest

from criteo_prep.transcribe.transposed import put_columns, take_columns


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
@pytest.mark.parametrize("rows, first, count", [(0, 0, 3), (1, 2, 3), (15, 0, 5), (16, 1, 1), (50, 1, 4)])
def test_there_and_back(dtype, rows, first, count):
    table = np.random.default_rng(0).integers(-9, 99, (rows, 5)).astype(dtype)
    columns = np.full((count, rows), 7, dtype)
    take_columns(table, np.arange(first, first + count), columns)
    assert columns.tolist() == table[:, first : first + count].T.tolist()
    again = np.full_like(table, 7)
    put_columns(columns, again, first)
    expected = np.full_like(table, 7)
    expected[:, first : first + count] = columns.T
    assert again.tolist() == expected.tolist()


def test_columns_in_any_order():
    table = np.random.default_rng(0).integers(-9, 99, (37, 5)).astype(np.int32)
    columns = np.empty((3, 37), np.int32)
    take_columns(table, np.array([4, 0, 2]), columns)
    assert columns.tolist() == table[:, [4, 0, 2]].T.tolist()
