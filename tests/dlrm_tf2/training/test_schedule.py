"""The learning-rate schedule against its formula."""

import pytest

from dlrm_tf2.config import ConfigError, TrainConfig
from dlrm_tf2.training.schedule import Schedule, TorchrecSchedule

PUBLISHED = Schedule(learning_rate=24.0, warmup_steps=8000, decay_start_step=48000, decay_steps=24000)


@pytest.mark.parametrize(
    "step, rate",
    [
        (1, 24 / 8000),
        (4000, 12.0),
        (8000, 24.0),
        (48000, 24.0),
        (60000, 6.0),
        (64013, 24 * ((72000 - 64013) / 24000) ** 2),  # the published epoch ends near 2.66
        (72000, 0.0),
        (96000, 0.0),  # the published formula is back at 24 here
        (128026, 0.0),
    ],
)
def test_published_schedule(step, rate):
    assert PUBLISHED.at(step) == pytest.approx(rate)


@pytest.mark.parametrize("step", [1, 2, 7999, 8000, 8001, 48000, 48001, 71999, 72000])
def test_it_is_one_step_ahead_of_the_published_schedule(step):
    """The published factor, whose steps count from 0, as its source states it."""

    def published(step):
        return step / 8000 if step < 8000 else 1.0 if step < 48000 else ((72000 - step) / 24000) ** 2

    assert PUBLISHED.at(step) == pytest.approx(24 * published(step))


def test_the_published_count_of_steps_by_hand():
    schedule = Schedule(24.0, 4, decay_start_step=6, decay_steps=2, first=0)
    assert [schedule.at(step) for step in range(1, 12)] == [0, 6, 12, 18, 24, 24, 24, 6, 0, 0, 0]
    assert schedule.last_step == 9 and Schedule(24.0, 4, decay_start_step=6, decay_steps=2).last_step == 8


def test_it_never_rises_after_the_warm_up():
    rates = [PUBLISHED.at(step) for step in range(8000, 140000, 500)]
    assert rates == sorted(rates, reverse=True)


def test_without_warm_up_the_first_step_has_the_whole_rate():
    assert Schedule(0.5, 0, decay_start_step=10, decay_steps=10).at(1) == 0.5


def torchrec_rates(warmup, start, steps, count):
    schedule = TorchrecSchedule(10.0, warmup, decay_start_step=start, decay_steps=steps)
    return [schedule.at(step) for step in range(1, count + 1)]


@pytest.mark.parametrize("warmup, start, steps, rates", [
    # Warm-up 4, fall from 6, in 4 steps: the last rate of the warm-up stays, and the base rate comes with the fall.
    (4, 6, 4, [2.5, 5, 7.5, 7.5, 7.5, 10, 5.625, 2.5, 0.625, 0.625, 0.625]),
    (4, 0, 0, [2.5, 5, 7.5, 10, 10, 10]),
    (0, 3, 2, [10, 10, 10, 2.5, 2.5, 2.5]),  # the published policy stops with an AttributeError at step 1
    (1, 3, 2, [10, 10, 10, 2.5, 2.5]),
    (2, 2, 2, [5, 10, 2.5, 2.5]),
    (0, 0, 0, [10, 10, 10]),
    (0, 0, 1, [10, 10]),  # its whole fall lies before the first step
])  # fmt: skip
def test_torchrec_rates_by_hand(warmup, start, steps, rates):
    assert torchrec_rates(warmup, start, steps, len(rates)) == pytest.approx(rates)


def test_torchrec_does_not_fall_below_its_smallest_rate():
    schedule = TorchrecSchedule(1.0, 0, decay_start_step=1, decay_steps=10_000)
    assert schedule.at(10_000) == schedule.at(20_000) == 1e-7  # 1e-8 by the formula


@pytest.mark.parametrize("flags, message", [
    ({"warmup_steps": 5, "decay_start_step": 4, "decay_steps": 3}, "--warmup_steps 5 is past --decay_start_step 4"),
    ({"lr_policy": "nvidia", "decay_steps": 0}, "--decay_steps is 0; it must be at least 1."),
])  # fmt: skip
def test_a_contradiction_is_refused(flags, message):
    with pytest.raises(ConfigError, match=message):
        TrainConfig(dataset_path="d", **{"lr_policy": "torchrec", **flags})
