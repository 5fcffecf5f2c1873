"""The figures of step times by hand, and which step is waited for when."""

import pytest

from dlrm_tf2.benchmarks.timing import StepTimes, markdown_table, time_steps


def test_figures_by_hand():
    times = StepTimes.of([number / 1e3 for number in range(1, 102)], batch_size=510)
    assert times.record() == pytest.approx(
        {"num_steps": 101, "mean_ms": 51, "p50_ms": 51, "p95_ms": 96, "p99_ms": 100, "samples_per_s": 10_000}
    )
    line = "51.000 ms per iteration over 101 steps (p50 51.000, p95 96.000, p99 100.000), 10,000 samples/s"
    assert times.line() == line


@pytest.mark.parametrize("ahead, order", [
    (False, ["run 0", "wait 0", "run 1", "wait 1", "run 2", "wait 2"]),
    (True, ["run 0", "run 1", "wait 0", "run 2", "wait 1", "wait 2"]),
])  # fmt: skip
def test_each_step_is_run_and_waited_for(ahead, order):
    calls = []

    def run(step):
        calls.append(f"run {step}")
        return step

    seconds = time_steps(run, lambda step: calls.append(f"wait {step}"), num_steps=3, ahead=ahead)
    assert calls == order
    assert len(seconds) == 3 and min(seconds) >= 0


def test_a_table_is_aligned_markdown():
    assert markdown_table(["model", "ms"], [["tiny", "24.433"], ["small", ""]]) == (
        "| model | ms     |\n| ----- | ------ |\n| tiny  | 24.433 |\n| small |        |"
    )
