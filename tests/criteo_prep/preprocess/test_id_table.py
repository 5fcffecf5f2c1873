"""Values to ids by a vocabulary."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from criteo_prep.preprocess.columns.id_table import IdTable


def table(values, cap=None):
    values = np.array(values, np.uint32)
    return IdTable(lambda: [values[:3], values[3:]], len(values), cap)


def test_ids_by_hand():
    ids = table([7, 0, 0xFFFFFFFF]).encode(np.array([0xFFFFFFFF, 7, 0, 0, 8, 0], np.uint32), np.array([2]))
    assert ids.tolist() == [3, 1, 2, 0, 0, 0]  # the value 0 has an id, a missing value and an unseen one have none


def test_an_empty_vocabulary_gives_id_0():
    ids = table([]).encode(np.array([0, 1, 0xFFFFFFFF], np.uint32), np.array([0]))
    assert ids.tolist() == [0, 0, 0] and ids.dtype == np.int8


@pytest.mark.parametrize(
    "kept, dtype", [(0, "int8"), (125, "int8"), (126, "int16"), (32765, "int16"), (32766, "int32"), (100_000, "int32")]
)
def test_ids_have_the_published_dtype_and_fit_it(kept, dtype):
    """Cardinality is kept + 1, and must be strictly below the dtype's maximum."""
    values = np.arange(kept, dtype=np.uint32) * np.uint32(3)
    ids = table(values).encode(values, np.arange(min(kept, 1)))
    assert ids.dtype == np.dtype(dtype)
    assert np.array_equal(ids, np.arange(1, kept + 1))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 2**32 - 1) | st.integers(0, 20), unique=True), st.data())
def test_ids_in_plain_python(kept, data):
    asked = data.draw(st.lists(st.tuples(st.sampled_from([*kept, 0, 5, 2**32 - 1]), st.booleans())))
    ids_of = {value: position for position, value in enumerate(kept, 1)}
    values = np.array([0 if missing else value for value, missing in asked], np.uint32)
    zero_rows = np.array([row for row, (value, missing) in enumerate(asked) if value == 0 and not missing], np.int64)
    ids = table(kept).encode(values, zero_rows)
    assert ids.tolist() == [0 if missing else ids_of.get(value, 0) for value, missing in asked]
