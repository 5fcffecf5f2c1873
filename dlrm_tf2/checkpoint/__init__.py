"""Saves and restores the model over all ranks: each rank its own shards, onto any other number of ranks or plan.

A checkpoint is written beside its destination and renamed when it is complete; until then the one before stays. What
goes wrong on one rank ends the operation on all of them. The folder is drawn in manifest.py. No TensorFlow here:
variables are asked for `.numpy()` and given `.assign(values)`.
"""

import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from dlrm_tf2.checkpoint.files import CheckpointError, StoredFile, read_array, rows_per_block, stream_rows, write_npy
from dlrm_tf2.checkpoint.manifest import (
    MANIFEST,
    Manifest,
    StoredShard,
    StoredTable,
    dense_path,
    overlaps,
    read_manifest,
    shard_path,
)
from dlrm_tf2.checkpoint.staging import Staging, check_destination

__all__ = [
    "CheckpointError",
    "check_destination",
    "load_checkpoint",
    "open_checkpoint",
    "read_document",
    "restore_tables",
    "save_checkpoint",
]


def save_checkpoint(path: str | Path, comm, dense: dict, embedding, document: dict) -> None:
    """Saves the model; `path` then holds this checkpoint, or on any failure what it held before. All ranks call it.

    Args:
      path: folder on a file system that all ranks share; absent, empty, or an older checkpoint, which is replaced.
      comm: the ranks (dlrm_tf2.comm).
      dense: name -> variable, equal on all ranks; rank 0's are saved.
      embedding: the tables (see DistributedEmbedding: tables, plan, rank, slots, read_rows).
      document: JSON-able; what else a restart needs. Rank 0's is saved.

    Raises:
      CheckpointError: on every rank, if a rank could not write its part, with the ranks and their reasons.
    """
    staging = Staging(path)
    with contextlib.ExitStack() as undo:
        if comm.rank == 0:
            undo.callback(staging.discard)
        try:
            document = _on_rank_0(comm, "checkpoint.begin", lambda: _prepared(staging, document))
            parts = _on_all_ranks(
                comm, "checkpoint.write", lambda: _write_part(staging.folder, comm.rank, dense, embedding)
            )
            _on_rank_0(comm, "checkpoint.commit", lambda: staging.commit(_assemble(document, embedding.tables, parts)))
        except CheckpointError as error:
            raise CheckpointError(
                f"{path}: the checkpoint was not saved; what was there is unchanged.\n{error}"
            ) from error.__cause__
        undo.pop_all()
    staging.unlock()


def load_checkpoint(path: str | Path, comm, dense: dict, embedding) -> dict:
    """Restores the model from a checkpoint of any number of ranks and any plan. All ranks call it.

    Every byte of the checkpoint is read by one rank at least and compared with its checksum. Where this raises, weights
    may have been overwritten: the model must not be used.

    Args:
      path: folder that save_checkpoint wrote, on a file system that all ranks share.
      comm, dense, embedding: as in save_checkpoint. The checkpoint must hold exactly these dense variables and tables,
        and all slots of the embedding; slots that the embedding does not have are left alone.

    Returns:
      The document.

    Raises:
      CheckpointError: on every rank, if the checkpoint is incomplete, damaged, or of another model.
    """
    folder, manifest = _on_rank_0(comm, "checkpoint.manifest", lambda: open_checkpoint(path))

    def restore() -> None:
        _check_model(folder, manifest, dense, embedding)
        arrays = {name: read_array(folder, file) for name, file in manifest.dense.items()}
        restore_tables(folder, manifest, embedding)
        for name, values in arrays.items():
            dense[name].assign(values)

    _on_all_ranks(comm, "checkpoint.restore", restore)
    return manifest.document


def read_document(path: str | Path) -> dict:
    """The document of a checkpoint, without its weights. Raises CheckpointError as load_checkpoint does."""
    return open_checkpoint(path)[1].document


def restore_tables(folder: Path, manifest: Manifest, embedding) -> None:
    """Writes into this rank's shards what the stored rectangles have for them, a block of rows at a time.

    The lowest rank that needs a file reads all of it and compares its checksum; the others read the rows they need.

    Args:
      embedding: the target; its plan may be any that tiles the same tables.
    """
    shards_of = {table.name: embedding.plan.of_table(table.name) for table in embedding.tables}
    for stored in manifest.shards:
        if stored.slot not in embedding.slots:
            continue
        takers = [shard for shard in shards_of[stored.table] if _shared(stored, shard)]
        mine = [shard for shard in takers if shard.rank == embedding.rank]
        if not mine:
            continue
        rows = None
        if embedding.rank != min(shard.rank for shard in takers):
            ranges = [_shared(stored, shard)[0] for shard in mine]
            rows = min(start for start, _ in ranges) - stored.rows[0], max(stop for _, stop in ranges) - stored.rows[0]
        for first, block in stream_rows(folder, stored.file, rows):
            for shard in mine:
                _take(embedding, shard, stored, first + stored.rows[0], block)


