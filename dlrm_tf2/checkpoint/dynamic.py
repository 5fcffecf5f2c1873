"""Saves and restores the keys of dynamic tables with their rows. No TensorFlow.

Restoring is storing the keys again, each in the bucket that it belongs to: on any number of ranks, and in a table of
another capacity. dynamic_entries.py describes the files. `table` is a DynamicTable, or what has its methods.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dlrm_tf2.checkpoint.bfloat16 import BFLOAT16, bits_of, weights_of
from dlrm_tf2.checkpoint.dynamic_entries import COUNTED, KEYS, OF_KEYS, SCORES, STEPS
from dlrm_tf2.checkpoint.files import read_array, rows_per_block, stream_rows
from dlrm_tf2.checkpoint.folder import Folder
from dlrm_tf2.checkpoint.manifest import Manifest
from dlrm_tf2.checkpoint.manifest_entries import StoredShard
from dlrm_tf2.runtime import activity


class DynamicCopy:
    """A copy of the part of a dynamic table on a rank, which training does not change.

    Args:
      table: the part.
      dtypes: slot of the table's rows -> dtype of its files, in which it is copied.
    """

    def __init__(self, table, dtypes: Mapping[str, str]):
        stored, self._counted, self._dtypes = table.stored(), table.counted(), dtypes
        self._stored = stored._replace(rows=np.arange(len(stored.keys)))
        self._arrays = {slot: _copy(table, stored.rows, slot=slot, dtype=dtype) for slot, dtype in dtypes.items()}

    def stored(self):
        """The keys; the row of each is its place in the copy."""
        return self._stored

    def counted(self) -> dict[str, np.ndarray]:
        """The counter of admission."""
        return self._counted

    def read(self, rows: np.ndarray, slot: str) -> np.ndarray:
        """A slot of rows."""
        values = self._arrays[slot][rows]
        return weights_of(values) if self._dtypes[slot] == BFLOAT16 else values


class Restored(NamedTuple):
    """What became of the keys of a table: how many were stored, and find room now; whether the counts of keys that were
    not stored are taken over."""

    keys: int
    kept: int
    counts: bool


def blocks_of_keys(table, rows: np.ndarray, *, slot: str, num_columns: int) -> Iterator[np.ndarray]:
    """The values of a slot of some rows, a block of rows at a time: [rows of the block, num_columns]."""
    step = rows_per_block(num_columns)
    for start in range(0, len(rows), step):
        activity.report_progress()
        values = table.read(rows[start : start + step], slot)
        yield np.broadcast_to(values, (len(values), num_columns))  # a slot may have one number a row


def restore_dynamic(folder: Path | Folder, manifest: Manifest, *, name: str, table, slots: Sequence[str]) -> Restored:
    """Stores the keys of a checkpoint's table that belong to this rank, and writes their rows.

    Args:
      folder, manifest: the checkpoint.
      name: of the table.
      table: this rank's part.
      slots: the slots of its rows to restore.

    Raises:
      CheckpointError: a file is damaged.
    """
    files: dict[str, list[StoredShard]] = defaultdict(list)
    for shard in sorted((one for one in manifest.shards if one.table == name), key=lambda one: one.rows):
        files[shard.slot].append(shard)
    arrays = {slot: [read_array(folder, shard.file) for shard in files[slot]] for slot in OF_KEYS}
    owned = [table.owns(keys) for keys in arrays[KEYS]]
    keys, scores, steps = (np.concatenate(_chosen(arrays[slot], owned)) for slot in (KEYS, SCORES, STEPS))
    same_size = next(one.num_rows for one in manifest.tables if one.name == name) == table.num_rows
    table.clear(manifest.document.get("step") or 0)
    rows = table.assign(keys, scores=scores, steps=steps, in_order=same_size)
    of_shards = np.split(rows, np.cumsum([np.count_nonzero(of_shard) for of_shard in owned])[:-1])
    for slot in slots:
        for shard, is_own, new_rows in zip(files[slot], owned, of_shards, strict=True):
            _write_rows(folder, shard, table=table, is_own=is_own, rows=new_rows)
    counted = {slot: [read_array(folder, shard.file) for shard in files[slot]] for slot in COUNTED if files[slot]}
    counts = table.assign_counted({slot: np.concatenate(parts) for slot, parts in counted.items()}, same_size)
    return Restored(len(keys), int(np.count_nonzero(rows >= 0)), counts)


def _write_rows(folder: Path | Folder, shard: StoredShard, *, table, is_own: np.ndarray, rows: np.ndarray) -> None:
    """Writes the values of a shard's file to the rows that its own keys have now; -1 for none."""
    if not len(rows):
        return
    new_rows = np.full(len(is_own), -1)
    new_rows[is_own] = rows
    for first, block in stream_rows(folder, shard.file, None):
        of_block = new_rows[first : first + len(block)]
        table.write(of_block[of_block >= 0], shard.slot, block[of_block >= 0])


def _chosen(arrays: list[np.ndarray], masks: list[np.ndarray]) -> list[np.ndarray]:
    return [array[mask] for array, mask in zip(arrays, masks, strict=True)]


def _copy(table, rows: np.ndarray, *, slot: str, dtype: str) -> np.ndarray:
    values = table.read(rows, slot)
    return bits_of(values) if dtype == BFLOAT16 else values
