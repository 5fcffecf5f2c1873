"""First values of rows made by the native op: against numpy, their moments, and that only the key counts."""

import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf

from criteo_prep.splitmix64 import GAMMA
from dlrm_tf2 import ops
from dlrm_tf2.ops.embedding_rows import SlabVariables
from dlrm_tf2.ops.hash_table import Initializer, initialize_rows
from dlrm_tf2.sharding.buckets import hash_of

pytestmark = pytest.mark.skipif(not ops.available(), reason=f"the op library is not built: {ops.why_unavailable()}")


def mix64(bits):
    return hash_of(bits.view(np.int64).ravel()).reshape(bits.shape)


def made(keys, initializer, width=16, seed=5, rows=None, dtype=tf.float32):
    """The rows of some keys, float32 [n, width]."""
    rows = np.arange(len(keys)) if rows is None else rows
    weights = tf.Variable(tf.zeros([len(keys) + 1, width], dtype))
    initialize_rows(
        SlabVariables(weights, [], []), rows, keys=keys, initializer=initializer, seed=seed, initial_state=[]
    )
    assert not np.any(tf.cast(weights, tf.float32)[len(keys)]) or len(keys) in rows
    return tf.cast(weights, tf.float32).numpy()[rows]


def twin(keys, initializer, width=16, seed=5):
    stream = mix64(hash_of(keys) ^ hash_of(np.array([seed])))[:, None]
    column = np.arange(width, dtype=np.uint64)[None]
    low, high = np.float32(initializer.low_or_mean), np.float32(initializer.high_or_std)
    if initializer.kind == "uniform":
        bits = mix64(stream + (column + np.uint64(1)) * GAMMA) >> np.uint64(40)
        return low + (high - low) * (bits.astype(np.float32) * np.float32(2**-24))

    def normal(place):
        u, v = (
            (mix64(stream + (np.uint64(2) * place + np.uint64(i)) * GAMMA) >> np.uint64(11)) * 2.0**-53 for i in (1, 2)
        )
        return np.sqrt(-2 * np.log(1 - u)) * np.cos(2 * np.pi * v)

    z, place = normal(column), column
    while initializer.kind == "truncated_normal" and np.any(np.abs(z) > 2):
        place = place + np.uint64(1 << 32)
        z = np.where(np.abs(z) > 2, normal(place), z)
    return (low + high * z).astype(np.float32)


@pytest.mark.parametrize("kind", ["uniform", "normal", "truncated_normal"])
def test_values_are_numpys(kind):
    keys = np.concatenate([np.arange(-300, 300), [np.iinfo(np.int64).min, np.iinfo(np.int64).max]])
    initializer = Initializer(kind, -0.25, 0.5)
    found, wanted = made(keys, initializer), twin(keys, initializer)
    if kind == "uniform":
        assert np.array_equal(found, wanted)
    np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-7)


def test_golden_values():
    """mix64(0) is 0, so the stream of key 0 and seed 0 is 0, and its bits are SplitMix64's outputs for seed 0."""
    outputs = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    wanted = [np.float32(output >> 40) / 2**24 for output in outputs]
    assert made(np.array([0]), Initializer("uniform", 0.0, 1.0), width=3, seed=0)[0].tolist() == wanted
    assert np.all(made(np.arange(5), Initializer("constant", 0.75)) == np.float32(0.75))


@pytest.mark.parametrize("kind, mean, deviation", [
    ("uniform", 1.0, 2 / np.sqrt(12)),  # from 0 to 2
    ("normal", 0.0, 2.0),
    ("truncated_normal", 0.0, 2 * 0.879626),  # of the normal distribution cut at 2 standard deviations
])  # fmt: skip
def test_moments(kind, mean, deviation):
    values = made(np.arange(20_000), Initializer(kind, 0.0, 2.0)).astype(np.float64)
    within = 5 * deviation / np.sqrt(values.size)
    assert abs(values.mean() - mean) < within and abs(values.std() - deviation) < within
    if kind != "normal":
        assert np.abs(values).max() <= (2 if kind == "uniform" else 4)
    of_columns = np.corrcoef(values, rowvar=False) - np.eye(16)
    assert np.abs(of_columns).max() < 5 / np.sqrt(len(values))


def test_only_key_and_seed_count():
    keys, initializer = np.arange(5000) * 31, Initializer("normal", 0.0, 1.0)
    first, order = made(keys, initializer), np.random.default_rng(0).permutation(5000)
    again = made(keys[order], initializer, rows=np.random.default_rng(1).permutation(5001)[:5000])
    assert np.array_equal(first[order], again)
    assert np.array_equal(made(keys[:10], initializer, width=3), first[:10, :3])
    assert not np.any(made(keys[:10], initializer, seed=6) == first[:10])


def test_bfloat16_is_the_nearest():
    keys, initializer = np.arange(500), Initializer("uniform", -1.0, 1.0)
    wanted = made(keys, initializer).astype(ml_dtypes.bfloat16).astype(np.float32)
    assert np.array_equal(made(keys, initializer, dtype=tf.bfloat16), wanted)


def test_state_of_the_optimizer():
    weights = tf.Variable(tf.ones([6, 4]))
    slots = [tf.Variable(tf.ones([6, 4])), tf.Variable(tf.ones([6]))]
    initialize_rows(
        SlabVariables(weights, slots, []), tf.constant([4, 1], tf.int64), keys=tf.constant([9, 8], tf.int64),
        initializer=Initializer("constant", 0.5), seed=0, initial_state=[0.25, 0.0],
    )  # fmt: skip
    for variable, value in zip([weights, *slots], (0.5, 0.25, 0.0), strict=True):
        of_rows = variable.numpy().reshape(6, -1)
        assert np.all(of_rows[[1, 4]] == value) and np.all(of_rows[[0, 2, 3, 5]] == 1)


def test_arguments_that_do_not_fit():
    weights = tf.Variable(tf.zeros([6, 4]))
    slab, initializer = SlabVariables(weights, [], []), Initializer("constant", 1.0)
    one, rest = tf.constant([6], tf.int64), {"seed": 0, "initial_state": []}
    with pytest.raises(tf.errors.InvalidArgumentError, match="found 6, expected rows from 0 to 5"):
        initialize_rows(slab, one, keys=one, initializer=initializer, **rest)
    with pytest.raises(tf.errors.InvalidArgumentError, match="found 1 for 2 keys"):
        initialize_rows(slab, one, keys=tf.constant([1, 2], tf.int64), initializer=initializer, **rest)
    with pytest.raises(tf.errors.InvalidArgumentError, match="found 1 numbers for 0 slots"):
        initialize_rows(slab, one, keys=one, initializer=initializer, seed=0, initial_state=[0.0])
    with pytest.raises(ValueError, match="found ones"):
        initialize_rows(slab, one, keys=one, initializer=Initializer("ones", 1.0), **rest)
    assert not np.any(weights)
