"""The learning-rate schedule against its formula."""

import pytest

from dlrm_tf2.training.schedule import Schedule

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
