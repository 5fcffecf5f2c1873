"""Rows as columns and back, a few rows at a time, so that every line of the cache is fetched once."""

import numpy as np

from criteo_prep.compiled import compiled

_TOGETHER = 16  # numbers of 4 bytes in a line of the cache


def columns_of(rows: np.ndarray, first: int, count: int) -> np.ndarray:
    """rows[:, first : first + count].T, contiguous, of integers [n, width], contiguous."""
    columns = np.empty((count, len(rows)), rows.dtype)
    _take_apart(rows, first, columns)
    return columns


def put_columns(columns: np.ndarray, rows: np.ndarray, first: int) -> None:
    """rows[:, first : first + len(columns)] = columns.T; both contiguous and of the same type."""
    _put_together(columns, rows, first)


@compiled
def _take_apart(rows, first, columns):
    count, n = columns.shape
    whole = n // _TOGETHER * _TOGETHER
    for start in range(0, whole, _TOGETHER):
        for column in range(count):
            for k in range(_TOGETHER):
                columns[column, start + k] = rows[start + k, first + column]
    for row in range(whole, n):
        for column in range(count):
            columns[column, row] = rows[row, first + column]


@compiled
def _put_together(columns, rows, first):
    count, n = columns.shape
    whole = n // _TOGETHER * _TOGETHER
    for start in range(0, whole, _TOGETHER):
        for column in range(count):
            for k in range(_TOGETHER):
                rows[start + k, first + column] = columns[column, start + k]
    for row in range(whole, n):
        for column in range(count):
            rows[row, first + column] = columns[column, row]
