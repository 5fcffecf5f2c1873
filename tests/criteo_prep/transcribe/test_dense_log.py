"""The table of logarithms against the rule itself."""

import numpy as np
import pytest

from criteo_prep.schema import log_numerical
from criteo_prep.transcribe.dense_log import log_of


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "int32", "uint32", "int64"])
def test_integers(dtype):
    limits = np.iinfo(dtype)
    edges = [limits.min, limits.min + 1, -4, -3, -2, -1, 0, 1, 127, 32764, 32765, 70_000, limits.max - 1, limits.max]
    numbers = np.array([n for n in edges if limits.min <= n <= limits.max] * 2, dtype).reshape(2, -1)
    assert log_of(numbers).tolist() == log_numerical(numbers, np.zeros(numbers.shape, bool)).tolist()


def test_every_small_integer():
    numbers = np.arange(-40_000, 40_000, dtype=np.int32)
    assert np.array_equal(log_of(numbers), log_numerical(numbers, np.zeros(numbers.shape, bool)))


def test_by_hand():
    assert log_of(np.array([-3, -2, 0, 2**31 - 1])).tolist() == [0, 0, np.float16(np.log(3)), np.float16(21.4875626)]
    assert log_of(np.array([[0.5, -3.0, -7.5]], np.float32)).tolist() == [[np.float16(np.log(3.5)), 0, 0]]
