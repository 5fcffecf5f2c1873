"""Rows as columns and back, a few rows at a time, so that every line of the cache is fetched once."""

import numpy as np

from criteo_prep.compiled import compiled

_TOGETHER = 16  # numbers of 4 bytes in a line of the cache


def take_columns(rows: np.ndarray, first: int, columns: np.ndarray) -> None:
    """columns[...] = rows[:, first : first + len(columns)].T, integers of the same type."""
    _take_apart(rows, first, columns)


def put_columns(columns: np.ndarray, rows: np.ndarray, first: int) -> None:
    """rows[:, first : first + len(columns)] = columns.T, integers of the same type."""
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
