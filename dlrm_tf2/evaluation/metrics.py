"""The metrics of an evaluation, over all ranks: AUC, log loss, normalised entropy and calibration. numpy only."""

import math
from dataclasses import asdict, dataclass

import numpy as np

from dlrm_tf2.evaluation.auc import BinnedAuc, ExactAuc


class NotFinite(ValueError):
    """A logit of the model is nan or infinite."""


@dataclass(frozen=True)
class Evaluation:
    """Metrics of the scored samples; None for a metric that these labels leave undefined.

    Attributes:
      auc: area under the ROC curve; None when all labels are the same.
      loss: mean binary cross entropy in nats.
      normalized_entropy: the loss divided by the loss of a model that always predicts the click rate; None when all
        labels are the same. Below 1, the model is better than that.
      calibration: mean predicted probability divided by the click rate; None without a click. 1 is right on average.
      num_samples: number of scored samples.

    Source: He et al., "Practical Lessons from Predicting Clicks on Ads at Facebook" (2014), section 2.
    """

    auc: float | None
    loss: float
    normalized_entropy: float | None
    calibration: float | None
    num_samples: int

    def record(self) -> dict:
        """The metrics as a record of the log."""
        values = asdict(self)
        return {"auc": values.pop("auc"), "test_loss": values.pop("loss"), **values}

    def line(self) -> str:
        """The metrics as a line for people: `AUC 0.xxxxxx, test loss ...`."""
        of_classes = (
            f"{name} {'undefined' if value is None else f'{value:.6f}'}"
            for name, value in (("normalised entropy", self.normalized_entropy), ("calibration", self.calibration))
        )
        auc = "undefined" if self.auc is None else f"{self.auc:.6f}"
        return f"AUC {auc}, test loss {self.loss:.6f}, {', '.join(of_classes)}, {self.num_samples} samples"


class Tally:
    """Adds up what one rank scores, batch by batch, and computes the metrics of all ranks at the end.

    Memory: the memory of the AUC, and five numbers. Sums are float64. The loss is computed from the logits, so that a
    confident mistake costs its logit and not infinity.

    Args:
      auc: an AUC without samples.
    """

    def __init__(self, auc: ExactAuc | BinnedAuc):
        self._auc = auc
        self._samples = self._clicks = self._not_finite = 0
        self._loss = self._predicted = 0.0

    def add(self, logits: np.ndarray, labels: np.ndarray) -> None:
        """Adds samples of this rank, in any order.

        Args:
          logits: float32 [n].
          labels: bool [n].
        """
        assert logits.ndim == 1 and logits.shape == labels.shape, f"{logits.shape} logits, {labels.shape} labels"
        self._samples += len(logits)
        not_finite = len(logits) - int(np.count_nonzero(np.isfinite(logits)))
        if not_finite:  # evaluation() raises, on all ranks together
            self._not_finite += not_finite
            return
        self._auc.add(logits, labels)
        self._clicks += int(np.count_nonzero(labels))
        wrong = np.where(labels, -logits, logits).astype(np.float64)
        small = np.exp(-np.abs(wrong))
        self._loss += float(np.sum(np.maximum(wrong, 0.0) + np.log1p(small)))
        self._predicted += float(np.sum(np.where(logits >= 0, 1.0, small) / (1.0 + small)))

    def evaluation(self, comm) -> Evaluation:
        """The metrics over the samples of all ranks. All ranks must call it.

        Raises:
          NotFinite: on every rank, if a logit of any rank is nan or infinite.
        """
        own = self._samples, self._clicks, self._not_finite, self._loss, self._predicted
        of_all = comm.allgather_object(own, name="evaluation_sums")
        samples, clicks, not_finite, loss, predicted = (math.fsum(sums) for sums in zip(*of_all, strict=True))
        if not_finite:
            raise NotFinite(
                f"{not_finite:.0f} of the logits of {samples:.0f} samples are nan or infinite: the model has diverged. "
                "Train with a lower --learning_rate, or use an earlier checkpoint."
            )
        assert samples, "a split holds a sample"
        loss, rate = loss / samples, clicks / samples
        entropy = -rate * math.log(rate) - (1 - rate) * math.log1p(-rate) if 0 < clicks < samples else None
        return Evaluation(
            auc=self._auc.result(comm),
            loss=loss,
            normalized_entropy=loss / entropy if entropy else None,
            calibration=predicted / clicks if clicks else None,
            num_samples=int(samples),
        )
