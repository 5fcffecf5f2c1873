"""Rows to columns and back, a few rows at a time, so that every cache line is fetched once."""

import numpy as np

from criteo_prep.compiled import compiled

_ROWS_AT_A_TIME = 16  # numbers of 4 bytes in a cache line


def take_columns(rows: np.ndarray, places: np.ndarray, columns: np.ndarray) -> None:
    """columns[...] = rows[:, places].T, integers of the same type; places int64 [len(columns)]."""
    _take_columns(rows, places, columns)


def put_columns(columns: np.ndarray, rows: np.ndarray, first: int) -> None:
    """rows[:, first : first + len(columns)] = columns.T, integers of the same type."""
    _put_columns(columns, rows, first)


@compiled
def _take_columns(rows, places, columns):
    count, num_rows = columns.shape
    whole = num_rows // _ROWS_AT_A_TIME * _ROWS_AT_A_TIME
    for start in range(0, whole, _ROWS_AT_A_TIME):
        for column in range(count):
            for k in range(_ROWS_AT_A_TIME):
                columns[column, start + k] = rows[start + k, places[column]]
    for row in range(whole, num_rows):
        for column in range(count):
            columns[column, row] = rows[row, places[column]]


@compiled
def _put_columns(columns, rows, first):
    count, num_rows = columns.shape
    whole = num_rows // _ROWS_AT_A_TIME * _ROWS_AT_A_TIME
    for start in range(0, whole, _ROWS_AT_A_TIME):
        for column in range(count):
            for k in range(_ROWS_AT_A_TIME):
                rows[start + k, first + column] = columns[column, start + k]
    for row in range(whole, num_rows):
        for column in range(count):
            rows[row, first + column] = columns[column, row]
