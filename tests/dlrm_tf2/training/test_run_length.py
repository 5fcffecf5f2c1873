"""Which steps a run has, and after which of them it evaluates."""

import pytest

from dlrm_tf2.config import TrainConfig
from dlrm_tf2.data.batches import Position
from dlrm_tf2.training.run_length import NothingToTrain, length_of


class Data:
    """A split of 1000 samples, as far as its length matters."""

    num_samples = 1000

    def __init__(self, drop_last=False):
        self._drop_last = drop_last

    def num_batches(self, batch_size, start=0):
        whole, part = divmod(self.num_samples - start, batch_size)
        return whole + (part > 0 and not self._drop_last)


def length(step=0, position=Position(), drop_last=False, **flags):  # noqa: B008 - frozen
    config = TrainConfig(**{"dataset_path": "d", "batch_size": 128, "drop_last": drop_last, **flags})
    return length_of(config, Data(drop_last), step=step, position=position)


@pytest.mark.parametrize("flags, steps, evaluations", [
    ({}, 8, [8]),  # 7 batches of 128, one of 104
    ({"epochs": 3}, 24, [8, 16, 24]),
    ({"epochs": 3, "drop_last": True}, 21, [7, 14, 21]),
    ({"epochs": 2, "evals_per_epoch": 2}, 16, [4, 8, 12, 16]),
    ({"evals_per_epoch": 3}, 8, [3, 6, 8]),
    ({"evals_per_epoch": 0}, 8, []),
    ({"max_steps": 5}, 5, [5]),
    ({"max_steps": 20}, 20, [8, 16, 20]),  # into the third pass
    ({"max_steps": 20, "epochs": 1}, 8, [8]),
    ({"max_steps": 5, "epochs": 3}, 5, [5]),
    ({"epochs": 2, "eval_every": 5}, 16, [5, 10, 15, 16]),
    ({"eval_every": 4}, 8, [4, 8]),
    ({"eval_every": 100, "evals_per_epoch": 0}, 8, [8]),
    ({"eval_every": 3, "eval_within_epoch": True, "epochs": 2}, 16, [3, 6, 8, 11, 14, 16]),
    ({"eval_every": 4, "eval_within_epoch": True, "epochs": 2, "max_steps": 13}, 13, [4, 8, 12, 13]),
])  # fmt: skip
def test_steps_and_evaluations(flags, steps, evaluations):
    found = length(**flags)
    assert (found.first, found.last) == (1, steps)
    assert sorted(found.evaluate_after) == evaluations


def test_what_is_left_of_a_pass_counts_as_one():
    """Ten steps of a restored model: two of the pass that it stopped in, which began 6 steps before."""
    position = Position(epoch=1, sample=6 * 128)
    found = length(step=14, position=position, epochs=2)
    assert (found.first, found.last) == (15, 24)
    assert sorted(found.evaluate_after) == [16, 24]
    assert sorted(length(step=14, position=position, max_steps=9, eval_every=4).evaluate_after) == [16, 20, 23]


def test_more_steps_than_epochs_have_is_said():
    (note,) = length(max_steps=20, epochs=2).notes
    assert "max_steps 20 is more than 2 epochs have: 16 steps" in note


def test_nothing_to_train_is_refused():
    with pytest.raises(NothingToTrain, match="drop_last leaves none of 1000 training samples: batch_size is 1001"):
        length(batch_size=1001, drop_last=True)
