"""Dumps the dynamic tables of a DistributedEmbedding, or what has changed in them, and loads dumps."""

import time as clock
from collections.abc import Collection, Iterator
from pathlib import Path

import numpy as np
import tensorflow as tf

from dlrm_tf2.dump.changes import TableChanges, write_changes
from dlrm_tf2.dump.files import (
    BLOCK_ROWS,
    Arguments,
    DumpError,
    Part,
    PartWriter,
    TableRows,
    parts_in,
    read_arguments,
    read_counts,
    read_part,
    write_arguments,
)
from dlrm_tf2.embedding.dynamic.table import DynamicTable
from dlrm_tf2.embedding.layer import DistributedEmbedding
from dlrm_tf2.embedding.slab import WEIGHTS
from dlrm_tf2.ops import hash_table
from dlrm_tf2.ops.hash_table import Listed
from dlrm_tf2.runtime.agreement import on_all_ranks, on_rank_0
from dlrm_tf2.runtime.comm import Comm
from dlrm_tf2.runtime.staging import StagedPath, StagingError
from dlrm_tf2.sharding.dynamic_tables import DynamicTableConfig


def dump_tables(
    embedding: DistributedEmbedding,
    folder: str | Path,
    *,
    comm: Comm,
    step: int,
    optimizer_state: bool = True,
    time: int | None = None,
) -> None:
    """Dumps all dynamic tables into a folder, which appears when it is complete. All ranks call it, between two steps.

    Args:
      folder: absent or empty, on a file system that all ranks share.
      step: the last step that was made.
      optimizer_state: whether the state of the optimizer is dumped.
      time: nanoseconds, for the ages of the score timestamp; the clock when not given.

    Raises:
      DumpError: on every rank: the folder is not empty, or a rank cannot write.
    """
    folder = Path(folder).absolute()
    configs = _configs(embedding)
    staged = StagedPath(folder, is_folder=True)
    time = on_rank_0(comm, "dump.begin", work=lambda: _begin(staged, time), error=DumpError)

    def write() -> None:
        for config in configs:
            arguments = _arguments(embedding, config, step=step, time=time, optimizer_state=optimizer_state)
            with PartWriter(staged.path, Part(config.name, comm.rank, world_size=comm.size), arguments) as writer:
                table = embedding.dynamic_tables.get(config.name)
                if table is not None:
                    for rows in _blocks(table, arguments):
                        writer.write(rows)
                    writer.write_counts(*(part.numpy() for part in hash_table.export_admission(table.index)))
            if comm.rank == 0:
                write_arguments(staged.path, config.name, arguments)

    try:
        on_all_ranks(comm, "dump.write", work=write, error=DumpError)
        on_rank_0(comm, "dump.end", work=staged.rename, error=DumpError)
    except DumpError:
        staged.discard()
        raise


def load_tables(
    embedding: DistributedEmbedding,
    folder: str | Path,
    *,
    comm: Comm,
    names: Collection[str] | None = None,
    step: int = 0,
) -> dict[str, int]:
    """Loads dynamic tables from a dump of any number of ranks and any capacity, in place of what they hold.

    Where a bucket has not enough room, it keeps its keys with the highest scores. All ranks call it.

    Args:
      names: the tables; all dynamic tables when not given.
      step: the step that keys get whose last step the dump does not have.

    Returns:
      Table -> the number of keys that it holds now, over all ranks.

    Raises:
      DumpError: on every rank: the dump is damaged, or does not fit the tables. Some tables may be loaded then.
    """
    folder, configs = Path(folder), _configs(embedding, names)

    def load() -> dict[str, int]:
        parts = parts_in(folder)
        for config in configs:
            if config.name not in parts:
                raise DumpError(f"{folder}: has no table {config.name!r}, only {', '.join(parts)}.")
            arguments = read_arguments(folder, config.name, embedding_dim=config.embedding_dim)
            _check_fit(embedding, config, arguments=arguments)
            table = embedding.dynamic_tables.get(config.name)
            if table is None:
                continue
            hash_table.clear(table.index)
            for part in parts[config.name]:
                for rows in read_part(folder, part, arguments):
                    _assign(table, rows, step=step, embedding=embedding)
                keys, counts = read_counts(folder, part)
                owned = _owned(table, keys)
                if config.counter_bytes and len(owned):
                    hash_table.assign_admission(table.index, keys[owned], counts[owned])
        return {name: table.size() for name, table in embedding.dynamic_tables.items()}

    of_ranks = on_all_ranks(comm, "load", work=load, error=DumpError)
    return {config.name: sum(sizes.get(config.name, 0) for sizes in of_ranks) for config in configs}


