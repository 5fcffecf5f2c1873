"""A TensorFlow profile of some steps on one rank, for TensorBoard."""

import sys
from pathlib import Path

import tensorflow as tf

from dlrm_tf2.config import ConfigError, TrainConfig

NUM_STEPS = 100  # as published


def check_profiler_flags(config: TrainConfig, world_size: int) -> None:
    """Refuses to profile a rank that is not there, or into what is no folder, before there is anything to lose.

    Raises:
      ConfigError: profiled_rank is none of the ranks, or profiler_path cannot be a folder.
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
    """Profiles NUM_STEPS steps from profiler_start_step on, or those of them that this process trains.

    Args:
      config: the run.
      rank: of this process; on another one than profiled_rank all calls do nothing.
    """

    def __init__(self, config: TrainConfig, rank: int):
        self._path, self._running = config.profiler_path, False
        self._steps = range(0)
        if config.profiler_start_step is not None and rank == config.profiled_rank:
            self._steps = range(config.profiler_start_step, config.profiler_start_step + NUM_STEPS)

    def begin(self, step: int) -> None:
        """This step is about to begin."""
        if not self._running and step in self._steps:
            tf.profiler.experimental.start(self._path)
            self._running = True

    def end(self, step: int) -> None:
        """This step is done."""
        if self._running and step + 1 not in self._steps:
            self.stop()

    def stop(self) -> None:
        """Writes what was profiled so far; after the last step at the latest.

        A profile that cannot be written is lost, and the training is not.
        """
        if not self._running:
            return
        self._running = False
        try:
            tf.profiler.experimental.stop()
        except tf.errors.OpError as error:
            print(f"--profiler_path {self._path}: no profile was written: {error.message}", file=sys.stderr)
