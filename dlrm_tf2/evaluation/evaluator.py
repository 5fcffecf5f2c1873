"""Scores the test split on all ranks: for mode eval, for evaluations during training, and for mode inference."""

import itertools
import time
from collections.abc import Callable, Iterator

import numpy as np
import tensorflow as tf

from dlrm_tf2.config import TrainConfig
from dlrm_tf2.data.batches import RankBatch, RankData
from dlrm_tf2.embedding.id_exchange import ExchangedIds
from dlrm_tf2.embedding.ids import RankIds
from dlrm_tf2.embedding.pipeline import Pipeline
from dlrm_tf2.evaluation.auc import BinnedAuc, ExactAuc
from dlrm_tf2.evaluation.metrics import Evaluation, Tally
from dlrm_tf2.evaluation.predictions import PredictionsFile
from dlrm_tf2.logs.run_log import RunLog
from dlrm_tf2.model.dlrm import Dlrm
from dlrm_tf2.runtime import activity
from dlrm_tf2.sharding.plan import samples_of_rank


def compiled_forward(model: Dlrm, ahead: bool) -> Pipeline:
    """A compiled function (ids, next ids, numericals) -> logits [local batch] of this rank's samples."""
    numerical = tf.TensorSpec([None, model.config.num_numerical], tf.float32)

    def forward(ids: RankIds | ExchangedIds, numerical: tf.Tensor) -> tf.Tensor:
        return model.logits(numerical, model.lookup(ids))

    return Pipeline(model.embedding, forward, inputs=[numerical], ahead=ahead)


class Evaluator:
    """Scores the test split; every evaluation begins at the first sample. All ranks must make the same calls.

    Args:
      config: the run.
      model: this rank's part of the model.
      log: shows the progress.
      data: the test split.

    Attributes:
      comm: the ranks.
    """

    def __init__(self, config: TrainConfig, model: Dlrm, *, log: RunLog, data: RankData):
        self._config, self.comm, self._log, self._data = config, model.comm, log, data
        # A latency includes the exchange of the batch's own ids, and of no other ids.
        self._forward = compiled_forward(model, ahead=config.pipeline == "on" and config.mode != "inference")

    def score(self, batch: RankBatch, next_batch: RankBatch | None = None) -> np.ndarray:
        """Logits of this rank's samples of the batch, float32 [local batch], in host memory.

        Args:
          batch: this rank's part of the batch.
          next_batch: the batch whose ids travel meanwhile, on all ranks or on none.
        """
        next_ids = None if next_batch is None else next_batch.ids
        return self._forward(batch.ids, next_ids, batch.numerical).numpy()

    @property
    def num_samples(self) -> int:
        """Number of samples in the split."""
        return self._data.num_samples

    def num_batches(self, size: int, limit: int) -> int:
        """Number of batches of `size` samples in the split; at most `limit` unless that is -1."""
        num_batches = self._data.num_batches(size)
        return num_batches if limit == -1 else min(num_batches, limit)

    def evaluate(
        self,
        limit: int = -1,
        size: int | None = None,
        *,
        score: Callable[[RankBatch], np.ndarray] | None = None,
        predictions: PredictionsFile | None = None,
    ) -> Evaluation:
        """Scores every sample of the split once, or the first `limit` batches.

        Args:
          limit: number of batches; -1 for all batches.
          size: samples of a batch, all ranks together; None for --valid_batch_size.
          score: replaces the method `score`, for example to time it.
          predictions: file that takes the scores.

        Raises:
          NotFinite: on every rank, if a logit is nan or infinite.
        """
        size = size or self._config.valid_batch_sizes[0]
        num_batches = self.num_batches(size, limit)
        if self._config.auc_thresholds is None:
            tally = Tally(ExactAuc(self._num_own_samples(size, num_batches)))
        else:
            tally = Tally(BinnedAuc(self._config.auc_thresholds))
        for batch, next_batch in self._batches(size, num_batches):
            logits = score(batch) if score else self.score(batch, next_batch)
            labels = batch.label > 0.5
            tally.add(logits, labels)
            if predictions is not None:
                predictions.add(logits, labels, batch.global_batch)
        activity.doing("adding up an evaluation")
        evaluation = tally.evaluation(self.comm)
        if evaluation.auc is None:
            self._log.say(f"AUC is not defined: every label of the {self._config.eval_split} split is the same.")
        return evaluation

    def _num_own_samples(self, size: int, num_batches: int) -> int:
        """Number of this rank's samples in the first batches."""
        whole, rest = divmod(min(self._data.num_samples, num_batches * size), size)
        ranges = [samples_of_rank(samples, self.comm.size, self.comm.rank) for samples in (size, rest)]
        shares = [stop - start for start, stop in ranges]
        return whole * shares[0] + shares[1]

    def _batches(self, size: int, num_batches: int) -> Iterator[tuple[RankBatch, RankBatch | None]]:
        """Yields the first batches of the split, each with the next one, and shows the progress."""
        start, batches = time.perf_counter(), itertools.islice(self._data.batches(size), num_batches)
        for number, pair in enumerate(self._forward.with_next(batches), 1):
            activity.doing(f"evaluating batch {number} of {num_batches}")
            yield pair
            left_s = (time.perf_counter() - start) / number * (num_batches - number)
            self._log.live(f"{self._config.eval_split} split: batch {number} of {num_batches}, {left_s:.0f} s left")
        self._log.live("")
