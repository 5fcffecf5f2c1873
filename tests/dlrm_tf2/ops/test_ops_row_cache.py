"""A cache of rows keeps every row's values, whichever rows are in memory."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from dlrm_tf2 import ops
from dlrm_tf2.ops.row_cache import RowCache

pytestmark = pytest.mark.skipif(not ops.available(), reason=f"the op library is not built: {ops.why_unavailable()}")

FIRST, DEFAULT = 2, 1  # rows of the slab: the first slot, and the row of no key


def make(folder, *, num_rows, num_slots):
    """(the cache, its variables): 3 weights and 1 number of state a row."""
    variables = [tf.Variable(tf.zeros([FIRST + num_slots, width])) for width in (3, 1)]
    slots = range(FIRST, FIRST + num_slots)
    return RowCache("t", variables, num_rows=num_rows, slots=slots, folder=str(folder)), variables


def place(cache, rows, fresh=(), *, written=True):
    found = cache.place(tf.constant(rows, tf.int64), tf.constant(fresh, tf.int64), default_row=DEFAULT, written=written)
    return [slots.numpy() for slots in found]


def write(variables, slots, value):
    for variable in variables:
        values = tf.fill([len(slots), variable.shape[1]], float(value))
        variable.scatter_update(tf.IndexedSlices(values, tf.constant(slots, tf.int64)))


batches = st.lists(
    st.tuples(st.lists(st.integers(-1, 11), min_size=1, max_size=6), st.booleans(), st.booleans()), max_size=25
)


@settings(max_examples=60, deadline=None)
@given(num_slots=st.integers(6, 12), batches=batches)
def test_rows_have_the_values_that_were_written_last(tmp_path_factory, num_slots, batches):
    """Against a dict, with every number of slots that a batch fits into. All rows are read after each batch."""
    cache, variables = make(tmp_path_factory.mktemp("cache"), num_rows=12, num_slots=num_slots)
    expected = dict.fromkeys(range(12), 0.0)
    for number, (rows, trains, asks) in enumerate(batches, start=1):
        if asks:
            cache.ask(tf.constant(rows, tf.int64))
        fresh = sorted({row for row in rows if row >= 0 and row % 3 == 0}) if trains else []
        slots, fresh_slots = place(cache, rows, fresh, written=trains)
        for row, slot in zip(rows, slots, strict=True):
            assert slot == DEFAULT if row < 0 else FIRST <= slot < FIRST + num_slots
            if row >= 0 and row not in fresh:
                assert variables[0][slot].numpy().tolist() == [expected[row]] * 3
        assert fresh_slots.tolist() == [slots[rows.index(row)] for row in fresh]
        if trains:
            of_rows = dict(zip(rows, slots, strict=True))
            of_rows.pop(-1, None)
            write(variables, list(of_rows.values()), number)
            expected |= dict.fromkeys(of_rows, float(number))
        for variable, width in ((0, 3), (1, 1)):
            found = cache.read(np.arange(12), variable).numpy()
            np.testing.assert_array_equal(found, np.repeat([list(expected.values())], width, axis=0).T)


def test_rows_that_come_once_leave_before_rows_that_come_again(tmp_path):
    cache, variables = make(tmp_path, num_rows=9, num_slots=3)
    write(variables, place(cache, [0, 1])[0], 7)
    place(cache, [0, 2], written=False)
    assert cache.counters() == {"hits": 1, "misses": 3, "written_back": 0}
    place(cache, [5], written=False)  # row 1 leaves: it came once, before row 2
    assert cache.counters() == {"hits": 1, "misses": 4, "written_back": 1}
    place(cache, [0, 2, 0], written=False)
    assert cache.counters() == {"hits": 3, "misses": 4, "written_back": 1}
    assert cache.read(np.array([1]), 0).numpy().tolist() == [[7, 7, 7]]
    cache.write(np.array([0, 1]), 1, tf.constant([[8.0], [9.0]]))  # one in memory, one in the file
    assert cache.read(np.array([1, 0]), 1).numpy().tolist() == [[9], [8]]


def test_a_batch_that_is_too_large_is_refused_with_its_bytes_and_changes_nothing(tmp_path):
    cache, variables = make(tmp_path, num_rows=9, num_slots=3)
    write(variables, place(cache, [0, 1])[0], 7)
    message = r"table t: a batch has 4 different rows, 64 bytes with their state; .* room for 3 rows, 48 bytes"
    with pytest.raises(tf.errors.ResourceExhaustedError, match=message):
        place(cache, [0, 4, 5, -1, 6, 4])
    assert cache.read(np.arange(3), 0).numpy().tolist() == [[7] * 3, [7] * 3, [0] * 3]
    write(variables, place(cache, [4, 5, 6])[0], 3)
    assert cache.read(np.array([0, 4]), 0).numpy().tolist() == [[7] * 3, [3] * 3]
    with pytest.raises(tf.errors.InvalidArgumentError, match="found row 9, expected at most 8"):
        place(cache, [9])
