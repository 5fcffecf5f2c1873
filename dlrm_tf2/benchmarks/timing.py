"""The times of a benchmark's steps, and tables of text. No TensorFlow."""

import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

Result = TypeVar("Result")


@dataclass(frozen=True)
class StepTimes:
    """The times of some steps of the same size.

    Attributes:
      num_steps: number of steps.
      mean_ms: milliseconds of all steps together, divided by their number: the figure of the published benchmarks.
      p50_ms, p95_ms, p99_ms: percentiles of the milliseconds of a step.
      samples_per_s: samples of all ranks per second.
    """

    num_steps: int
    mean_ms: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    samples_per_s: float

    @classmethod
    def of(cls, seconds: Sequence[float], batch_size: int) -> "StepTimes":
        """The figures of steps that took `seconds` each.

        Args:
          seconds: one number for each step, at least one.
          batch_size: samples of a step, all ranks together.
        """
        p50, p95, p99 = np.percentile(seconds, [50, 95, 99]) * 1e3
        mean = sum(seconds) / len(seconds)
        return cls(len(seconds), mean * 1e3, float(p50), float(p95), float(p99), batch_size / mean)

    def record(self) -> dict[str, float]:
        """The figures for a log, by name."""
        return dataclasses.asdict(self)

    def line(self) -> str:
        """The figures as a line of text."""
        return (
            f"{self.mean_ms:.3f} ms per iteration over {self.num_steps} steps (p50 {self.p50_ms:.3f}, p95 "
            f"{self.p95_ms:.3f}, p99 {self.p99_ms:.3f}), {self.samples_per_s:,.0f} samples/s"
        )


def time_steps(
    run: Callable[[int], Result], wait: Callable[[Result], object], *, num_steps: int, ahead: bool = False
) -> list[float]:
    """Runs steps 0, 1, ... and returns the seconds of each, which add up to the time of all.

    Args:
      run: starts the step of this number.
      wait: waits for what `run` returned. A step ends here.
      ahead: start each step before the step before it has ended, so that a GPU is never without work. On a CPU `run`
        returns when the step has ended, so there the times would be wrong.
    """
    moments, unread = [time.perf_counter()], []
    for step in range(num_steps):
        unread.append(run(step))
        if len(unread) > ahead:
            wait(unread.pop(0))
            moments.append(time.perf_counter())
    for result in unread:
        wait(result)
        moments.append(time.perf_counter())
    return np.diff(moments).tolist()


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table as Markdown, with aligned columns.

    Args:
      header: names of the columns.
      rows: cells, as many as the header has.
    """
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    rule = ["-" * width for width in widths]
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in (header, rule, *rows)
    )
