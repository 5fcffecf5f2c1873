"""The time of training steps: of those since the last line of the log, and the mean without the warm-up."""

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple, TypeVar

Item = TypeVar("Item")


class Rates(NamedTuple):
    """Average time of some steps.

    Attributes:
      samples_per_s: samples of all ranks per second.
      step_ms: milliseconds per step.
      data_wait_ms: milliseconds per step in which this rank waited for data.
      exchange_ms: milliseconds per step in exchanges, including the wait for other ranks; None where not measured.
    """

    samples_per_s: float
    step_ms: float
    data_wait_ms: float
    exchange_ms: float | None


class Mark(NamedTuple):
    """A point in a training: the steps, samples and seconds before it."""

    steps: int
    samples: int
    waited_s: float
    exchanged_s: float | None
    time_s: float


class StepClock:
    """Counts steps and samples, and measures time with a clock that can be paused.

    Args:
      warmup: first steps, which the mean leaves out.
      exchange_seconds: returns the seconds that this rank has spent in exchanges, see Comm.exchange_seconds.
    """

    def __init__(self, warmup: int, exchange_seconds: Callable[[], float | None]):
        self._warmup, self._exchange_seconds = warmup, exchange_seconds
        self._steps = self._samples = 0
        self._paused_s = self._waited_s = self._paused_exchanges_s = 0.0
        self._lap_start = self._mean_start = self.mark()

    def count(self, samples: int) -> None:
        """Counts a step with this number of samples."""
        self._steps += 1
        self._samples += samples
        if self._steps == self._warmup:
            self._mean_start = self.mark()

    def waiting_for(self, items: Iterator[Item]) -> Iterator[Item]:
        """Yields the items, and measures the wait for each item."""
        while True:
            start = time.perf_counter()
            try:
                item = next(items)
            except StopIteration:
                return
            self._waited_s += time.perf_counter() - start
            yield item

    def lap(self) -> Rates:
        """The rates since the last call."""
        start, self._lap_start = self._lap_start, self.mark()
        return self.since(start)

    def mean(self) -> Rates:
        """The rates since the warm-up."""
        return self.since(self._mean_start)

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """A context whose time does not count."""
        start, exchanged_s = time.perf_counter(), self._exchange_seconds()
        try:
            yield
        finally:
            self._paused_s += time.perf_counter() - start
            if exchanged_s is not None:
                self._paused_exchanges_s += self._exchange_seconds() - exchanged_s

    def mark(self) -> Mark:
        """The current point."""
        exchanged_s = self._exchange_seconds()
        if exchanged_s is not None:
            exchanged_s -= self._paused_exchanges_s
        return Mark(
            self._steps,
            self._samples,
            waited_s=self._waited_s,
            exchanged_s=exchanged_s,
            time_s=time.perf_counter() - self._paused_s,
        )

    def since(self, start: Mark) -> Rates:
        """The rates since a mark."""
        now = self.mark()
        seconds, steps = max(now.time_s - start.time_s, 1e-9), max(1, now.steps - start.steps)
        exchange_ms = None
        if now.exchanged_s is not None:
            exchange_ms = 1e3 * (now.exchanged_s - start.exchanged_s) / steps
        return Rates(
            (now.samples - start.samples) / seconds,
            1e3 * seconds / steps,
            data_wait_ms=1e3 * (now.waited_s - start.waited_s) / steps,
            exchange_ms=exchange_ms,
        )
