"""The first and the last step of a run, and the steps after which it evaluates."""

import math
from dataclasses import dataclass

from dlrm_tf2.config import TrainConfig
from dlrm_tf2.data.batches import Position, RankData


class NothingToTrain(ValueError):
    """The training split is smaller than a batch, and --drop_last allows whole batches only."""


@dataclass(frozen=True)
class RunLength:
    """The steps of a run. Steps are counted from the model's first weights, over all of its runs.

    Attributes:
      first, last: the first and the last step.
      steps_per_epoch: steps of a whole pass over the training data.
      evaluate_after: steps after which the model is evaluated.
      notes: lines for the user.
    """

    first: int
    last: int
    steps_per_epoch: int
    evaluate_after: frozenset[int]
    notes: tuple[str, ...]


def length_of(config: TrainConfig, data: RankData, *, step: int, position: Position) -> RunLength:
    """The steps of the run that the flags in `config` ask for.

    Args:
      config: the run.
      data: the training split.
      step: steps that the model has been trained for when the run begins.
      position: position in the data when the run begins.

    Raises:
      NothingToTrain: drop_last leaves no sample.
    """
    per_epoch = data.num_batches(config.batch_size)
    left_of_pass = data.num_batches(config.batch_size, position.sample)  # the rest of a pass counts as a pass
    steps = left_of_pass + per_epoch * ((config.epochs or 1) - 1)
    if steps == 0:
        raise NothingToTrain(
            f"drop_last leaves none of {data.num_samples} training samples: batch_size is {config.batch_size}. "
            "Lower --batch_size."
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
    """The steps after which the run evaluates.

    Args:
      config: the run.
      steps: number of steps of the run.
      per_epoch: steps of a whole pass.
      before: steps of the first pass that an earlier run has made.
      step: as in length_of.
    """
    last = step + steps
    if config.eval_every and not config.eval_within_epoch:
        return {*range(step + config.eval_every - step % config.eval_every, last, config.eval_every), last}
    if config.eval_every:
        of_pass = [*range(config.eval_every, per_epoch, config.eval_every), per_epoch]
    elif config.evals_per_epoch:
        parts = range(1, config.evals_per_epoch + 1)
        of_pass = [math.ceil(per_epoch * part / config.evals_per_epoch) for part in parts]
    else:
        return set()
    epochs = -(-(before + steps) // per_epoch)
    spaced = {epoch * per_epoch + after - before for epoch in range(epochs) for after in of_pass}
    return {step + after for after in spaced if 0 < after < steps} | {last}
