"""The area under the ROC curve of samples that are spread over ranks: exact, or in the published bins. numpy only.

Both take a rank's own samples batch by batch, and count in whole numbers at the end. The result is the same to the
last bit for any number of ranks and for any order of the samples.
"""

import numpy as np

_BLOCK = 1 << 18  # scores compared at a time


class ExactAuc:
    """The probability that a positive scores above a negative; a tie counts half.

    Keeps 4 bytes for each of this rank's samples. At the end the ranks exchange the scores of the rarer class in
    blocks, and every rank counts the pairs of these scores with its own scores of the other class. The exchange takes a
    few MiB more.

    Args:
      capacity: the most samples that will be added.
    """

    def __init__(self, capacity: int):
        self._scores = np.empty(capacity, np.float32)  # positives from the front, negatives from the back
        self._num_positives = self._num_negatives = 0

    def add(self, logits: np.ndarray, labels: np.ndarray) -> None:
        """Adds samples of this rank.

        Args:
          logits: float32 [n], finite.
          labels: bool [n].
        """
        assert self._num_positives + self._num_negatives + len(logits) <= len(self._scores), "more than the capacity"
        positives, negatives = logits[labels], logits[~labels]
        self._scores[self._num_positives : self._num_positives + len(positives)] = positives
        end = len(self._scores) - self._num_negatives
        self._scores[end - len(negatives) : end] = negatives
        self._num_positives += len(positives)
        self._num_negatives += len(negatives)

    def result(self, comm) -> float | None:
        """AUC over the samples of all ranks; None if a class has no sample. All ranks must call it."""
        positives = self._scores[: self._num_positives]
        negatives = self._scores[len(self._scores) - self._num_negatives :]
        counts = comm.allgather_object((len(positives), len(negatives)), name="auc_counts")
        num_positives, num_negatives = (sum(per_rank) for per_rank in zip(*counts, strict=True))
        if not num_positives or not num_negatives:
            return None
        pairs = num_positives * num_negatives
        if num_positives <= num_negatives:
            return _twice_below(positives, negatives, most=max(positives for positives, _ in counts), comm=comm) / (
                2 * pairs
            )
        twice_lost = _twice_below(negatives, positives, most=max(negatives for _, negatives in counts), comm=comm)
        return (2 * pairs - twice_lost) / (2 * pairs)


def _twice_below(rarer: np.ndarray, other: np.ndarray, *, most: int, comm) -> int:
    """Counts pairs over all ranks: 2 if the rarer class has the higher score, 1 for a tie.

    Args:
      rarer: this rank's scores of the rarer class, float32 [n]; sorted in place.
      other: this rank's scores of the other class, float32 [m]; sorted in place.
      most: the largest number of scores of the rarer class on any rank.
      comm: the ranks.
    """
    other.sort()
    rarer.sort()  # searchsorted is several times as fast with sorted values
    block, count = max(1, _BLOCK // comm.size), 0
    for start in range(0, most, block):
        scores = comm.allgather(rarer[start : start + block], name="auc_scores")
        count += sum(int(np.searchsorted(other, scores, side).sum()) for side in ("left", "right"))
    return sum(comm.allgather_object(count, name="auc_pairs"))


class BinnedAuc:
    """The published AUC: the ROC curve at thresholds evenly spaced in probability, joined by straight lines.

    Keeps two counts per bin and no scores. The counts are integers; published float32 counts stop at 2^24 samples.

    Args:
      num_thresholds: number of thresholds, at least 2; the first is just below 0, the last just above 1.

    Source: tf.keras.metrics.AUC(num_thresholds=8000, curve="ROC", summation_method="interpolation", from_logits=True);
    probabilities and their bins are float32 there.
    """

    def __init__(self, num_thresholds: int):
        self._counts = np.zeros((2, num_thresholds - 1), np.int64)

    def add(self, logits: np.ndarray, labels: np.ndarray) -> None:
        """Adds samples of this rank; see ExactAuc."""
        bins = self._counts.shape[1]
        # Threshold i is below bin i.
        index = np.ceil(probabilities(logits.astype(np.float32)) * np.float32(bins)).astype(np.int64) - 1
        index = np.clip(index, 0, bins - 1)
        for label in (0, 1):
            self._counts[label] += np.bincount(index[labels == bool(label)], minlength=bins)

    def result(self, comm) -> float | None:
        """AUC over the samples of all ranks; None if a class has no sample. All ranks must call it."""
        negatives, positives = comm.allgather(self._counts[np.newaxis], name="auc_bins").sum(axis=0)
        if not negatives.any() or not positives.any():
            return None
        false_positive_rate, recall = (
            np.append(np.cumsum(counts[::-1])[::-1], 0) / counts.sum() for counts in (negatives, positives)
        )
        return float(np.sum((false_positive_rate[:-1] - false_positive_rate[1:]) * (recall[:-1] + recall[1:]) / 2))


def probabilities(logits: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-logits)) in the type of the logits, without overflow."""
    small = np.exp(-np.abs(logits))  # in (0, 1]
    return np.where(logits >= 0, 1, small) / (1 + small)
