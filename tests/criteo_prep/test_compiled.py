"""Compiled functions where machine code cannot be cached."""

import numba
import pytest

from criteo_prep.compiled import compiled


def test_without_a_place_for_the_cache():
    """A function without a source file has none, as one in an install where no folder can be written."""
    names = {}
    exec("def double(x):\n    return 2 * x", names)
    with pytest.raises(RuntimeError, match="cannot cache"):
        numba.njit(cache=True)(names["double"])
    assert compiled(names["double"])(21) == 42
