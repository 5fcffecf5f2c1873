"""The checkpoints of a training: where they go, which are kept, and whether training waits for them."""

import time
from pathlib import Path

from dlrm_tf2 import checkpoint
from dlrm_tf2.checkpoint import CheckpointError, CheckpointWriter
from dlrm_tf2.config import TrainConfig
from dlrm_tf2.logs.run_log import RunLog
from dlrm_tf2.model.dlrm import Dlrm
from dlrm_tf2.runtime import activity
from dlrm_tf2.runtime.comm import Comm


class Saver:
    """Saves the model of a training. All ranks must make the same calls, between the same steps.

    With checkpoint_async, a checkpoint that training does not end with is copied, and written while training goes on;
    a later call puts it in place. There is one such copy at a time.

    Args:
      config: the run; save_checkpoint_path is given.
      comm: the ranks.
      model: this rank's part of the model.
      log: where to say what was saved.
      run: names the run in its checkpoints.
      saved_step: step of the checkpoint that the run goes on from, if it does.

    Attributes:
      saved_step: that of the newest checkpoint of the run; None if there is none.
    """

    def __init__(
        self, config: TrainConfig, comm: Comm, *, model: Dlrm, log: RunLog, run: str, saved_step: int | None = None
    ):
        self._path, self._keep = config.save_checkpoint_path, config.keep_checkpoints
        self._async = config.checkpoint_async
        self._comm, self._model, self._log, self._run = comm, model, log, run
        self._pending: CheckpointWriter | None = None
        self.saved_step = saved_step

    def save(self, document: dict, wait: bool = True) -> None:
        """Saves a checkpoint, which is then the newest.

        Args:
          document: what the checkpoint keeps beside the weights; `step` is the training step.
          wait: the checkpoint must be in place on return, checkpoint_async or not.

        Raises:
          CheckpointError: this one, or the one before that was still being written, could not be saved. What was in
            place is still there.
        """
        self._save(self._path, document, wait=wait, keep=self._keep)

    def save_best(self, document: dict) -> None:
        """Saves the checkpoint of the best evaluation so far, beside the newest. Raises as `save` does."""
        self._save(checkpoint.best_path(self._path), document, wait=False, keep=1)

    def poll(self) -> None:
        """Puts the checkpoint that is being written in place, if all ranks have written it. Raises as `save` does."""
        if self._pending and self._pending.is_written():
            self.complete()

    def complete(self) -> None:
        """Puts the checkpoint that is being written in place, and waits for it if need be. Raises as `save` does."""
        if self._pending is None:
            return
        save, self._pending = self._pending, None
        waits, start = not save.is_written(), time.perf_counter()
        notes = save.commit()
        if waits:
            self._log.say(f"waited {time.perf_counter() - start:.1f} s for the checkpoint of step {save.step}")
        self._saved(save, notes)

    def kept(self) -> str:
        """What there is now that training fails, in a sentence; completes the checkpoint that is being written."""
        lost = ""
        try:
            self.complete()
        except CheckpointError as error:
            lost = f" {error}"
        if self.saved_step is None:
            return f"No checkpoint was saved.{lost}"
        return f"The checkpoint of step {self.saved_step} is kept.{lost}"

    def abandon(self) -> None:
        """Gives up the checkpoint that is being written, for a training that has ended without it."""
        if self._pending:
            self._pending.discard()
            self._pending = None

    def _save(self, path: str | Path, document: dict, *, wait: bool, keep: int) -> None:
        activity.doing(f"saving the checkpoint of step {document['step']}")
        self.complete()
        document = document | {"run": document["run"] | {"id": self._run}}
        save = CheckpointWriter(path, self._comm, document=document, keep=keep)
        if wait or not self._async:
            save.write(self._model.dense_by_name, self._model.embedding)
            self._saved(save, save.commit())
            return
        start = time.perf_counter()
        save.write_behind(self._model.dense_by_name, self._model.embedding)
        self._pending = save
        copied_s = time.perf_counter() - start
        self._log.say(f"saving {path}: step {save.step}, copied in {copied_s:.1f} s, is written while training goes on")

    def _saved(self, save: CheckpointWriter, notes: list[str]) -> None:
        if save.path == self._path:
            self.saved_step = save.step
        for line in (*notes, f"saved {save.path}: step {save.step}"):
            self._log.say(line)