def _shared(one, other) -> tuple[tuple[int, int], tuple[int, int]] | None:
    """The rows and columns that two rectangles of a table share; None if they share nothing."""
    if not (overlaps(one.rows, other.rows) and overlaps(one.columns, other.columns)):
        return None
    return tuple(
        (max(a[0], b[0]), min(a[1], b[1])) for a, b in ((one.rows, other.rows), (one.columns, other.columns))
    )


def _take(embedding, shard, stored: StoredShard, first: int, block: np.ndarray) -> None:
    """Writes into `shard` what it shares with a block of a stored rectangle.

    Args:
      first: the row of the table that is the block's first.
      block: whole rows of the stored rectangle.
    """
    start, stop = max(shard.rows[0], first), min(shard.rows[1], first + len(block))
    if start >= stop:
        return
    left, right = _shared(stored, shard)[1]
    values = block[start - first : stop - first, left - stored.columns[0] : right - stored.columns[0]]
    if (left, right) != shard.columns:  # the other columns of these rows come from other files
        whole = np.array(embedding.read_rows(shard, stored.slot, start, stop))
        whole[:, left - shard.columns[0] : right - shard.columns[0]] = values
        values = whole
    embedding.write_rows(shard, stored.slot, start, values)


def _write_part(folder: Path, rank: int, dense: dict, embedding) -> tuple[list[StoredShard], dict[str, StoredFile]]:
    """Writes this rank's shards, and on rank 0 the dense variables."""
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: rank 0 made this folder, but it is not here. Save on a shared file system.")
    shards = []
    for shard in embedding.plan.of_rank(rank):
        if shard.table in embedding.plan.replicated and rank != 0:
            continue  # every rank has all of it, and one of them saves it
        for slot in embedding.slots:
            if shard.num_bytes:
                file = write_npy(
                    folder,
                    shard_path(shard.table, slot, shard.rows, shard.columns),
                    (shard.num_rows, shard.num_columns),
                    np.dtype("<f4"),
                    _blocks(embedding, shard, slot),
                )
                shards.append(StoredShard(shard.table, slot, shard.rows, shard.columns, file))
    arrays = {name: np.asarray(variable.numpy()) for name, variable in dense.items()} if rank == 0 else {}
    return shards, {
        name: write_npy(folder, dense_path(name), array.shape, array.dtype, [array]) for name, array in arrays.items()
    }


def _blocks(embedding, shard, slot: str) -> Iterator[np.ndarray]:
    step = rows_per_block(shard.num_columns)
    for start in range(*shard.rows, step):
        yield embedding.read_rows(shard, slot, start, min(start + step, shard.rows[1]))


def _assemble(document: dict, tables, parts: list) -> Manifest:
    return Manifest(
        document,
        tuple(StoredTable(table.name, table.num_rows, table.embedding_dim, tuple(table.features)) for table in tables),
        tuple(shard for shards, _ in parts for shard in shards),
        {name: file for _, files in parts for name, file in files.items()},
    )


def _check_model(folder: Path, manifest: Manifest, dense: dict, embedding) -> None:
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


def open_checkpoint(path: str | Path) -> tuple[Path, Manifest]:
    """The folder to read and its manifest; both of the checkpoint before, where a save was killed as it replaced it."""
    folder, old = Path(os.path.realpath(path)), Staging(path).old
    if not (folder / MANIFEST).exists() and (old / MANIFEST).exists():
        print(f"{path}: a save was killed as it replaced this; reading the checkpoint before: {old}", file=sys.stderr)
        folder = old
    return folder, read_manifest(folder)


def _prepared(staging: Staging, document: dict) -> dict:
    """Makes the staging folder. Returns the document as JSON gives it back."""
    document = json.loads(json.dumps(document))
    staging.prepare()
    return document


def _on_rank_0(comm, name: str, work: Callable):
    """Runs `work` on rank 0 and gives its result to every rank."""
    return _on_all_ranks(comm, name, work if comm.rank == 0 else lambda: None)[0]


def _on_all_ranks(comm, name: str, work: Callable) -> list:
    """Runs `work` on every rank; if it fails on one, all raise, so that none waits for the others.

    Returns:
      The results of all ranks, in rank order.

    Raises:
      CheckpointError: with the ranks that failed and why.
    """
    result = failure = reason = None
    try:
        result = work()
    except Exception as error:
        failure, reason = error, str(error)
        if not isinstance(error, CheckpointError):
            reason = f"{type(error).__name__}: {error}"
    outcomes = comm.allgather_object((reason, result), name=name)
    reasons: dict[str, list[int]] = {}
    for rank, (text, _) in enumerate(outcomes):
        if text is not None:
            reasons.setdefault(text, []).append(rank)
    if reasons:
        only_here = comm.size == 1
        lines = [text if only_here else f"rank {', '.join(map(str, ranks))}: {text}" for text, ranks in reasons.items()]
        raise CheckpointError("\n".join(lines)) from failure
    return [value for _, value in outcomes]
