"""What evaluation reports: AUC, exact or in bins, and log loss. numpy only; memory is a small multiple of the scores.

All take one score and one label a sample, in any order. Where a metric is not defined (no samples, or labels of one
class only) the result is nan and a warning says why.
"""

import warnings

import numpy as np

_BLOCK = 1 << 20  # samples at a time, so that temporaries stay small


def auc_exact(scores: np.ndarray, labels: np.ndarray) -> float:
    """Area under the ROC curve: the chance that a positive scores above a negative, ties counted half.

    Args:
      scores: [n], any float type; logits and probabilities give the same, as long as the latter do not saturate.
      labels: [n], bool or 0 and 1.

    Returns:
      AUC in [0, 1]; nan if there are not both classes.

    Raises:
      ValueError: the shapes differ, or a score is nan.
    """
    scores, labels = _checked(scores, labels)
    positives, negatives = np.sort(scores[labels]), np.sort(scores[~labels])
    if not _both_classes(len(positives), len(negatives)):
        return float("nan")
    twice_won = 0  # of all pairs; a Python integer, hence exact
    for start in range(0, len(positives), _BLOCK):
        block = positives[start : start + _BLOCK]
        twice_won += int(np.searchsorted(negatives, block, "left").sum())
        twice_won += int(np.searchsorted(negatives, block, "right").sum())
    return twice_won / (2 * len(positives) * len(negatives))


def auc_binned(logits: np.ndarray, labels: np.ndarray, num_thresholds: int) -> float:
    """The published AUC: the ROC curve at thresholds that are evenly spaced in probability, joined by straight lines.

    Args:
      logits: [n], any float type.
      labels: [n], bool or 0 and 1.
      num_thresholds: at least 2; the first is just below 0, the last just above 1.

    Returns:
      AUC in [0, 1]; nan if there are not both classes.

    Raises:
      ValueError: fewer than 2 thresholds, the shapes differ, or a logit is nan.

    Source: tf.keras.metrics.AUC(num_thresholds=8000, curve="ROC", summation_method="interpolation", from_logits=True);
    probabilities and their bins are float32 there. Counts are exact here, where float32 ones stop at 2^24 samples.
    """
    if num_thresholds < 2:
        raise ValueError(f"auc_thresholds is {num_thresholds}; use 2 or more, or leave it out for the exact AUC.")
    logits, labels = _checked(logits, labels)
    bins = num_thresholds - 1
    counts = np.zeros((2, bins), np.int64)
    for start in range(0, len(logits), _BLOCK):
        probability = _sigmoid(logits[start : start + _BLOCK])
        index = np.ceil(probability * np.float32(bins)).astype(np.int64) - 1  # threshold i is below bin i
        index = np.clip(index, 0, bins - 1)
        for label in (0, 1):
            counts[label] += np.bincount(index[labels[start : start + _BLOCK] == label], minlength=bins)
    num_negatives, num_positives = counts.sum(axis=1)
    if not _both_classes(num_positives, num_negatives):
        return float("nan")
    false_positive_rate, recall = (
        np.append(np.cumsum(counts[label][::-1])[::-1], 0) / total
        for label, total in ((0, num_negatives), (1, num_positives))
    )
    return float(np.sum((false_positive_rate[:-1] - false_positive_rate[1:]) * (recall[:-1] + recall[1:]) / 2))


def log_loss(logits: np.ndarray, labels: np.ndarray) -> float:
    """Mean binary cross entropy in nats, log(1 + exp(-z)) with z the logit for a positive and minus it for a negative.

    Computed in float64 from the logits, so a confident mistake costs its logit rather than infinity.

    Args:
      logits: [n], any float type.
      labels: [n], bool or 0 and 1.

    Returns:
      The mean; nan if there are no samples or a logit is nan.

    Raises:
      ValueError: the shapes differ.
    """
    logits, labels = _same_shape(logits, labels)
    if len(logits) == 0:
        warnings.warn("the log loss is undefined: there are no samples.", stacklevel=2)
        return float("nan")
    total = 0.0
    for start in range(0, len(logits), _BLOCK):
        z = np.where(labels[start : start + _BLOCK], -1.0, 1.0) * logits[start : start + _BLOCK].astype(np.float64)
        total += float(np.sum(np.maximum(z, 0.0) + np.log1p(np.exp(-np.abs(z)))))
    return total / len(logits)


def _checked(scores: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    scores, labels = _same_shape(scores, labels)
    if np.isnan(scores).any():
        raise ValueError(
            f"score {int(np.argmax(np.isnan(scores)))} of {len(scores)} is nan: the model has diverged. "
            "Lower the learning rate, or go back to an earlier checkpoint."
        )
    return scores, labels


def _same_shape(scores: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    scores, labels = np.asarray(scores), np.asarray(labels)
    if scores.ndim != 1 or scores.shape != labels.shape:
        raise ValueError(f"scores have shape {scores.shape} and labels {labels.shape}; both must be [samples].")
    return scores, labels.astype(bool, copy=False)


def _both_classes(num_positives: int, num_negatives: int) -> bool:
    if num_positives and num_negatives:
        return True
    found = f"all {num_positives + num_negatives} labels are {int(num_positives > 0)}"
    if num_positives + num_negatives == 0:
        found = "there are no samples"
    warnings.warn(f"AUC is undefined: {found}. It needs samples of both classes.", stacklevel=3)
    return False


def _sigmoid(logits: np.ndarray) -> np.ndarray:
    """float32 probabilities, without overflow for large logits."""
    small = np.exp(-np.abs(logits.astype(np.float32)))  # in (0, 1]
    return np.where(logits >= 0, np.float32(1), small) / (np.float32(1) + small)
