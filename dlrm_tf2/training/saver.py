"""The checkpoints of a run: where they go, which are kept, and whether training waits for them."""

import time
from pathlib import Path

from dlrm_tf2 import checkpoint
from dlrm_tf2.checkpoint import CheckpointError, CheckpointWriter, DiskOfRank0
from dlrm_tf2.config import TrainConfig
from dlrm_tf2.logs.run_log import RunLog
from dlrm_tf2.model.dlrm import Dlrm
from dlrm_tf2.runtime import activity


class Saver:
    """Saves the model of a run. All ranks must make the same calls, between the same steps.

    With checkpoint_async, a checkpoint before the end of the run is copied, and written while training continues; a
    later call puts it in place. One such copy exists at a time.

    Args:
      config: the run; save_checkpoint_path is given.
      model: this rank's part of the model.
      log: takes a line for each saved checkpoint.
      run: name of the run, which its checkpoints keep.
      saved_step: step of the checkpoint from which the run is resumed; None for a new run.
      disk: on a rank that does not see save_checkpoint_path, the disk of rank 0; None for other ranks.

    Attributes:
      saved_step: step of the run's newest checkpoint; None if the run has no checkpoint.
    """

    def __init__(
        self,
        config: TrainConfig,
        model: Dlrm,
        *,
        log: RunLog,
        run: str,
        saved_step: int | None = None,
        disk: DiskOfRank0 | None = None,
    ):
        self._path, self._keep = config.save_checkpoint_path, config.keep_checkpoints
        self._async, self._disk = config.checkpoint_async, disk
        self._comm, self._model, self._log, self._run = model.comm, model, log, run
        self._pending: CheckpointWriter | None = None
        self.saved_step = saved_step

    def save(self, document: dict, wait: bool = True) -> None:
        """Saves a checkpoint, which is then the newest.

        Args:
          document: what the checkpoint keeps besides the weights; `step` is the training step.
          wait: the checkpoint must be in place on return, also with checkpoint_async.

        Raises:
          CheckpointError: this checkpoint, or the checkpoint that was still being written, could not be saved. The
            older checkpoint stays in place.
        """
        self._save(self._path, document, wait=wait, keep=self._keep)

    def save_best(self, document: dict) -> None:
        """Saves the checkpoint of the best evaluation so far, next to the newest. Raises as `save` does."""
        self._save(checkpoint.best_path(self._path), document, wait=False, keep=1)

    def poll(self) -> None:
        """Puts a copied checkpoint in place if all ranks have written it. Raises as `save` does."""
        if self._pending and self._pending.is_written():
            self.complete()

    def complete(self) -> None:
        """Waits until a copied checkpoint is written, and puts it in place. Raises as `save` does."""
        if self._pending is None:
            return
        writer, self._pending = self._pending, None
        waits, start = not writer.is_written(), time.perf_counter()
        notes = writer.commit()
        if waits:
            self._log.say(f"waited {time.perf_counter() - start:.1f} s for the checkpoint of step {writer.step}")
        self._saved(writer, notes)

    def kept(self) -> str:
        """Completes a copied checkpoint; returns the sentence that says which checkpoint a failed training leaves."""
        lost = ""
        try:
            self.complete()
        except CheckpointError as error:
            lost = f" {error}"
        if self.saved_step is None:
            return f"No checkpoint was saved.{lost}"
        return f"The checkpoint of step {self.saved_step} is kept.{lost}"

    def abandon(self) -> None:
        """Discards a copied checkpoint that is not in place, after a training that failed."""
        if self._pending:
            self._pending.discard()
            self._pending = None

    def _save(self, path: str | Path, document: dict, *, wait: bool, keep: int) -> None:
        activity.doing(f"saving the checkpoint of step {document['step']}")
        self.complete()
        document = document | {"run": document["run"] | {"id": self._run}}
        writer = CheckpointWriter(path, self._comm, document=document, keep=keep, disk=self._disk)
        if wait or not self._async:
            writer.write(self._model.dense_by_name, self._model.embedding)
            self._saved(writer, writer.commit())
            return
        start = time.perf_counter()
        writer.write_behind(self._model.dense_by_name, self._model.embedding)
        self._pending = writer
        copied_s = time.perf_counter() - start
        self._log.say(f"saving {path}: step {writer.step}, copied in {copied_s:.1f} s; training continues meanwhile")

    def _saved(self, writer: CheckpointWriter, notes: list[str]) -> None:
        if writer.path == self._path:
            self.saved_step = writer.step
        for line in (*notes, f"saved {writer.path}: step {writer.step}"):
            self._log.say(line)
