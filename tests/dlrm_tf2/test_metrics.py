import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import log_loss as sklearn_log_loss
from sklearn.metrics import roc_auc_score

from dlrm_tf2 import metrics
from dlrm_tf2.metrics import auc_binned, auc_exact, log_loss


def logits_and_labels(num_samples, seed=0, decimals=None):
    """Labels drawn from the logits' own probabilities; rounded logits make ties."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(-2.0, 1.5, num_samples)
    labels = rng.random(num_samples) < 1 / (1 + np.exp(-logits))
    return (logits if decimals is None else logits.round(decimals)).astype(np.float32), labels


def test_auc_by_hand():
    # Pairs (positive, negative): 0.8 beats both; 0.4 ties with 0.4 and beats 0.1 -> (2 + 1.5) / 4.
    assert auc_exact(np.array([0.1, 0.4, 0.4, 0.8]), np.array([False, False, True, True])) == 0.875
    assert auc_exact(np.array([3.0, 2.0, 1.0]), np.array([1, 1, 0])) == 1.0
    assert auc_exact(np.array([1.0, 2.0, 3.0]), np.array([1, 1, 0])) == 0.0
    assert auc_exact(np.zeros(7), np.arange(7) < 2) == 0.5


@pytest.mark.parametrize("decimals", [None, 2, 0])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_auc_equals_scikit_learn(decimals, dtype):
    logits, labels = logits_and_labels(20_000, seed=1, decimals=decimals)
    scores = logits.astype(dtype)
    assert auc_exact(scores, labels) == pytest.approx(roc_auc_score(labels, scores.astype(np.float64)), abs=1e-12)


def test_auc_in_blocks_equals_auc_at_once(monkeypatch):
    logits, labels = logits_and_labels(5_000, decimals=1)
    whole = auc_exact(logits, labels), auc_binned(logits, labels, 100), log_loss(logits, labels)
    monkeypatch.setattr(metrics, "_BLOCK", 7)
    assert auc_exact(logits, labels) == whole[0]
    assert auc_binned(logits, labels, 100) == whole[1]
    assert log_loss(logits, labels) == pytest.approx(whole[2], rel=1e-13)


@settings(deadline=None, max_examples=100)
@given(st.lists(st.tuples(st.integers(-5, 5), st.booleans()), min_size=2, max_size=40))
def test_auc_equals_the_count_of_pairs(samples):
    positives = [score for score, label in samples if label]
    negatives = [score for score, label in samples if not label]
    if not positives or not negatives:
        return
    won = sum((p > n) + 0.5 * (p == n) for p in positives for n in negatives)
    found = auc_exact(np.array([score for score, _ in samples], float), np.array([label for _, label in samples]))
    assert found == pytest.approx(won / (len(positives) * len(negatives)), abs=1e-15)


@pytest.mark.parametrize("num_thresholds", [2, 3, 200, 8000])
@pytest.mark.parametrize("decimals", [None, 1])
def test_binned_auc_equals_keras(num_thresholds, decimals):
    import tensorflow as tf

    logits, labels = logits_and_labels(30_000, seed=2, decimals=decimals)
    logits[:4] = [-200.0, 200.0, 0.0, -90.0]  # probabilities 0 and 1, and a threshold exactly
    keras = tf.keras.metrics.AUC(num_thresholds=num_thresholds, from_logits=True)
    for part in range(0, len(logits), 10_000):
        keras.update_state(labels[part : part + 10_000], logits[part : part + 10_000])
    assert auc_binned(logits, labels, num_thresholds) == pytest.approx(float(keras.result()), abs=1e-6)


def test_binned_auc_by_hand():
    # Thresholds 0-, 0.5, 1+. Above 0.5: one of two positives, one of three negatives.
    logits, labels = np.array([-1.0, 1.0, -2.0, -3.0, 2.0]), np.array([True, True, False, False, False])
    below, above = 2 / 3 * (1.0 + 0.5) / 2, 1 / 3 * (0.5 + 0.0) / 2
    assert auc_binned(logits, labels, 3) == pytest.approx(below + above, abs=1e-15)


def test_log_loss_by_hand_and_against_scikit_learn():
    assert log_loss(np.zeros(3), np.array([0, 1, 1])) == pytest.approx(math.log(2), abs=1e-15)
    logits, labels = logits_and_labels(10_000)
    probability = 1 / (1 + np.exp(-logits.astype(np.float64)))
    assert log_loss(logits, labels) == pytest.approx(sklearn_log_loss(labels, probability), rel=1e-12)


def test_log_loss_of_large_logits_is_the_logit_or_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # an overflow in between would warn
        assert log_loss(np.array([1e4, -1e4]), np.array([1, 0])) == 0.0
        assert log_loss(np.array([1e4, -1e4]), np.array([0, 1])) == 1e4
        assert log_loss(np.array([60000.0], np.float16), np.array([0])) == float(np.float16(60000.0))
        assert log_loss(np.array([-50.0]), np.array([0])) == pytest.approx(math.exp(-50), rel=1e-12)


@pytest.mark.parametrize("auc", [auc_exact, lambda scores, labels: auc_binned(scores, labels, 10)])
def test_labels_of_one_class_are_nan_with_the_reason(auc):
    with pytest.warns(UserWarning, match=r"AUC is undefined: all 3 labels are 0\. It needs samples of both classes"):
        assert math.isnan(auc(np.arange(3.0), np.zeros(3, bool)))
    with pytest.warns(UserWarning, match="all 3 labels are 1"):
        assert math.isnan(auc(np.arange(3.0), np.ones(3, bool)))
    with pytest.warns(UserWarning, match="there are no samples"):
        assert math.isnan(auc(np.zeros(0), np.zeros(0, bool)))


def test_log_loss_of_nothing_is_nan_with_the_reason():
    with pytest.warns(UserWarning, match="log loss is undefined: there are no samples"):
        assert math.isnan(log_loss(np.zeros(0), np.zeros(0, bool)))


def test_misuse():
    with pytest.raises(ValueError, match=r"score 1 of 3 is nan: the model has diverged"):
        auc_exact(np.array([0.0, np.nan, 1.0]), np.array([0, 1, 0]))
    with pytest.raises(ValueError, match="is nan"):
        auc_binned(np.array([0.0, np.nan, 1.0]), np.array([0, 1, 0]), 10)
    with pytest.raises(ValueError, match=r"scores have shape \(3, 1\) and labels \(3,\); both must be \[samples\]"):
        log_loss(np.zeros((3, 1)), np.zeros(3))
    with pytest.raises(ValueError, match="auc_thresholds is 1; use 2 or more"):
        auc_binned(np.zeros(2), np.array([0, 1]), 1)
