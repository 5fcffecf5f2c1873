"""Saves and restores the model over all ranks: each rank its own shards, onto any other number of ranks or plan.

    saving.py            CheckpointWriter: one checkpoint, written by all ranks at once or behind the training
    part.py              what one rank writes of a checkpoint, or a copy of it
    restoring.py         opens a checkpoint; copies the stored shards into the shards of the ranks
    dynamic.py           the keys of dynamic tables with their rows
    dynamic_entries.py   the files of dynamic tables in the manifest
    manifest.py          the drawing of the folder; the manifest, read and checked
    bfloat16.py          16-bit weights in files
    manifest_entries.py  the records of the manifest, from JSON values of any type
    document.py          the keys and types of the trainer's document
    files.py             .npy files, written and read a block at a time, with checksums
    folder.py            the folder that they are created in and read from, on a disk that the rank sees
    remote_folder.py     the same, on the disk of rank 0's host
    folder_server.py     rank 0 writes and reads files for the ranks that do not see its disk
    folder_messages.py   what these two say to each other
    staging.py           the folder that becomes the next checkpoint
    kept.py              the older checkpoints of a run: NAME.step-N, NAME.best

A checkpoint is written next to its destination and renamed when it is complete. An error on one rank ends the operation
on all ranks.
"""

from dlrm_tf2.checkpoint.document import check_document
from dlrm_tf2.checkpoint.files import CheckpointError
from dlrm_tf2.checkpoint.folder_server import gathered
from dlrm_tf2.checkpoint.kept import best_path, of_other_runs
from dlrm_tf2.checkpoint.remote_folder import DiskOfRank0
from dlrm_tf2.checkpoint.restoring import (
    check_optimizer,
    has_checkpoint,
    load_checkpoint,
    open_checkpoint,
    peek_document,
    read_document,
    restore_tables,
)
from dlrm_tf2.checkpoint.saving import CheckpointWriter, save_checkpoint
from dlrm_tf2.checkpoint.staging import check_destination, staging_folder

__all__ = [
    "CheckpointError",
    "CheckpointWriter",
    "DiskOfRank0",
    "best_path",
    "check_destination",
    "check_document",
    "check_optimizer",
    "gathered",
    "has_checkpoint",
    "load_checkpoint",
    "of_other_runs",
    "open_checkpoint",
    "peek_document",
    "read_document",
    "restore_tables",
    "save_checkpoint",
    "staging_folder",
]
