"""Whether a run that was interrupted goes on: the checkpoint in save_checkpoint_path says so."""

import os
from dataclasses import dataclass

from dlrm_tf2 import checkpoint
from dlrm_tf2.config import TrainConfig


@dataclass(frozen=True)
class Resumption:
    """An unfinished run to go on with.

    Attributes:
      path: the folder of its checkpoint.
      seed: its seed.
    """

    path: str
    seed: int

    @classmethod
    def find(cls, config: TrainConfig) -> "Resumption | None":
        """The unfinished run that `config` asks to go on with; None where it starts a new one."""
        path = config.save_checkpoint_path
        if config.mode != "train" or config.resume == "off" or not path or not os.path.isdir(path):
            return None
        document = checkpoint.read_document(path)
        if document.get("run", {}).get("finished", True):
            return None
        return cls(path, document["config"]["seed"])
