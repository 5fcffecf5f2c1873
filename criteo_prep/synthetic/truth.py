"""The best scores that a dataset's labels allow: the scores of a model that knows every true probability."""

import numpy as np

NUM_BINS = 1 << 15
LOGIT_BOUND = 16.0
FIXED_POINT = float(1 << 30)


class Truth:
    """AUC and log loss of the true probabilities on the drawn labels.

    All counts are whole numbers, so their sum is the same in any order. Labels are counted per bin of the true logit;
    a bin is 1 / 1024 wide, and its rows count as ties. The log loss is in units of 2^-30.
    """

    def __init__(self) -> None:
        self._counts = np.zeros((2, NUM_BINS), np.int64)
        self._loss = 0

    def add(self, counts: np.ndarray, loss: int) -> None:
        """Adds rows.

        Args:
          counts: negatives and positives in each bin, int64 [2, NUM_BINS].
          loss: summed log loss of the rows, in units of 2^-30.
        """
        self._counts += counts
        self._loss += loss

    def merge(self, other: "Truth") -> None:
        self.add(other._counts, other._loss)

    @property
    def num_samples(self) -> int:
        return int(self._counts.sum())

    @property
    def num_clicks(self) -> int:
        return int(self._counts[1].sum())

    @property
    def best_auc(self) -> float | None:
        """AUC of the true probabilities; None if all labels are the same."""
        negatives, positives = self._counts
        pairs = self.num_clicks * (self.num_samples - self.num_clicks)
        if not pairs:
            return None
        below = np.cumsum(negatives) - negatives
        twice = sum(int(p) * (2 * int(b) + int(n)) for p, b, n in zip(positives, below, negatives, strict=True) if p)
        return twice / (2 * pairs)

    @property
    def best_log_loss(self) -> float | None:
        """Mean log loss of the true probabilities, in nats; None if there are no rows."""
        return self._loss / FIXED_POINT / self.num_samples if self.num_samples else None

    def document(self) -> dict:
        """The manifest's entry for a split or day."""
        return {
            "num_samples": self.num_samples,
            "num_clicks": self.num_clicks,
            "best_auc": self.best_auc,
            "best_log_loss": self.best_log_loss,
        }
