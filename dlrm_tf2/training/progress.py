"""What people and programs see of a training: the lines of the log, the live line, the profile, the summary."""

import contextlib
import time
from collections.abc import Iterator
from typing import TypeVar

import numpy as np

from dlrm_tf2.config import TrainConfig
from dlrm_tf2.evaluation.metrics import Evaluation
from dlrm_tf2.logs.profiler import Profiler
from dlrm_tf2.logs.run_log import RunLog
from dlrm_tf2.logs.step_clock import Rates, StepClock
from dlrm_tf2.runtime import memory
from dlrm_tf2.runtime.comm import Comm
from dlrm_tf2.training.key_counters import KeyCounters
from dlrm_tf2.training.run_length import RunLength

_LIVE_S = 0.3  # seconds between two refreshes of the live line
_GIB = 1 << 30

Batch = TypeVar("Batch")


class TrainingProgress:
    """Follows the steps of a run, inside of `with`. All ranks must make the same calls.

    Args:
      config: the run.
      comm: the ranks.
      log: takes the lines.
      length: the steps of the run.
      step: the step before the first step that is followed.
      keys: what happens to the keys of dynamic tables.
    """

    def __init__(
        self, config: TrainConfig, comm: Comm, *, log: RunLog, length: RunLength, step: int, keys: KeyCounters
    ):
        self._comm, self._log, self._length, self._keys = comm, log, length, keys
        warmup = min(2 * config.print_freq, (length.last - step) // 2)
        self._clock = StepClock(warmup, comm.exchange_seconds)
        self._profiler = Profiler(config, comm.rank)
        self._step, self._auc = step, None
        self._began_after, self._began, self._evaluating_s = step, time.perf_counter(), 0.0
        self._shown, self._shown_at = self._clock.mark(), time.perf_counter()

    def __enter__(self) -> "TrainingProgress":
        return self

    def __exit__(self, *_) -> None:
        self._log.live("")
        self._profiler.stop()

    def paused(self) -> contextlib.AbstractContextManager[None]:
        """The time in this context does not count as time of steps."""
        return self._clock.paused()

    @contextlib.contextmanager
    def evaluating(self) -> Iterator[None]:
        """The time in this context is the time of evaluations."""
        start = time.perf_counter()
        yield
        self._evaluating_s += time.perf_counter() - start

    def batches(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """Yields the batches, one for each step, and measures how long the steps wait for them."""
        for batch in self._clock.waiting_for(batches):
            self._profiler.begin(self._step + 1)
            yield batch

    def step_done(self, step: int, samples: int, loss: float) -> None:
        """Counts a step that is done; on a GPU it may only have begun.

        Args:
          step: number of the step.
          samples: samples of the step, all ranks together.
          loss: the newest known loss.
        """
        self._step = step
        self._clock.count(samples)
        self._profiler.end(step)
        if self._log.shows_live and time.perf_counter() - self._shown_at >= _LIVE_S:
            self._show(loss)

    def evaluated(self, evaluation: Evaluation) -> None:
        """Logs an evaluation."""
        self._auc = evaluation.auc
        self._log.record({"step": self._step, **evaluation.record(), **self._keys.of_evaluation})
        self._log.say(f"step {self._step}: {evaluation.line()}")

    def log_steps(self, loss: float, learning_rate: float, skipped: int) -> None:
        """Logs the steps since the last such line."""
        rates = self._clock.lap()
        resident_bytes, _ = memory.resident_bytes()
        exchange_ms, memory_gib = self._gathered(rates.exchange_ms, resident_bytes / _GIB)
        of_keys = self._keys.record()
        self._log.record(
            {
                "step": self._step,
                "loss": loss,
                "learning_rate": learning_rate,
                **rates._asdict(),
                "exchange_ms_of_ranks": exchange_ms,
                "memory_gib": memory_gib,
                **of_keys,
            }
        )
        first, last = self._length.first, self._length.last
        exchange = f", {rates.exchange_ms:.1f} ms exchange" if rates.exchange_ms else ""
        skipped = f", {skipped} steps skipped" if skipped else ""
        keys = f", {sum(of_keys['keys_stored']):,} keys" if of_keys else ""
        self._log.say(
            f"step {self._step} ({self._step - first + 1}/{last - first + 1}): loss {loss:.5f}, "
            f"learning rate {learning_rate:.4g}, {rates.samples_per_s:,.0f} samples/s, "
            f"{rates.step_ms:.1f} ms{exchange}, {self._time_left(rates)} left{keys}{skipped}"
        )

    def summary(self, evaluation: Evaluation | None, skipped: int) -> dict:
        """The last record of the run's log: published keys, then our keys."""
        rates = self._clock.mean()
        now, peak = memory.resident_bytes()
        exchange_ms, memory_gib, peak_gib = self._gathered(rates.exchange_ms, now / _GIB, peak / _GIB)
        summary = {"throughput": rates.samples_per_s, "mean_step_time_ms": rates.step_ms}
        if evaluation:
            summary |= {"auc": evaluation.auc, "validation_loss": evaluation.loss}
        return summary | {
            "data_wait_ms": rates.data_wait_ms,
            "exchange_ms": rates.exchange_ms,
            "exchange_ms_of_ranks": exchange_ms,
            "memory_gib": memory_gib,
            "peak_memory_gib": peak_gib,
            "skipped_steps": skipped,
            "steps": self._step - self._began_after,
            "total_s": time.perf_counter() - self._began,
            "evaluating_s": self._evaluating_s,
        }

    def _gathered(self, *values: float | None) -> list[list[float | None]]:
        """For each value, the values of all ranks in rank order."""
        own = np.array([[np.nan if value is None else value for value in values]])
        of_ranks = self._comm.allgather(own, name="watch")
        return [[None if np.isnan(value) else value for value in column] for column in of_ranks.T.tolist()]

    def _show(self, loss: float) -> None:
        since, self._shown, self._shown_at = self._shown, self._clock.mark(), time.perf_counter()
        auc = "" if self._auc is None else f", AUC {self._auc:.5f}"
        self._log.live(
            f"step {self._step}/{self._length.last}: {self._clock.since(since).samples_per_s:,.0f} "
            f"samples/s, {self._time_left(self._clock.mean())} left, loss {loss:.5f}{auc}"
        )

    def _time_left(self, rates: Rates) -> str:
        seconds = round((self._length.last - self._step) * rates.step_ms / 1e3)
        if seconds < 120:
            return f"{seconds} s"
        return f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02} h"