def copy_changes(
    embedding: DistributedEmbedding,
    *,
    first_step: int,
    step: int,
    optimizer_state: bool = True,
    time: int | None = None,
) -> list[TableChanges]:
    """Copies what has changed in this rank's part of all dynamic tables, for `write_changes`; between two steps.

    Training may continue as soon as the copy is there: a thread can write it.

    Args:
      first_step: the first step whose changes are wanted: the next_step of the dump or of the changes before.
      step: the last step that was made.
      optimizer_state, time: as in `dump_tables`.

    Raises:
      DumpError: the layer does not note the keys that leave.
    """
    time, copies = clock.time_ns() if time is None else time, []
    for config in _configs(embedding):
        arguments = _arguments(embedding, config, step=step, time=time, optimizer_state=optimizer_state)
        table = embedding.dynamic_tables.get(config.name)
        if table is None:  # a rank without buckets of the table writes a file without rows
            copies.append(_no_changes(config, first_step, arguments=arguments))
            continue
        if not table.index.rules.log_erased:
            raise DumpError(
                f"table {config.name!r}: the keys that left it are not known. Make the layer with log_erased=True."
            )
        listed = _listed(table)
        keys, _ = hash_table.erased(table.index, tf.constant(first_step, tf.int64))
        deleted = np.setdiff1d(keys.numpy(), listed.keys)
        changed = listed.steps >= first_step
        rows = _content(table, Listed(*(part[changed] for part in listed)), arguments=arguments)
        copies.append(TableChanges(config.name, first_step, rows=rows, deleted=deleted, arguments=arguments))
    return copies


def dump_changes(
    embedding: DistributedEmbedding,
    folder: str | Path,
    *,
    comm: Comm,
    first_step: int,
    step: int,
    time: int | None = None,
) -> None:
    """Dumps what has changed in all dynamic tables since a step. All ranks call it, between two steps.

    Args:
      folder: it may hold the changes of other steps.
      first_step, step, time: as in `copy_changes`.

    Raises:
      DumpError: on every rank, as copy_changes and write_changes do.
    """

    def write() -> None:
        for one in copy_changes(embedding, first_step=first_step, step=step, time=time):
            write_changes(Path(folder), one, rank=comm.rank, world_size=comm.size)

    on_all_ranks(comm, "dump_changes", work=write, error=DumpError)


def _begin(staged: StagedPath, time: int | None) -> int:
    """Makes the folder to write in. Returns the time of the dump."""
    folder = staged.destination
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DumpError(f"{folder}: is not an empty folder. Name another folder for the dump.")
    try:
        staged.claim()
    except (OSError, StagingError) as error:
        raise DumpError(f"{folder}: cannot be written: {error}.") from error
    return clock.time_ns() if time is None else time


def _configs(embedding: DistributedEmbedding, names: Collection[str] | None = None) -> list[DynamicTableConfig]:
    dynamic = {table.name: table for table in embedding.tables if isinstance(table, DynamicTableConfig)}
    if unknown := sorted(set(names or ()) - set(dynamic)):
        raise DumpError(f"{unknown[0]!r}: is not a dynamic table; these are {', '.join(dynamic) or 'none'}.")
    return [config for name, config in dynamic.items() if names is None or name in names]


def _slots(embedding: DistributedEmbedding) -> tuple[str, ...]:
    """The slots of the optimizer, in the order of a dump."""
    return tuple(slot for slot in embedding.slots if slot != WEIGHTS)


