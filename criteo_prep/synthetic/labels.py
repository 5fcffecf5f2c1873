"""Labels of synthetic rows: fair coins, or draws from the click probabilities of the planted teacher."""

import math
from dataclasses import dataclass

import numpy as np

from criteo_prep.compiled import compiled
from criteo_prep.synthetic.columns import Columns
from criteo_prep.synthetic.power_law import draw
from criteo_prep.synthetic.teacher import BASE_RATE, SIGNAL, Teacher
from criteo_prep.synthetic.truth import FIXED_POINT, LOGIT_BOUND, NUM_BINS, Truth

KINDS = ("random", "teacher")
_UNIT = 2.0**-53


@dataclass(frozen=True)
class Labels:
    """How the labels of a dataset are drawn.

    Attributes:
      kind: "random" for fair coins, which nothing predicts, or "teacher" for the planted click model.
      base_rate: mean click probability of the teacher, in (0, 1).
      signal: standard deviation of the teacher's logit, at least 0.

    Raises:
      ValueError: `kind` is not one of KINDS.
    """

    kind: str = "random"
    base_rate: float = BASE_RATE
    signal: float = SIGNAL

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"labels {self.kind!r}: must be one of {', '.join(KINDS)}.")

    def teacher(self, columns: Columns, values: np.ndarray) -> Teacher | None:
        """The teacher of a dataset with these columns, see Teacher; None for fair coins."""
        if self.kind == "random":
            return None
        return Teacher(columns, values, base_rate=self.base_rate, signal=self.signal)


FAIR_COINS = Labels()


def draw_labels(logits: np.ndarray | None, rows: int, *, key: np.uint64, start: int, truth: Truth) -> np.ndarray:
    """Draws the labels of rows [start, start + rows), and counts them in `truth`.

    Args:
      logits: true logits of the rows, float32 [rows]; None for fair coins.
      rows: number of rows.
      key: key of the label stream of the split.
      start: number of the first row.
      truth: gets the counts of the labels and the log loss.

    Returns:
      The labels, bool [rows].
    """
    labels = np.empty(rows, np.bool_)
    counts = np.zeros((2, NUM_BINS), np.int64)
    if logits is None:
        _flip_coins(key, start, labels)
        clicks = np.count_nonzero(labels)
        counts[:, NUM_BINS // 2] = rows - clicks, clicks
        loss = rows * int(math.log(2) * FIXED_POINT + 0.5)
    else:
        loss = int(_draw_labels(logits, key, start, labels, counts))
    truth.add(counts, loss)
    return labels


@compiled
def _flip_coins(key, first, labels):
    for i in range(labels.size):
        labels[i] = draw(key, first + i) < np.uint64(1 << 63)


@compiled
def _draw_labels(logits, key, first, labels, counts):
    """Fills labels, and counts them in counts[label, bin of the logit]. Returns the summed log loss in fixed point."""
    loss = 0
    for i in range(logits.size):
        logit = np.float64(logits[i])
        labels[i] = (draw(key, first + i) >> np.uint64(11)) * _UNIT < 1.0 / (1.0 + math.exp(-logit))
        against = -logit if labels[i] else logit
        loss += np.int64((max(against, 0.0) + math.log1p(math.exp(-abs(logit)))) * FIXED_POINT + 0.5)
        bin_of = np.int64((logit + LOGIT_BOUND) * (NUM_BINS / (2 * LOGIT_BOUND)))
        counts[np.int64(labels[i]), min(max(bin_of, 0), NUM_BINS - 1)] += 1
    return loss
