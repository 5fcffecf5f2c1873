"""A spec with ids of every width, and samples of it, for the tests of tf_raw."""

import numpy as np

from criteo_prep.batch import Batch, Ids
from criteo_prep.feature_spec import Feature, tf_raw_spec
from criteo_prep.transcribe.tf_raw import Writer

CARDINALITIES = {"cat_0": 126, "cat_1": 127, "cat_2": 128, "cat_3": 32766, "cat_4": 32767, "cat_5": 40_000}
SPEC = tf_raw_spec([Feature(name, "", cardinality) for name, cardinality in CARDINALITIES.items()], num_numerical=3)


def batch_of(num_samples, seed=0, first_ids=()):
    """Random samples; the first ones have the ids `first_ids`, the last one the largest id of each feature."""
    rng = np.random.default_rng(seed)
    categorical = {}
    for name, cardinality in CARDINALITIES.items():
        ids = rng.integers(0, cardinality, num_samples)
        ids[: len(first_ids)] = first_ids
        ids[-1:] = cardinality - 1
        categorical[name] = Ids(ids)
    return Batch(rng.random(num_samples) < 0.5, rng.normal(size=(num_samples, 3)).astype(np.float16), categorical)


def write(root, *batches, split="train", spec=SPEC):
    with Writer(root, spec, split) as writer:
        for batch in batches:
            writer.write(batch)
    return writer


def assert_equal(found, expected):
    np.testing.assert_array_equal(found.label, expected.label)
    np.testing.assert_array_equal(found.numerical, expected.numerical)
    assert list(found.categorical) == list(expected.categorical)
    for name, ids in expected.categorical.items():
        np.testing.assert_array_equal(found.categorical[name].values, ids.values)
    assert (found.label.dtype, found.numerical.dtype) == (np.bool_, np.float16)
    assert all(ids.values.dtype == np.int32 and ids.row_lengths is None for ids in found.categorical.values())
