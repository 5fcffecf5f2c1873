"""Shuffled passes: every sample once, the same on every process, from any place on."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from criteo_prep.batch import Batch, Ids
from criteo_prep.feature_spec import Feature, FeatureSpec, FeatureSpecError, tf_raw_spec
from criteo_prep.transcribe.random_reads import take_samples
from criteo_prep.transcribe.sample_order import ORDERS, FullPermutation
from criteo_prep.transcribe.tf_raw import Reader, Writer

ROWS = 1000


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    """A split with one id, three ids and any number of ids a sample; cat_0 of sample k is k."""
    root = tmp_path_factory.mktemp("dataset")
    spec = tf_raw_spec([Feature("one", "int16", 2000), Feature("three", "int8", 100, 3),
                        Feature("any", "int32", 50_000, ragged=True)], num_numerical=2)  # fmt: skip
    rng = np.random.default_rng(0)
    lengths = rng.integers(0, 5, ROWS).astype(np.int32)
    categorical = {
        "cat_0": Ids(np.arange(ROWS)),
        "cat_1": Ids(rng.integers(0, 100, 3 * ROWS), np.full(ROWS, 3, np.int32)),
        "cat_2": Ids(rng.integers(0, 50_000, lengths.sum()), lengths),
    }
    names = [feature.name for feature in spec.categorical]
    categorical = dict(zip(names, categorical.values(), strict=True))
    with Writer(root, spec, "train") as writer:
        writer.write(Batch(rng.random(ROWS) < 0.3, rng.normal(size=(ROWS, 2)).astype(np.float16), categorical))
    spec.save(root / "feature_spec.yaml")
    with Reader(root, FeatureSpec.load(root / "feature_spec.yaml"), split="train") as opened:
        yield opened


def rows_of(batch):
    return next(iter(batch.categorical.values())).values


def assert_same(left, right):
    np.testing.assert_array_equal(left.label, right.label)
    np.testing.assert_array_equal(left.numerical, right.numerical)
    for name, ids in left.categorical.items():
        np.testing.assert_array_equal(ids.values, right.categorical[name].values)
        if ids.row_lengths is not None:
            np.testing.assert_array_equal(ids.row_lengths, right.categorical[name].row_lengths)


@given(rows=st.lists(st.integers(0, ROWS - 1), max_size=50))
@settings(deadline=None, max_examples=50)
def test_scattered_samples_are_those_of_the_whole(reader, rows):
    rows = np.array(rows, np.int64)
    whole = reader.read(0, ROWS)
    one_by_one = [whole.part(row, row + 1) for row in rows]
    taken = take_samples(reader, rows)
    assert_same(taken, whole.take(rows))
    for place, sample in enumerate(one_by_one):
        assert_same(taken.part(place, place + 1), sample)


@pytest.mark.parametrize("order", [*ORDERS])
def test_a_pass_has_every_sample_once_whatever_the_batches(reader, order):
    passes = {}
    for batch_size in (1000, 64, 301):
        shuffled = ORDERS[order](reader, seed=7, window=300)
        parts = [shuffled.read(0, start, min(start + batch_size, ROWS)) for start in range(0, ROWS, batch_size)]
        passes[batch_size] = np.concatenate([rows_of(part) for part in parts])
        assert_same(parts[-1], reader.read(0, ROWS).take(rows_of(parts[-1]).astype(np.int64)))
    assert sorted(passes[1000]) == list(range(ROWS))
    assert passes[64].tolist() == passes[301].tolist() == passes[1000].tolist()


def test_the_orders_differ_as_they_should(reader):
    plain, window, full = (rows_of(ORDERS[order](reader, 7, 300).read(0, 0, ROWS)) for order in ORDERS)
    assert plain.tolist() == list(range(ROWS))
    for first in range(0, ROWS, 300):
        assert sorted(window[first : first + 300]) == list(range(first, min(first + 300, ROWS)))
        assert window[first : first + 100].tolist() != sorted(window[first : first + 100])
    # Of a permutation's first 300 about 300 * 0.3 stay among the first 300 places; standard deviation below 7.
    assert 60 < np.count_nonzero(full[:300] < 300) < 120
    assert abs(np.corrcoef(full, np.arange(ROWS))[0, 1]) < 0.15
    for order in ("window", "full"):
        others = [rows_of(ORDERS[order](reader, seed, 300).read(epoch, 0, ROWS)) for seed, epoch in ((8, 0), (7, 1))]
        assert all(other.tolist() != rows.tolist() for other in others for rows in (window, full))


@given(num_samples=st.integers(1, 3000), seed=st.integers(0, 2**31))
@settings(deadline=None, max_examples=60)
def test_the_permutation_is_one_for_any_number_of_samples(num_samples, seed):
    class Counted:
        pass

    counted = Counted()
    counted.num_samples = num_samples
    assert sorted(FullPermutation(counted, seed, 0).rows(0, 0, num_samples)) == list(range(num_samples))


def damaged(tmp_path, ids, then):
    spec = tf_raw_spec([Feature("one", "int8", 7)], num_numerical=1)
    name = spec.categorical[0].name
    with Writer(tmp_path, spec, "train") as writer:
        writer.write(Batch(np.zeros(9, bool), np.zeros((9, 1), np.float16), {name: Ids(np.array(ids))}))
    opened = Reader(tmp_path, spec, split="train")
    then(spec.chunk_of("train", name).files[0])
    return opened


def test_what_is_wrong_with_a_scattered_sample_is_named(tmp_path):
    def write_nine(file):
        with open(tmp_path / file, "r+b") as changed:
            changed.seek(4)
            changed.write(bytes([9]))

    opened = damaged(tmp_path / "", [0, 1, 2, 3, 4, 5, 6, 0, 0], write_nine)
    take_samples(opened, np.array([3, 5, 8]))
    with pytest.raises(FeatureSpecError, match=r"row 4: id 9 of '.*' is not below its cardinality 7"):
        take_samples(opened, np.array([8, 4, 3]))


def test_a_file_that_shrank_is_named(tmp_path):
    def shrink(file):
        with open(tmp_path / file, "r+b") as changed:
            changed.truncate(5)

    opened = damaged(tmp_path, [0] * 9, shrink)
    take_samples(opened, np.array([4, 0]))
    with pytest.raises(FeatureSpecError, match=r"ends before row 5 does\. It shrank"):
        take_samples(opened, np.array([6, 5, 0]))
