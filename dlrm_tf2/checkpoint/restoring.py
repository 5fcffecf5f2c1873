"""Restores a checkpoint onto any number of ranks and any plan. No TensorFlow: variables get `.assign(values)`."""

import os
from pathlib import Path

import numpy as np

from dlrm_tf2.checkpoint.files import CheckpointError, read_array, stream_rows
from dlrm_tf2.checkpoint.manifest import MANIFEST, Manifest, StoredShard, document_of, overlaps, read_manifest
from dlrm_tf2.checkpoint.staging import replaced_path
from dlrm_tf2.runtime import activity, terminal
from dlrm_tf2.runtime.agreement import on_all_ranks, on_rank_0


def load_checkpoint(path: str | Path, comm, *, dense: dict, embedding) -> dict:
    """Restores the model from a checkpoint that any number of ranks saved, under any plan. All ranks call it.

    At least one rank reads each file as a whole and compares its checksum. If this raises, some weights may have been
    overwritten: the model must not be used.

    Args:
      path: folder that save_checkpoint wrote, on a file system that all ranks share.
      comm, dense, embedding: as in save_checkpoint. The checkpoint must hold exactly these dense variables and tables,
        and all slots of the embedding; slots that the embedding does not have are left alone.

    Returns:
      The document.

    Raises:
      CheckpointError: on every rank, if the checkpoint is incomplete, damaged, or of another model.
    """
    folder, manifest = on_rank_0(comm, "checkpoint.manifest", work=lambda: open_checkpoint(path), error=CheckpointError)

    def restore() -> None:
        _check_model(folder, manifest, dense=dense, embedding=embedding)
        arrays = {name: read_array(folder, file) for name, file in manifest.dense.items()}
        restore_tables(folder, manifest, embedding)
        for name, values in arrays.items():
            dense[name].assign(values)

    on_all_ranks(comm, "checkpoint.restore", work=restore, error=CheckpointError)
    return manifest.document


def read_document(path: str | Path) -> dict:
    """The document of a checkpoint, without its weights. Raises CheckpointError as load_checkpoint does."""
    return open_checkpoint(path)[1].document


def restore_tables(folder: Path, manifest: Manifest, embedding) -> None:
    """Copies the stored shards into the shards of this rank, a block of rows at a time.

    The lowest rank that needs a file reads the whole file and compares its checksum. The other ranks read only the rows
    that they need.

    Args:
      folder, manifest: the checkpoint, from open_checkpoint.
      embedding: the tables to write into, under any plan.
    """
    shards_of = {table.name: embedding.plan.of_table(table.name) for table in embedding.tables}
    for stored in manifest.shards:
        if stored.slot not in embedding.slots:
            continue
        readers = [shard for shard in shards_of[stored.table] if _shared(stored, shard)]
        mine = [shard for shard in readers if shard.rank == embedding.rank]
        if not mine:
            continue
        rows = None
        if embedding.rank != min(shard.rank for shard in readers):
            ranges = [_shared(stored, shard)[0] for shard in mine]
            rows = min(start for start, _ in ranges) - stored.rows[0], max(stop for _, stop in ranges) - stored.rows[0]
        for first, block in stream_rows(folder, stored.file, rows):
            activity.report_progress()
            for shard in mine:
                _copy_block(embedding, shard, stored=stored, first=first + stored.rows[0], block=block)


def _shared(one, other) -> tuple[tuple[int, int], tuple[int, int]] | None:
    """The rows and columns that two rectangles of a table share; None if they share nothing."""
    if not (overlaps(one.rows, other.rows) and overlaps(one.columns, other.columns)):
        return None
    return tuple((max(a[0], b[0]), min(a[1], b[1])) for a, b in ((one.rows, other.rows), (one.columns, other.columns)))


