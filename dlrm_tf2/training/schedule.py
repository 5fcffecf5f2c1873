"""The learning rate of each step, by one of the published policies."""

from dataclasses import dataclass

from dlrm_tf2.config import TrainConfig

_SMALLEST = 1e-7  # the rate below which TorchRec's decay does not fall


@dataclass(frozen=True)
class Schedule:
    """Linear warm-up, a plateau, and a fall to 0 with power 2; 0 from then on.

    Attributes:
      learning_rate: learning rate of the plateau.
      warmup_steps: steps of the rise; its step s (the first is 1) has s / warmup_steps of the learning rate.
      decay_start_step: last step of the plateau.
      decay_steps: steps of the fall.
      first: number of the first step in the schedule: 1, so that the first step learns and a short run loses no batch;
        or 0 as published, where the first step of a warm-up has rate 0 and each rate comes one step later.

    Source: NVIDIA's DLRM and the DLRM benchmark of HugeCTR's sparse operation kit, with `first` 0. There the square
    makes the rate rise again after decay_start_step + decay_steps.
    """

    learning_rate: float
    warmup_steps: int
    decay_start_step: int
    decay_steps: int
    first: int = 1

    @property
    def last_step(self) -> int:
        """The first step at which the rate is 0."""
        return self.decay_start_step + self.decay_steps + 1 - self.first

    def at(self, step: int) -> float:
        """The learning rate of step 1, 2, ..."""
        place = step - 1 + self.first
        if place < self.warmup_steps:
            return self.learning_rate * place / self.warmup_steps
        if place <= self.decay_start_step:
            return self.learning_rate
        left = max(0, self.last_step - step) / self.decay_steps
        return self.learning_rate * left**2


@dataclass(frozen=True)
class TorchrecSchedule:
    """TorchRec's policy: linear warm-up, the last rate of the warm-up, a fall with power 2, the last rate of the fall.

    Attributes:
      learning_rate: base rate, which the first step of the fall has; without a fall, every step after the warm-up.
      warmup_steps: the steps s before it (the first is 1) have s / warmup_steps of the base rate.
      decay_start_step: first step of the fall.
      decay_steps: steps of the fall; 0 for none.
      last_step: None: the rate is never 0.

    Source: the rates that LRPolicyScheduler of TorchRec's DLRM example gives, step by step. With a fall and no warm-up
    it stops with an error at the first step; here these steps have the base rate.
    """

    learning_rate: float
    warmup_steps: int
    decay_start_step: int
    decay_steps: int
    last_step: None = None

    def at(self, step: int) -> float:
        """The learning rate of step 1, 2, ..."""
        if step < self.warmup_steps:
            return self.learning_rate * step / self.warmup_steps
        if self.decay_steps == 0:
            return self.learning_rate
        if step < self.decay_start_step:
            last_of_warmup = max(1, self.warmup_steps - 1) / max(1, self.warmup_steps)
            return self.learning_rate * last_of_warmup
        done = min(step - self.decay_start_step, self.decay_steps - 1)
        return max(_SMALLEST, self.learning_rate * ((self.decay_steps - done) / self.decay_steps) ** 2)


def schedule_of(config: TrainConfig) -> Schedule | TorchrecSchedule:
    """The schedule that the flags ask for."""
    shape = {name: getattr(config, name) for name in ("warmup_steps", "decay_start_step", "decay_steps")}
    if config.lr_policy == "torchrec":
        return TorchrecSchedule(config.learning_rate, **shape)
    return Schedule(config.learning_rate, **shape, first=0 if config.lr_policy == "published" else 1)
