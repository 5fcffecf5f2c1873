"""Restores a checkpoint onto any number of ranks and any plan. No TensorFlow: variables get `.assign(values)`."""

import dataclasses
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

from dlrm_tf2.checkpoint.dynamic import Restored, restore_dynamic
from dlrm_tf2.checkpoint.dynamic_entries import is_of_index
from dlrm_tf2.checkpoint.files import CheckpointError, read_array, stream_rows
from dlrm_tf2.checkpoint.folder import Folder
from dlrm_tf2.checkpoint.manifest import MANIFEST, Manifest, StoredShard, document_of, is_state, overlaps, read_manifest
from dlrm_tf2.checkpoint.remote_folder import RemoteFolder
from dlrm_tf2.checkpoint.staging import replaced_path
from dlrm_tf2.runtime import activity, terminal
from dlrm_tf2.runtime.agreement import on_all_ranks, on_rank_0

_WEIGHTS = "weights"  # the slot of a table that is not optimizer state


def load_checkpoint(
    path: str | Path | RemoteFolder,
    comm,
    *,
    dense: dict,
    embedding,
    with_state: bool = True,
    say: Callable[[str], None] | None = None,
) -> dict:
    """Restores the model from a checkpoint that any number of ranks saved, under any plan. All ranks call it.

    At least one rank reads each file as a whole and compares its checksum. If this raises, some weights may have been
    overwritten: the model must not be used.

    Args:
      path: folder that save_checkpoint wrote, on a file system that all ranks share; on a rank that does not see it,
        the RemoteFolder (see folder_server.gathered).
      comm, dense, embedding: as in save_checkpoint. The checkpoint must hold exactly these dense variables and tables.
        A dense variable VARIABLE.SLOT and a slot of the embedding other than "weights" are optimizer state.
      with_state: restore the optimizer state that the model has, all of which the checkpoint must hold. False: restore
        the weights alone.
      say: called with lines for the user about optimizer state that is not restored; None for no lines.

    Returns:
      The document.

    Raises:
      CheckpointError: on every rank, if the checkpoint is incomplete, damaged, or of another model.
    """
    folder, manifest = on_rank_0(comm, "checkpoint.manifest", work=lambda: open_checkpoint(path), error=CheckpointError)

    source = path if isinstance(path, RemoteFolder) else folder
    manifest = _with_unique_slots(manifest)
    slots = tuple(embedding.slots) if with_state else (_WEIGHTS,)
    names = [name for name in dense if with_state or not is_state(name, dense)]

    def restore() -> dict[str, Restored]:
        _check_model(folder, manifest, dense={name: dense[name] for name in names}, embedding=embedding)
        if with_state:
            _check_state(folder, manifest, names=names, slots=slots)
        arrays = {name: read_array(source, manifest.dense[name]) for name in names}
        restored = restore_tables(source, manifest, embedding=embedding, slots=slots)
        for name, values in arrays.items():
            dense[name].assign(values)
        return restored

    of_ranks = on_all_ranks(comm, "checkpoint.restore", work=restore, error=CheckpointError)
    for line in _lost_keys(manifest, of_ranks):
        if say:
            say(f"{path}: {line}")
        elif comm.rank == 0:
            terminal.warn(f"{path}: {line}")
    unused = sorted(_state_of(manifest.dense, {shard.slot for shard in manifest.shards}) - _state_of(names, slots))
    if say and unused:
        say(f"{path}: the optimizer state of the checkpoint ({', '.join(unused)}) is not restored")
    return manifest.document


def read_document(path: str | Path) -> dict:
    """The document of a checkpoint, without its weights. Raises CheckpointError as load_checkpoint does."""
    return open_checkpoint(path)[1].document


def check_optimizer(path: str | Path, *, row_slots: Iterable[str], dense_slots: Iterable[str]) -> None:
    """Checks by the manifest, before a model is made, that a checkpoint has the state that an optimizer needs.

    Args:
      path: as in load_checkpoint.
      row_slots: what the optimizer keeps for the rows of tables.
      dense_slots: what it keeps for dense variables.

    Raises:
      CheckpointError: a kind of state is missing, or the checkpoint is incomplete.
    """
    folder, manifest = open_checkpoint(path)
    stored = {shard.slot for shard in _with_unique_slots(manifest).shards}
    lacks_rows = manifest.tables and not set(row_slots) <= stored
    if lacks_rows or not set(dense_slots) <= _state_of(manifest.dense, ()):
        raise _lacks_state(folder, {*row_slots, *dense_slots}, _state_of(manifest.dense, stored))


