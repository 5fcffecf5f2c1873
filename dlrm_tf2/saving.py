"""The checkpoints of a training: where they go, and which are kept."""

from pathlib import Path

from dlrm_tf2 import checkpoint
from dlrm_tf2.comm import Comm
from dlrm_tf2.model import Dlrm
from dlrm_tf2.run_log import RunLog


class Saver:
    """Saves the model of a training. All ranks must make the same calls.

    Args:
      path: folder of the newest checkpoint.
      comm: the ranks.
      model: this rank's part of the model.
      log: where to say what was saved.
    """

    def __init__(self, path: str, comm: Comm, model: Dlrm, log: RunLog):
        self._path, self._comm, self._model, self._log = path, comm, model, log
        self.saved_step: int | None = None

    def save(self, document: dict) -> None:
        """Saves a checkpoint, which is then the newest.

        Args:
          document: what the checkpoint keeps beside the weights; `step` is the training step.

        Raises:
          CheckpointError: it could not be saved; the one before is still there.
        """
        checkpoint.save_checkpoint(
            self._path, self._comm, self._model.dense_by_name, self._model.embedding, document
        )
        self.saved_step = document["step"]
        self._log.say(f"saved {self._path}: step {self.saved_step}")

    def save_best(self, document: dict) -> None:
        """Saves the checkpoint of the best evaluation so far, beside the newest."""
        best = Path(self._path).with_name(Path(self._path).name + ".best")
        checkpoint.save_checkpoint(best, self._comm, self._model.dense_by_name, self._model.embedding, document)
        self._log.say(f"saved {best}: step {document['step']}")
