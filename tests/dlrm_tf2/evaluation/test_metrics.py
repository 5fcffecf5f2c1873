import math
import tracemalloc
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import log_loss as sklearn_log_loss
from sklearn.metrics import roc_auc_score

from dlrm_tf2.evaluation import auc
from dlrm_tf2.evaluation.auc import BinnedAuc, ExactAuc
from dlrm_tf2.evaluation.metrics import NotFinite, Tally
from dlrm_tf2.runtime.comm import SingleProcess


def logits_and_labels(num_samples, seed=0, decimals=None, rate_logit=-2.0):
    """Labels drawn from the logits' own probabilities; rounded logits make ties."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(rate_logit, 1.5, num_samples)
    labels = rng.random(num_samples) < 1 / (1 + np.exp(-logits))
    return (logits if decimals is None else logits.round(decimals)).astype(np.float32), labels


def evaluated(logits, labels, comm=None, parts=1, num_thresholds=None):
    """The metrics of samples that come in some batches."""
    logits, labels = np.asarray(logits, np.float32), np.asarray(labels, bool)
    tally = Tally(ExactAuc(len(logits)) if num_thresholds is None else BinnedAuc(num_thresholds))
    for part in range(parts):
        tally.add(logits[part::parts], labels[part::parts])
    return tally.evaluation(comm or SingleProcess())


def test_auc_by_hand():
    # Pairs (positive, negative): 0.8 beats both; 0.4 ties with 0.4 and beats 0.1 -> (2 + 1.5) / 4.
    assert evaluated([0.1, 0.4, 0.4, 0.8], [0, 0, 1, 1]).auc == 0.875
    assert evaluated([3.0, 2.0, 1.0], [1, 1, 0]).auc == 1.0
    assert evaluated([1.0, 2.0, 3.0], [1, 1, 0]).auc == 0.0
    assert evaluated(np.zeros(7), np.arange(7) < 2).auc == 0.5


@pytest.mark.parametrize("rate_logit", [-4.0, 0.0, 4.0])  # the positives are the fewer, about as many, and the more
@pytest.mark.parametrize("decimals", [None, 2, 0])
@pytest.mark.parametrize("block", [7, 1 << 18])
def test_all_metrics_equal_scikit_learn(monkeypatch, decimals, rate_logit, block):
    monkeypatch.setattr(auc, "_BLOCK", block)
    logits, labels = logits_and_labels(5_000, seed=1, decimals=decimals, rate_logit=rate_logit)
    found = evaluated(logits, labels, parts=9)
    probability, rate = 1 / (1 + np.exp(-logits.astype(np.float64))), labels.mean()
    assert found.auc == pytest.approx(roc_auc_score(labels, logits), abs=1e-14)
    assert found.loss == pytest.approx(sklearn_log_loss(labels, probability), rel=1e-12)
    base = sklearn_log_loss(labels, np.full(len(labels), rate))
    assert found.normalized_entropy == pytest.approx(sklearn_log_loss(labels, probability) / base, rel=1e-12)
    assert found.calibration == pytest.approx(probability.mean() / rate, rel=1e-12)
    assert found.num_samples == 5_000


@settings(deadline=None, max_examples=100)
@given(st.lists(st.tuples(st.integers(-5, 5), st.booleans()), min_size=2, max_size=40))
def test_auc_equals_the_count_of_pairs(samples):
    positives = [score for score, label in samples if label]
    negatives = [score for score, label in samples if not label]
    if not positives or not negatives:
        return
    won = sum((p > n) + 0.5 * (p == n) for p in positives for n in negatives)
    assert evaluated(*zip(*samples, strict=True)).auc == won / (len(positives) * len(negatives))


@pytest.mark.parametrize("world_size", [1, 2, 3, 7])
@pytest.mark.parametrize("num_thresholds", [None, 50])
@pytest.mark.parametrize("num_samples, rate_logit", [(5, 0.0), (4_001, -3.0), (4_001, 3.0)])
def test_any_number_of_ranks_finds_the_same(
    run_ranks, monkeypatch, world_size, num_thresholds, num_samples, rate_logit
):
    """Uneven shares, up to a rank with 3 samples in 4; of 5 samples, some ranks have none."""
    monkeypatch.setattr(auc, "_BLOCK", 100)
    logits, labels = logits_and_labels(num_samples, seed=3, decimals=1, rate_logit=rate_logit)
    alone = evaluated(logits, labels, num_thresholds=num_thresholds)
    assert alone.auc is not None
    bounds = np.sort(np.random.default_rng(world_size).integers(0, num_samples // 4 + 1, world_size - 1))

    def of_rank(comm):
        part = slice(*[0, *bounds, num_samples][comm.rank : comm.rank + 2])
        return evaluated(logits[part], labels[part], comm, 2, num_thresholds)

    for found in run_ranks(world_size, of_rank):
        assert (found.auc, found.num_samples) == (alone.auc, num_samples)
        assert found.loss == pytest.approx(alone.loss, rel=1e-13)
        assert found.normalized_entropy == pytest.approx(alone.normalized_entropy, rel=1e-13)
        assert found.calibration == pytest.approx(alone.calibration, rel=1e-13)


@pytest.mark.parametrize("num_thresholds", [2, 3, 200, 8000])
@pytest.mark.parametrize("decimals", [None, 1])
def test_binned_auc_equals_keras(num_thresholds, decimals):
    import tensorflow as tf

    logits, labels = logits_and_labels(30_000, seed=2, decimals=decimals)
    logits[:4] = [-200.0, 200.0, 0.0, -90.0]  # probabilities 0 and 1, and a threshold exactly
    keras = tf.keras.metrics.AUC(num_thresholds=num_thresholds, from_logits=True)
    for part in range(0, len(logits), 10_000):
        keras.update_state(labels[part : part + 10_000], logits[part : part + 10_000])
    found = evaluated(logits, labels, parts=3, num_thresholds=num_thresholds).auc
    assert found == pytest.approx(float(keras.result()), abs=1e-6)


def test_binned_auc_by_hand():
    # Thresholds 0-, 0.5, 1+. Above 0.5: one of two positives, one of three negatives.
    below, above = 2 / 3 * (1.0 + 0.5) / 2, 1 / 3 * (0.5 + 0.0) / 2
    found = evaluated([-1.0, 1.0, -2.0, -3.0, 2.0], [1, 1, 0, 0, 0], num_thresholds=3).auc
    assert found == pytest.approx(below + above, abs=1e-15)


@pytest.mark.parametrize("num_thresholds, bytes_a_sample", [(None, 4), (8000, 0)])
def test_memory_is_that_of_the_kept_scores_and_of_a_block(monkeypatch, num_thresholds, bytes_a_sample):
    """Scores of one rank; the blocks that go round are the same however many samples there are."""
    monkeypatch.setattr(auc, "_BLOCK", 1 << 12)
    batch, batches = 1 << 12, 256
    logits, labels = logits_and_labels(batch, rate_logit=0.0)
    tracemalloc.start()
    try:
        tally = Tally(ExactAuc(batch * batches) if num_thresholds is None else BinnedAuc(num_thresholds))
        for _ in range(batches):
            tally.add(logits, labels)
        assert 0.5 < tally.evaluation(SingleProcess()).auc < 1
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    kept = bytes_a_sample * batch * batches
    assert kept <= peak < kept + (1 << 20)


def test_by_hand_with_logits_of_no_knowledge():
    found = evaluated(np.zeros(4), [0, 1, 1, 1])
    assert found.loss == pytest.approx(math.log(2), abs=1e-15)
    assert found.normalized_entropy == pytest.approx(math.log(2) / -(0.75 * math.log(0.75) + 0.25 * math.log(0.25)))
    assert found.calibration == pytest.approx(0.5 / 0.75)
    assert found.record() == {
        "auc": 0.5, "test_loss": found.loss, "normalized_entropy": found.normalized_entropy,
        "calibration": found.calibration, "num_samples": 4,
    }  # fmt: skip
    assert found.line() == (
        "AUC 0.500000, test loss 0.693147, normalised entropy 1.232623, calibration 0.666667, 4 samples"
    )


def test_large_logits_cost_their_size_or_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # an overflow in between would warn
        assert evaluated([1e4, -1e4], [1, 0]).loss == 0.0
        assert evaluated([1e4, -1e4], [0, 1]).loss == 1e4
        assert evaluated([-50.0], [0]).loss == pytest.approx(math.exp(-50), rel=1e-12)
        assert evaluated([3e38, -3e38], [1, 0]).calibration == 1.0


@pytest.mark.parametrize("num_thresholds", [None, 10])
def test_labels_of_one_class_leave_undefined_what_needs_both(run_ranks, num_thresholds):
    def of_rank(label):
        return lambda comm: evaluated(np.arange(3.0), np.full(3, label), comm, num_thresholds=num_thresholds)

    for found in run_ranks(2, of_rank(0)):
        assert (found.auc, found.normalized_entropy, found.calibration) == (None, None, None) and found.loss > 0
        assert "AUC undefined" in found.line() and "calibration undefined" in found.line()
    for found in run_ranks(2, of_rank(1)):
        assert (found.auc, found.normalized_entropy) == (None, None) and 0.5 < found.calibration < 1


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("num_thresholds", [None, 10])
def test_a_logit_that_is_no_number_on_one_rank_is_an_error_on_all(run_ranks, bad, num_thresholds):
    def of_rank(comm):
        logits = np.array([0.0, bad if comm.rank == 1 else 1.0])
        return evaluated(logits, [0, 1], comm, num_thresholds=num_thresholds)

    for error in run_ranks(3, of_rank):
        assert isinstance(error, NotFinite)
        assert str(error).startswith("1 of the logits of 6 samples are nan or infinite: the model has diverged.")
