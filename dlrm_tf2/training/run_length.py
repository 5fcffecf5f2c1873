"""From which step to which a run trains, and after which steps it evaluates."""

import math
from dataclasses import dataclass

from dlrm_tf2.config import TrainConfig
from dlrm_tf2.data.batches import Position, RankData


class NothingToTrain(ValueError):
    """The training split has not one whole batch, and only whole ones are asked for."""


@dataclass(frozen=True)
class RunLength:
    """The steps of a run, counted over all runs that the model has been through.

    Attributes:
      first, last: the first and the last step.
      steps_per_epoch: steps of a whole pass over the training data.
      evaluate_after: steps that an evaluation follows.
      notes: what a user should know.
    """

    first: int
    last: int
    steps_per_epoch: int
    evaluate_after: frozenset[int]
    notes: tuple[str, ...]


def length_of(config: TrainConfig, data: RankData, *, step: int, position: Position) -> RunLength:
    """The run that `config` asks for, from where it begins.

    Args:
      data: the training split.
      step: steps that the model has had when the run begins.
      position: samples that it has seen.

    Raises:
      NothingToTrain: drop_last leaves none of the samples.
    """
    per_epoch = data.num_batches(config.batch_size)
    left_of_pass = data.num_batches(config.batch_size, position.sample)  # what is left of a pass counts as one
    steps = left_of_pass + per_epoch * ((config.epochs or 1) - 1)
    if steps == 0:
        raise NothingToTrain(
            f"drop_last leaves none of {data.num_samples} training samples: batch_size is {config.batch_size}. "
            "Lower it."
        )
    notes = []
    if config.max_steps != -1:
        if config.epochs is not None and steps < config.max_steps:
            notes.append(f"max_steps {config.max_steps} is more than {config.epochs} epochs have: {steps} steps.")
        steps = config.max_steps if config.epochs is None else min(steps, config.max_steps)
    evaluate_after = _evaluations(config, steps, per_epoch=per_epoch, before=per_epoch - left_of_pass, step=step)
    return RunLength(
        step + 1, step + steps, steps_per_epoch=per_epoch, evaluate_after=frozenset(evaluate_after), notes=tuple(notes)
    )


def _evaluations(config: TrainConfig, steps: int, *, per_epoch: int, before: int, step: int) -> set[int]:
    """Args:
    before: steps of the first pass that were made before this run.
    step: as in length_of.
    """
    last = step + steps
    if config.eval_every:
        return {*range(step + config.eval_every - step % config.eval_every, last, config.eval_every), last}
    if not config.evals_per_epoch:
        return set()
    epochs = -(-(before + steps) // per_epoch)
    spaced = {
        epoch * per_epoch + math.ceil(per_epoch * part / config.evals_per_epoch) - before
        for epoch in range(epochs)
        for part in range(1, config.evals_per_epoch + 1)
    }
    return {step + after for after in spaced if 0 < after < steps} | {last}
