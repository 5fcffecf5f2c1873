"""A TensorFlow profile of some steps on one rank, for TensorBoard."""

from pathlib import Path

import tensorflow as tf

from dlrm_tf2.config import ConfigError, TrainConfig
from dlrm_tf2.runtime import terminal

NUM_STEPS = 100  # as published


def check_profiler_flags(config: TrainConfig, world_size: int) -> None:
    """Checks the flags of the profiler before the training begins.

    Raises:
      ConfigError: the job has no rank `profiled_rank`, or profiler_path cannot be a folder.
    """
    if config.profiler_start_step is None:
        return
    folder = Path(config.profiler_path)
    if any(path.exists() and not path.is_dir() for path in (folder, *folder.parents)):
        raise ConfigError(f"--profiler_path {config.profiler_path}: is a file, or lies in one. Name a folder.")
    if config.profiled_rank >= world_size:
        ranks = "rank 0 is the only one" if world_size == 1 else f"the ranks are 0 to {world_size - 1}"
        raise ConfigError(f"--profiled_rank is {config.profiled_rank}; {ranks}. Name one of them.")


class Profiler:
    """Profiles NUM_STEPS steps from profiler_start_step on, or as many of them as this process trains.

    Args:
      config: the run.
      rank: rank of this process; on every rank but profiled_rank, all calls do nothing.
    """

    def __init__(self, config: TrainConfig, rank: int):
        self._path, self._running = config.profiler_path, False
        self._steps = range(0)
        if config.profiler_start_step is not None and rank == config.profiled_rank:
            self._steps = range(config.profiler_start_step, config.profiler_start_step + NUM_STEPS)

    def begin(self, step: int) -> None:
        """Call before a step."""
        if not self._running and step in self._steps:
            tf.profiler.experimental.start(self._path)
            self._running = True

    def end(self, step: int) -> None:
        """Call after a step."""
        if self._running and step + 1 not in self._steps:
            self.stop()

    def stop(self) -> None:
        """Writes the profile so far. Call after the last step.

        A profile that cannot be written does not end the training: a warning says so.
        """
        if not self._running:
            return
        self._running = False
        try:
            tf.profiler.experimental.stop()
        except tf.errors.OpError as error:
            terminal.warn(f"--profiler_path {self._path}: no profile was written: {error.message}")
