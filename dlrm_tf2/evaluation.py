"""Scores a split over all ranks: mode eval, the evaluations of a training, and the model's part of inference."""

import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from dlrm_tf2 import metrics
from dlrm_tf2.comm import Comm
from dlrm_tf2.config import TrainConfig
from dlrm_tf2.data import RankBatch, RankData
from dlrm_tf2.embedding.ids import RankIds
from dlrm_tf2.model import Dlrm
from dlrm_tf2.run_log import RunLog


@dataclass(frozen=True)
class Evaluation:
    """AUC (None when the split has only one class), mean binary cross entropy, and samples scored."""

    auc: float | None
    loss: float
    num_samples: int

    def record(self) -> dict:
        """For the log."""
        return {"auc": self.auc, "test_loss": self.loss}

    def line(self) -> str:
        """For people: `AUC 0.xxxxxx, ...`."""
        auc = "undefined" if self.auc is None else f"{self.auc:.6f}"
        return f"AUC {auc}, test loss {self.loss:.6f}, {self.num_samples} samples"


def compiled_forward(model: Dlrm) -> Callable[[tf.Tensor, RankIds], tf.Tensor]:
    """(numericals, ids) -> logits of this rank's samples, [local batch]; every rank must call it."""
    numerical = tf.TensorSpec([None, model.config.num_numerical], tf.float32)

    def forward(numerical: tf.Tensor, ids: RankIds) -> tf.Tensor:
        return model.logits(numerical, model.lookup(ids))

    return tf.function(forward, input_signature=[numerical, model.embedding.signature])


class Evaluator:
    """Scores the test split, once in full at every call. All ranks must call it.

    Args:
      config: the run.
      model: this rank's part of the model.
      comm: the ranks.
      log: where to show progress.
      data: the test split.
    """

    def __init__(self, config: TrainConfig, model: Dlrm, comm: Comm, log: RunLog, data: RankData):
        self._config, self._comm, self._log, self._data = config, comm, log, data
        self._forward = compiled_forward(model)

    def evaluate(self, limit: int = -1, latencies: list[tuple[float, int]] | None = None) -> Evaluation:
        """Scores every sample of the split once, or `limit` batches of it.

        Args:
          latencies: takes up (seconds, samples) of each batch; what the first call costs once is left out.
        """
        logits, labels = [], []
        for batch in self._batches(self._config.valid_batch_sizes[0], limit):
            if latencies is not None and not logits:
                self._forward(batch.numerical, batch.ids)  # traces and compiles
            start = time.perf_counter()
            logits.append(self._forward(batch.numerical, batch.ids).numpy())
            if latencies is not None:
                latencies.append((time.perf_counter() - start, batch.global_batch))
            labels.append(batch.label > 0.5)
        return self._scored(logits, labels)

    def _batches(self, size: int, limit: int) -> Iterator[RankBatch]:
        """The split in batches, with its progress shown."""
        num_batches = self._data.num_batches(size)
        num_batches = num_batches if limit == -1 else min(num_batches, limit)
        start = time.perf_counter()
        for number, batch in enumerate(itertools.islice(self._data.batches(size), num_batches), 1):
            yield batch
            left_s = (time.perf_counter() - start) / number * (num_batches - number)
            self._log.live(f"test split: batch {number} of {num_batches}, {left_s:.0f} s left")
        self._log.live("")

    def _scored(self, logits: list[np.ndarray], labels: list[np.ndarray]) -> Evaluation:
        """The metrics over all ranks' samples, computed once, on rank 0."""
        logits_of_all = self._comm.allgather(np.concatenate(logits), name="evaluation_logits")
        labels_of_all = self._comm.allgather(np.concatenate(labels), name="evaluation_labels")
        evaluation = None
        if self._comm.rank == 0:
            evaluation = self._metrics(logits_of_all, labels_of_all)
        return self._comm.broadcast_object(evaluation, name="evaluation")

    def _metrics(self, logits: np.ndarray, labels: np.ndarray) -> Evaluation:
        auc = None
        if labels.all() or not labels.any():
            self._log.say("AUC is not defined: every label of the test split is the same.")
        elif self._config.auc_thresholds is None:
            auc = metrics.auc_exact(logits, labels)
        else:
            auc = metrics.auc_binned(logits, labels, self._config.auc_thresholds)
        return Evaluation(auc, metrics.log_loss(logits, labels), len(labels))