def _arguments(
    embedding: DistributedEmbedding, config: DynamicTableConfig, *, step: int, time: int, optimizer_state: bool
) -> Arguments:
    optimizer, width = embedding.optimizer, config.embedding_dim
    with_state = optimizer is not None and optimizer_state
    state_dim = len(_slots(embedding)) * optimizer.row_slot_width(width) if with_state else 0
    name = optimizer.name if with_state else None
    return Arguments.of(config.score, name, widths=(width, state_dim), next_step=step + 1, time=time)


def _listed(table: DynamicTable) -> Listed:
    """All keys of this rank, as numpy arrays."""
    first, stop = (tf.constant(row, tf.int64) for row in table.shard.rows)
    return Listed(*(part.numpy() for part in hash_table.export_batch(table.index, first, stop - first)))


def _blocks(table: DynamicTable, arguments: Arguments) -> Iterator[TableRows]:
    listed = _listed(table)
    for start in range(0, len(listed.keys), BLOCK_ROWS):
        yield _content(table, Listed(*(part[start : start + BLOCK_ROWS] for part in listed)), arguments=arguments)


def _content(table: DynamicTable, listed: Listed, *, arguments: Arguments) -> TableRows:
    """The numbers of some keys."""
    state = None
    if arguments.opt_type is not None:
        slots = [table.read(listed.rows, slot) for slot in table.slab.slots]
        state = np.concatenate([np.empty((len(listed.keys), 0), np.float32), *slots], axis=1)
    return TableRows(
        listed.keys, listed.scores, values=table.read(listed.rows, WEIGHTS), state=state, steps=listed.steps
    )


def _no_changes(config: DynamicTableConfig, first_step: int, *, arguments: Arguments) -> TableChanges:
    none = np.empty(0, np.int64)
    values, state = (np.empty((0, n), np.float32) for n in (arguments.embedding_dim, arguments.state_dim))
    rows = TableRows(none, none, values=values, state=None if arguments.opt_type is None else state, steps=none)
    return TableChanges(config.name, first_step, rows=rows, deleted=none, arguments=arguments)


def _check_fit(embedding: DistributedEmbedding, config: DynamicTableConfig, *, arguments: Arguments) -> None:
    if arguments.embedding_dim != config.embedding_dim:
        raise DumpError(
            f"table {config.name!r}: the dump has embedding_dim {arguments.embedding_dim}, the layer "
            f"{config.embedding_dim}."
        )
    optimizer = embedding.optimizer
    if optimizer and arguments.opt_type and arguments.opt_type != optimizer.name:
        raise DumpError(
            f"table {config.name!r}: the dump has the state of {arguments.opt_type}, and the layer trains with "
            f"{optimizer.name}. Use the same optimizer, or dump without the optimizer's state."
        )


def _owned(table: DynamicTable, keys: np.ndarray) -> np.ndarray:
    """The numbers of the keys whose buckets this rank owns; of all cells of a sketch: each index takes its own."""
    if table.index.rules.counter[0] == "sketch" and table.config.counter_bytes:
        return np.arange(len(keys))
    buckets, owned = table.config.buckets.bucket_of(keys), table.index.owned
    return np.flatnonzero((buckets >= owned.start) & (buckets < owned.stop))


def _assign(table: DynamicTable, rows: TableRows, *, step: int, embedding: DistributedEmbedding) -> None:
    """Stores the rows whose keys belong to this rank."""
    buckets, owned = table.config.buckets.bucket_of(rows.keys), table.index.owned
    rows = rows.take((buckets >= owned.start) & (buckets < owned.stop))
    steps = np.full(len(rows.keys), step, np.int64) if rows.steps is None else rows.steps
    found = hash_table.assign(table.index, tf.constant(rows.keys), scores=tf.constant(rows.scores), steps=steps).numpy()
    stored = found >= 0
    rows, found = rows.take(stored), found[stored]
    table.write(found, WEIGHTS, rows.values)
    optimizer, first = embedding.optimizer, 0
    for slot, variable in table.slab.slots.items():
        width = variable.shape[1]
        if rows.state is None:
            values = np.full((len(found), width), optimizer.initial_value(slot), np.float32)
        else:
            values = rows.state[:, first : first + width]
        table.write(found, slot, values)
        first += width
