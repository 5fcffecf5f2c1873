"""Departures: between which steps of a training keys leave the dynamic tables for their age or their small weights.

All of it is a function of the step alone, so that a resumed run loses the same keys at the same steps.
"""

from dlrm_tf2.config import TrainConfig
from dlrm_tf2.embedding.layer import DistributedEmbedding

_EXPIRIES = 16  # in --expire_after_steps


class Departures:
    """Erases keys after steps. Every rank makes the same calls, each for its own part of the tables.

    Args:
      config: the run.
      embedding: the tables.
      last: the last step of the run as it is planned.
    """

    def __init__(self, config: TrainConfig, embedding: DistributedEmbedding, last: int):
        self._embedding, self._last = embedding, last
        self._expires = config.expire_after_steps is not None
        self._expire_every = max(1, (config.expire_after_steps or 0) // _EXPIRIES)
        self._least_norm = config.evict_below_norm if config.save_checkpoint_path else None
        self._checkpoint_every = config.checkpoint_every

    def after(self, step: int) -> None:
        """Erases what leaves after a step, before this step's line of the log, its evaluation and its checkpoint.

        The checkpoint of a run that is stopped, or that has reached --auc_threshold, erases nothing: its step depends
        on more than the flags.
        """
        if self._expires and step % self._expire_every == 0:
            self._embedding.expire(step)
        if self._least_norm is not None and self._saves_after(step):
            self._embedding.erase_small(self._least_norm)

    def _saves_after(self, step: int) -> bool:
        return step == self._last or (self._checkpoint_every is not None and step % self._checkpoint_every == 0)
