"""Mode inference: scores batch by batch, as a server does, and times each batch; for one batch size or several."""

import time
from collections.abc import Callable

import numpy as np

from dlrm_tf2.config import TrainConfig
from dlrm_tf2.data.batches import RankBatch
from dlrm_tf2.evaluation.evaluator import Evaluator
from dlrm_tf2.evaluation.predictions import PredictionsFile
from dlrm_tf2.logs.run_log import RunLog
from dlrm_tf2.runtime.comm import Comm

_WARMUP = 10  # first batches whose latency does not count, as published; at most half of the batches
_MOST_BATCHES = 1000  # batches of a size without --max_steps, as published
_PERCENTILES = (50, 90, 95, 99)


class LatencyTimer:
    """Scores batches and times each: from when all ranks are ready until the slowest rank has its logits.

    Args:
      score: batch -> logits of this rank's samples, in host memory.
      comm: the ranks.
    """

    def __init__(self, score: Callable[[RankBatch], np.ndarray], comm: Comm):
        self._score, self._comm = score, comm
        self._seconds: list[float] = []
        self._samples: list[int] = []

    def __call__(self, batch: RankBatch) -> np.ndarray:
        """Logits of this rank's samples. All ranks must call it."""
        if not self._seconds:
            self._score(batch)  # traces and compiles
        self._comm.allgather_object(
            None, name="inference_start"
        )  # a barrier: no rank's time includes waiting for another
        start = time.perf_counter()
        logits = self._score(batch)
        self._seconds.append(time.perf_counter() - start)
        self._samples.append(batch.global_batch)
        return logits

    def timed(self) -> tuple[np.ndarray, np.ndarray]:
        """(seconds, samples) of each whole batch after the warm-up. All ranks must call it.

        A smaller last batch counts only if it is the only batch: XLA compiles again for its size.
        """
        seconds = np.max(self._comm.allgather_object(self._seconds, name="inference_seconds"), axis=0)
        samples = np.array(self._samples)
        whole = samples == samples[0]
        seconds, samples = seconds[whole], samples[whole]
        warmup = min(_WARMUP, len(seconds) // 2)
        return seconds[warmup:], samples[warmup:]


def infer(
    config: TrainConfig, evaluator: Evaluator, *, log: RunLog, predictions: PredictionsFile | None = None
) -> None:
    """Measures every batch size of --valid_batch_size; logs a record for each, and a table. All ranks must call it.

    Args:
      config: the run.
      evaluator: scores the test split.
      log: takes the records and the table.
      predictions: file that takes the scores of the last batch size.
    """
    limit = _MOST_BATCHES if config.max_steps == -1 else config.max_steps
    log.say(_row(("batch", "batches", "samples/s", "mean ms", *(f"p{p} ms" for p in _PERCENTILES), "AUC")))
    for number, size in enumerate(config.valid_batch_sizes, 1):
        timer = LatencyTimer(evaluator.score, evaluator.comm)
        last = number == len(config.valid_batch_sizes)
        evaluation = evaluator.evaluate(limit, size, score=timer, predictions=predictions if last else None)
        seconds, samples = timer.timed()
        percentiles = np.percentile(seconds, _PERCENTILES)
        throughput = float(samples.sum() / seconds.sum())
        log.record(
            {
                "batch_size": size,
                "mean_inference_throughput": throughput,
                "mean_inference_latency": float(seconds.mean()),
                **{f"p{p}_inference_latency": float(s) for p, s in zip(_PERCENTILES, percentiles, strict=True)},
                "auc": evaluation.auc,
                "num_samples": evaluation.num_samples,
            }
        )
        times = (f"{1e3 * s:.3f}" for s in (seconds.mean(), *percentiles))
        auc = "undefined" if evaluation.auc is None else f"{evaluation.auc:.6f}"
        log.say(_row((size, evaluator.num_batches(size, limit), f"{throughput:,.0f}", *times, auc)))


def _row(cells: tuple) -> str:
    return " ".join(f"{cell:>11}" for cell in cells)
