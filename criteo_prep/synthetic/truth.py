"""How well a dataset's labels can be predicted at best: the score of somebody who knows every true probability."""

import numpy as np

NUM_BINS = 1 << 15
LOGIT_BOUND = 16.0
FIXED_POINT = float(1 << 30)


class Truth:
    """AUC and log loss of the true probabilities on the labels that were drawn.

    Counts are whole numbers, so that they add up to the same in any order: labels per bin of the true logit (bins of
    1 / 1024, those within a bin count as ties), and the log loss in units of 2^-30.
    """

    def __init__(self) -> None:
        self._counts = np.zeros((2, NUM_BINS), np.int64)
        self._loss = 0

    def add(self, counts: np.ndarray, loss: int) -> None:
        """Adds rows: int64 [2, NUM_BINS] of negatives and positives, and their summed log loss."""
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
        """AUC of the true probabilities; None where all labels are the same."""
        negatives, positives = self._counts
        pairs = self.num_clicks * (self.num_samples - self.num_clicks)
        if not pairs:
            return None
        below = np.cumsum(negatives) - negatives
        twice = sum(int(p) * (2 * int(b) + int(n)) for p, b, n in zip(positives, below, negatives, strict=True) if p)
        return twice / (2 * pairs)

    @property
    def best_log_loss(self) -> float | None:
        """Mean log loss of the true probabilities, in nats; None without rows."""
        return self._loss / FIXED_POINT / self.num_samples if self.num_samples else None

    def document(self) -> dict:
        """What the manifest says of a split or day."""
        return {
            "num_samples": self.num_samples,
            "num_clicks": self.num_clicks,
            "best_auc": self.best_auc,
            "best_log_loss": self.best_log_loss,
        }
