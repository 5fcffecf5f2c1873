import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from criteo_prep.batch import Batch, Ids, rebatch
from criteo_prep.feature_spec import Feature, FeatureSpecError
from criteo_prep.transcribe.checks import check_ids


def test_ids_count_samples_not_values():
    assert Ids(np.arange(5)).num_samples == 5
    assert Ids(np.arange(5), np.array([2, 0, 3], np.int32)).num_samples == 3


def test_a_batch_counts_by_whatever_it_holds():
    ids = {"cat_0": Ids(np.arange(5), np.array([5], np.int32))}
    assert Batch(np.zeros(4, bool), None, {}).num_samples == 4
    assert Batch(None, np.zeros((3, 13), np.float16), {}).num_samples == 3
    assert Batch(None, None, ids).num_samples == 1
    assert Batch(None, None, {}).num_samples == 0


def test_the_sample_of_a_value():
    ids = Ids(np.arange(5), np.array([2, 0, 3], np.int32))
    assert [ids.sample_of(place) for place in range(5)] == [0, 0, 2, 2, 2]
    assert Ids(np.arange(5)).sample_of(3) == 3


@given(st.lists(st.integers(0, 5), max_size=20), st.integers(1, 12), st.data())
def test_batches_of_another_size_hold_the_same_samples(lengths, batch_size, data):
    """Whatever pieces come in: all batches but the last are full, and nothing changes place."""
    rows = len(lengths)
    values = np.arange(sum(lengths))
    whole = Batch(np.arange(rows) % 2 == 0, np.arange(rows * 2).reshape(rows, 2), {
        "a": Ids(np.arange(rows)), "b": Ids(values, np.array(lengths, np.int32))})  # fmt: skip
    cuts = sorted(data.draw(st.sets(st.integers(0, rows))) | {0, rows})
    batches = list(rebatch(map(whole.part, cuts, cuts[1:]), batch_size))
    assert [batch.num_samples for batch in batches] == [
        min(batch_size, rows - start) for start in range(0, rows, batch_size)
    ]
    for i, batch in enumerate(batches):
        first = i * batch_size
        assert batch.categorical["a"].values.tolist() == list(range(first, first + batch.num_samples))
        assert batch.numerical.tolist() == whole.numerical[first : first + batch_size].tolist()
        assert batch.label.tolist() == whole.label[first : first + batch_size].tolist()
        before = sum(lengths[:first])
        expected = lengths[first : first + batch_size]
        assert batch.categorical["b"].row_lengths.tolist() == expected
        assert batch.categorical["b"].values.tolist() == list(range(before, before + sum(expected)))


@pytest.mark.parametrize("dtype", ["int8", "int16", "int32", "int64"])
def test_a_negative_id_is_found_however_many_ids_there_may_be(dtype):
    feature = Feature("user", "int64", 5_000_000_000)
    check_ids(Ids(np.array([0, 127], dtype)), feature, path="ids.npy", first_row=10)
    with pytest.raises(FeatureSpecError, match="row 12"):
        check_ids(Ids(np.array([0, 127, -1], dtype)), feature, path="ids.npy", first_row=10)
