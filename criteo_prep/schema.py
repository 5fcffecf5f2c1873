"""What a row of Criteo's logs is: names, days, splits, and the rule for numericals.

A row has one label (0 or 1), 13 integers and 26 categorical values. A value is a 32-bit hash, printed in hexadecimal.
Any integer and any value may be missing.

Source: the Criteo Display Advertising Challenge and the Criteo 1TB click logs have this form. The split and numerical
rules come from NVIDIA's DLRM preprocessing, unless a function names another source.
"""

import re
from fractions import Fraction
from pathlib import Path

import numpy as np

NUM_NUMERICAL = 13
NUM_CATEGORICAL = 26
LABEL = "label"
NUMERICAL = tuple(f"num_{i}" for i in range(NUM_NUMERICAL))
CATEGORICAL = tuple(f"cat_{i}" for i in range(NUM_CATEGORICAL))
SPLITS = ("train", "test", "validation")

NUMERICAL_RULE = "log(x + 3) as float16; missing -> 0.0 after the log; x <= -3 -> 0.0"


def log_numerical(values: np.ndarray, missing: np.ndarray) -> np.ndarray:
    """The numerical rule: log(x + 3), and 0.0 where x is missing or x <= -3.

    Args:
      values: integers or floats of any shape.
      missing: bool of the same shape; True where the value is missing, for any content of `values`.

    Returns:
      float16 of the same shape.

    Source: NVIDIA's spark_data_utils.py (its documentation says x + 2; the code and the published accuracy use x + 3).
    """
    defined = ~missing & (values > -3)
    shifted = np.where(defined, values.astype(np.float64), -2.0) + 3.0
    return np.log(shifted).astype(np.float16)


def day_number(path: str | Path) -> int | None:
    """The N of a file named `day_N`, or `day_N.K` for piece K of the day; None for another name.

    Endings are .tsv, .txt or .csv, then .gz or .zst; or .parquet. A name with another ending is not the name of a day.
    """
    match = re.fullmatch(r"day_(\d+)(\.\d+)?((\.tsv|\.txt|\.csv)?(\.gz|\.zst)?|\.parquet)", Path(path).name)
    return int(match.group(1)) if match else None


def natural_key(path: str | Path) -> list:
    """Sort key for natural order: day_2 before day_10."""
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in re.split(r"(\d+)", str(path)) if part]


def split_rows_of_last_day(num_rows: int) -> tuple[int, int]:
    """Numbers of rows of (test, validation) in the evaluation day: the first half is test, an odd row goes to test.

    Source: HugeCTR and MLPerf; both have 89,137,319 test rows for the full day 23.
    """
    num_test = (num_rows + 1) // 2
    return num_test, num_rows - num_test


def split_rows_of_one_file(num_rows: int, test_fraction: float) -> tuple[int, int]:
    """Numbers of rows of (train, test) when one file holds all rows: the last floor(n * test_fraction) rows are test.

    The fraction means its decimal digits (0.1 is exactly one tenth), so the rule is exact for any n.
    """
    num_test = int(num_rows * Fraction(str(test_fraction)))
    return num_rows - num_test, num_test
