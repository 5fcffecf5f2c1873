"""Measures training steps: a lap since the last line of the log, and a mean that leaves out the warm-up."""

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar

Item = TypeVar("Item")


@dataclass(frozen=True)
class _Mark:
    steps: int
    samples: int
    waited_s: float
    time_s: float


class StepClock:
    """Counts steps and samples against a clock that stands still while it is paused.

    Args:
      warmup: number of first steps that the mean leaves out.
    """

    def __init__(self, warmup: int):
        self._warmup, self._steps, self._samples = warmup, 0, 0
        self._paused_s = self._waited_s = 0.0
        self._lap_start = self._mean_start = self._mark()

    def count(self, samples: int) -> None:
        """A step with this many samples is done."""
        self._steps += 1
        self._samples += samples
        if self._steps == self._warmup:
            self._mean_start = self._mark()

    def waiting_for(self, items: Iterator[Item]) -> Iterator[Item]:
        """Yields what `items` yields, and measures how long each is waited for."""
        while True:
            start = time.perf_counter()
            try:
                item = next(items)
            except StopIteration:
                return
            self._waited_s += time.perf_counter() - start
            yield item

    def lap(self) -> tuple[float, float, float]:
        """(samples per second, milliseconds per step, of which waiting for data) since the last lap."""
        start, self._lap_start = self._lap_start, self._mark()
        return self._rates(start)

    def mean(self) -> tuple[float, float, float]:
        """(samples per second, milliseconds per step, of which waiting for data) since the warm-up."""
        return self._rates(self._mean_start)

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """The time spent in this context does not count."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self._paused_s += time.perf_counter() - start

    def _mark(self) -> _Mark:
        return _Mark(self._steps, self._samples, self._waited_s, time.perf_counter() - self._paused_s)

    def _rates(self, start: _Mark) -> tuple[float, float, float]:
        now = self._mark()
        seconds, steps = max(now.time_s - start.time_s, 1e-9), max(1, now.steps - start.steps)
        waited_s = now.waited_s - start.waited_s
        return (now.samples - start.samples) / seconds, 1e3 * seconds / steps, 1e3 * waited_s / steps