def _copy_block(embedding, shard, *, stored: StoredShard, first: int, block: np.ndarray) -> None:
    """Copies into `shard` the part of a block that lies in it.

    Args:
      shard: the shard to write into.
      stored: the stored shard that the block belongs to.
      first: first row of the block, counted in the table.
      block: whole rows of the stored shard.
    """
    start, stop = max(shard.rows[0], first), min(shard.rows[1], first + len(block))
    if start >= stop:
        return
    left, right = _shared(stored, shard)[1]
    values = block[start - first : stop - first, left - stored.columns[0] : right - stored.columns[0]]
    if (left, right) != shard.columns:  # other files have the other columns of these rows
        whole = np.array(embedding.read_rows(shard, stored.slot, start=start, stop=stop))
        whole[:, left - shard.columns[0] : right - shard.columns[0]] = values
        values = whole
    embedding.write_rows(shard, stored.slot, start=start, values=values)


def peek_document(path: str | Path) -> dict | None:
    """The document that open_checkpoint would read, even if other files are damaged; None if there is no document.

    None too for a folder that holds other files as well, which no save replaces.
    """
    return document_of(_folder_of(path))


def has_checkpoint(path: str | Path) -> bool:
    """Whether `path` has a checkpoint for open_checkpoint, whole or damaged."""
    return (_folder_of(path) / MANIFEST).exists()


def open_checkpoint(path: str | Path) -> tuple[Path, Manifest]:
    """The folder of a checkpoint and its manifest. If a save was killed while it replaced the checkpoint, the old one.

    Raises:
      CheckpointError: the checkpoint is missing, incomplete or damaged.
    """
    folder = _folder_of(path)
    if folder != Path(os.path.realpath(path)):
        terminal.warn(f"{path}: a save was killed while it replaced this checkpoint; reading the older one: {folder}")
    return folder, read_manifest(folder)


def _folder_of(path: str | Path) -> Path:
    """The folder of the checkpoint, or of the older one if a save was killed while it replaced that."""
    folder = Path(os.path.realpath(path))
    old = replaced_path(folder) if folder.name else folder
    return old if not (folder / MANIFEST).exists() and (old / MANIFEST).exists() else folder


def _check_model(folder: Path, manifest: Manifest, *, dense: dict, embedding) -> None:
    """Raises CheckpointError, naming the first difference, unless the checkpoint is of a model like this one."""
    advice = "It was saved from another model or dataset; use the flags and dataset that it was trained with."
    stored = {table.name: table for table in manifest.tables}
    tables = {table.name: table for table in embedding.tables}
    for name in [*tables, *stored]:
        if name not in stored or name not in tables:
            who = "the checkpoint" if name in stored else "the model"
            raise CheckpointError(f"{folder}: only {who} has a table {name!r}. {advice}")
        found, expected = ((table.num_rows, table.embedding_dim) for table in (stored[name], tables[name]))
        if found != expected:
            raise CheckpointError(
                f"{folder}: table {name!r} has {found[0]} rows of width {found[1]} in the checkpoint, {expected[0]} of "
                f"width {expected[1]} in the model. {advice}"
            )
    slots = {shard.slot for shard in manifest.shards}
    if missing := [slot for slot in embedding.slots if slot not in slots and tables]:
        raise CheckpointError(f"{folder}: has no {missing[0]!r} of the tables, only {sorted(slots)}. {advice}")
    for name in [*dense, *manifest.dense]:
        if name not in manifest.dense or name not in dense:
            who = "the checkpoint" if name in manifest.dense else "the model"
            raise CheckpointError(f"{folder}: only {who} has a dense variable {name!r}. {advice}")
        found, expected = manifest.dense[name], np.asarray(dense[name].numpy())
        if (found.shape, np.dtype(found.dtype)) != (expected.shape, expected.dtype):
            raise CheckpointError(
                f"{folder}: dense variable {name!r} is {found.dtype} {list(found.shape)} in the checkpoint, "
                f"{expected.dtype.str} {list(expected.shape)} in the model. {advice}"
            )
