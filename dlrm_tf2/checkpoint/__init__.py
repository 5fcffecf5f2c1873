"""Saves and restores the model over all ranks: each rank its own shards, onto any other number of ranks or plan.

A checkpoint is written beside its destination and renamed when it is complete; until then the one before stays. What
goes wrong on one rank ends the operation on all of them. The folder is drawn in manifest.py. No TensorFlow here:
variables are asked for `.numpy()` and given `.assign(values)`.
"""

from dlrm_tf2.checkpoint.files import CheckpointError
from dlrm_tf2.checkpoint.kept import best_path, of_other_runs
from dlrm_tf2.checkpoint.restoring import (
    is_there,
    load_checkpoint,
    open_checkpoint,
    peek_document,
    read_document,
    restore_tables,
)
from dlrm_tf2.checkpoint.saving import CheckpointWriter, save_checkpoint
from dlrm_tf2.checkpoint.staging import check_destination

__all__ = [
    "CheckpointError",
    "CheckpointWriter",
    "best_path",
    "check_destination",
    "is_there",
    "load_checkpoint",
    "of_other_runs",
    "open_checkpoint",
    "peek_document",
    "read_document",
    "restore_tables",
    "save_checkpoint",
]