def restore_tables(
    folder: Path | Folder, manifest: Manifest, *, embedding, slots: Sequence[str] = (_WEIGHTS,)
) -> dict[str, Restored]:
    """Copies the stored shards into the shards of this rank, a block of rows at a time.

    The lowest rank that needs a file reads the whole file and compares its checksum. The other ranks read only the rows
    that they need.

    Args:
      folder, manifest: the checkpoint, from open_checkpoint.
      embedding: the tables to write into, under any plan.
      slots: the slots to copy.

    Returns:
      What became of the keys of this rank's part of each dynamic table.
    """
    dynamic = manifest.dynamic_tables
    shards_of = {table.name: embedding.plan.of_table(table.name) for table in embedding.tables}
    for stored in manifest.shards:
        if stored.slot not in slots or stored.table in dynamic:
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
    return {
        name: restore_dynamic(folder, manifest, name=name, table=embedding.dynamic_tables[name], slots=slots)
        for name in dynamic
        if name in embedding.dynamic_tables
    }


def _lost_keys(manifest: Manifest, of_ranks: Sequence[dict[str, Restored]]) -> Iterable[str]:
    """Lines about keys that found no room, and counts that could not be taken over."""
    for name in manifest.dynamic_tables:
        parts = [restored[name] for restored in of_ranks if name in restored]
        num_keys, kept = sum(part.keys for part in parts), sum(part.kept for part in parts)
        if kept < num_keys:
            yield f"table {name!r}: {kept} of its {num_keys} keys find room, those with the highest scores"
        if not all(part.counts for part in parts):
            yield f"table {name!r}: keys that are not stored are counted from 0 on: the checkpoint has another counter"


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
    tables, dynamic = {table.name: table for table in embedding.tables}, manifest.dynamic_tables
    for name in [*tables, *stored]:
        if name not in stored or name not in tables:
            who = "the checkpoint" if name in stored else "the model"
            raise CheckpointError(f"{folder}: only {who} has a table {name!r}. {advice}")
        if tables[name].is_dynamic != (name in dynamic):
            has = "keys" if name in dynamic else "ids"
            raise CheckpointError(f"{folder}: table {name!r} has {has} in the checkpoint, unlike the model. {advice}")
        found, expected = ((table.num_rows, table.embedding_dim) for table in (stored[name], tables[name]))
        if found[name in dynamic :] != expected[name in dynamic :]:  # keys find their rows in any number of rows
            raise CheckpointError(
                f"{folder}: table {name!r} has {found[0]} rows of width {found[1]} in the checkpoint, {expected[0]} of "
                f"width {expected[1]} in the model. {advice}"
            )
    for name in [*dense, *manifest.dense]:
        if is_state(name, dense) and name not in manifest.dense:
            continue  # see _check_state
        if is_state(name, manifest.dense) and name not in dense:
            continue  # the model does not need it
        if name not in manifest.dense or name not in dense:
            who = "the checkpoint" if name in manifest.dense else "the model"
            raise CheckpointError(f"{folder}: only {who} has a dense variable {name!r}. {advice}")
        found, expected = manifest.dense[name], np.asarray(dense[name].numpy())
        if (found.shape, np.dtype(found.dtype)) != (expected.shape, expected.dtype):
            raise CheckpointError(
                f"{folder}: dense variable {name!r} is {found.dtype} {list(found.shape)} in the checkpoint, "
                f"{expected.dtype.str} {list(expected.shape)} in the model. {advice}"
            )


def _check_state(folder: Path, manifest: Manifest, *, names: Sequence[str], slots: Sequence[str]) -> None:
    """Raises CheckpointError unless the checkpoint has all optimizer state that the model needs.

    Args:
      folder, manifest: the checkpoint.
      names: dense variables to restore.
      slots: slots of the tables to restore.
    """
    stored_slots = {shard.slot for shard in manifest.shards}
    needed, stored = _state_of(names, slots), _state_of(manifest.dense, stored_slots)
    is_missing = any(is_state(name, names) and name not in manifest.dense for name in names)
    if is_missing or (manifest.tables and not set(slots) <= stored_slots):
        raise _lacks_state(folder, needed, stored)


def _lacks_state(folder: Path, needed: set[str], stored: set[str]) -> CheckpointError:
    """The error for kinds of optimizer state that a checkpoint does not have, or has for some variables only."""
    return CheckpointError(
        f"{folder}: has no optimizer state {', '.join(sorted(needed - stored or needed))}, which the optimizer of this "
        f"run needs; found {', '.join(sorted(stored)) or 'none'}. Use the optimizer of the checkpoint, or begin the "
        "state again with --fresh_optimizer."
    )


def _state_of(names: Iterable[str], slots: Iterable[str]) -> set[str]:
    """The kinds of optimizer state among dense variables and slots of tables."""
    names = list(names)
    of_dense = {name.rpartition(".")[2] for name in names if is_state(name, names)}
    return of_dense | {slot for slot in slots if slot != _WEIGHTS and not is_of_index(slot)}


def _with_unique_slots(manifest: Manifest) -> Manifest:
    """The manifest with today's names. rowwise_adagrad once named its number a row as adagrad names its state."""
    config = manifest.document.get("config")
    if not isinstance(config, dict) or config.get("optimizer") != "rowwise_adagrad":
        return manifest
    renamed = {"accumulator": "row_accumulator"}
    shards = (dataclasses.replace(shard, slot=renamed.get(shard.slot, shard.slot)) for shard in manifest.shards)
    return dataclasses.replace(manifest, shards=tuple(shards))
