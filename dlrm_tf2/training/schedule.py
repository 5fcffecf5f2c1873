"""The learning rate of each step."""

from dataclasses import dataclass


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
