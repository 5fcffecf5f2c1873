"""What the dynamic tables of a rank hold, as a dump has it: read from the tables, or from a copy of them."""

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from dlrm_tf2.checkpoint.bfloat16 import BFLOAT16
from dlrm_tf2.checkpoint.dynamic import DynamicCopy
from dlrm_tf2.dump.arguments import BLOCK_ROWS, Arguments, DumpError, TableRows, write_arguments
from dlrm_tf2.dump.changes import TableChanges
from dlrm_tf2.dump.files import Part, PartWriter
from dlrm_tf2.embedding.dynamic.table import DynamicTable
from dlrm_tf2.embedding.layer import DistributedEmbedding
from dlrm_tf2.embedding.slab import WEIGHTS
from dlrm_tf2.ops import hash_table
from dlrm_tf2.ops.hash_table import Listed
from dlrm_tf2.sharding.dynamic_tables import DynamicTableConfig


def dynamic_configs(embedding: DistributedEmbedding, names: Collection[str] | None = None) -> list[DynamicTableConfig]:
    """The dynamic tables of a layer, or those with some names.

    Raises:
      DumpError: a name is unknown.
    """
    dynamic = {table.name: table for table in embedding.tables if isinstance(table, DynamicTableConfig)}
    if unknown := sorted(set(names or ()) - set(dynamic)):
        raise DumpError(f"{unknown[0]!r}: is not a dynamic table; these are {', '.join(dynamic) or 'none'}.")
    return [config for name, config in dynamic.items() if names is None or name in names]


class DumpMoment(NamedTuple):
    """When a dump is made, and whether it has the state of the optimizer.

    Attributes:
      step: the last step that was made.
      time: nanoseconds.
    """

    step: int
    time: int
    optimizer_state: bool = True


def arguments_of(embedding: DistributedEmbedding, config: DynamicTableConfig, moment: DumpMoment) -> Arguments:
    """What a dump says of a table."""
    optimizer, width = embedding.optimizer, config.embedding_dim
    with_state = optimizer is not None and moment.optimizer_state
    state_dim = len(_slots(embedding)) * optimizer.row_slot_width(width) if with_state else 0
    name = optimizer.name if with_state else None
    return Arguments.of(config.score, name, widths=(width, state_dim), next_step=moment.step + 1, time=moment.time)


class TablesSource:
    """The dynamic tables of a rank as a dump needs them. It reads the tables themselves, or a copy of them.

    Args:
      embedding: the layer.
      moment: when the dump is made.
      copied: copies the tables, which training may change then: the memory of all stored rows.
    """

    def __init__(self, embedding: DistributedEmbedding, moment: DumpMoment, copied: bool):
        self._slots = _slots(embedding) if moment.optimizer_state else ()
        self._arguments = {one.name: arguments_of(embedding, one, moment) for one in dynamic_configs(embedding)}
        self._tables: dict[str, DynamicTable | DynamicCopy] = dict(embedding.dynamic_tables)
        if copied:
            weights = BFLOAT16 if embedding.table_dtype == BFLOAT16 else "<f4"
            dtypes = {WEIGHTS: weights, **dict.fromkeys(self._slots, "<f4")}
            self._tables = {name: DynamicCopy(table, dtypes) for name, table in embedding.dynamic_tables.items()}

    def write(self, folder: Path, *, rank: int, world_size: int) -> None:
        """Writes the files of this rank, and on rank 0 the arguments of the tables."""
        for name, arguments in self._arguments.items():
            with PartWriter(folder, Part(name, rank, world_size), arguments) as writer:
                if table := self._tables.get(name):
                    for rows in self._blocks(table, arguments):
                        writer.write(rows)
                    nothing = np.empty(0, np.int64)
                    writer.write_counts(*(table.counted() or {"keys": nothing, "counts": nothing}).values())
            if rank == 0:
                write_arguments(folder, name, arguments)

    def _blocks(self, table: DynamicTable | DynamicCopy, arguments: Arguments) -> Iterator[TableRows]:
        stored = table.stored()
        for start in range(0, len(stored.keys), BLOCK_ROWS):
            block = Listed(*(part[start : start + BLOCK_ROWS] for part in stored))
            yield _content(table, block, slots=self._slots if arguments.opt_type is not None else None)


def copy_changes(embedding: DistributedEmbedding, first_step: int, *, moment: DumpMoment) -> list[TableChanges]:
    """Copies what has changed in this rank's part of all dynamic tables.

    Args:
      first_step: the first step whose changes are wanted.
      moment: when the changes are dumped.

    Raises:
      DumpError: the keys that left since then are not known.
    """
    copies = []
    for config in dynamic_configs(embedding):
        arguments = arguments_of(embedding, config, moment)
        table = embedding.dynamic_tables.get(config.name)
        if table is None:  # a rank without buckets of the table writes a file without rows
            copies.append(_no_changes(config, first_step, arguments=arguments))
            continue
        _check_departures(table, first_step)
        stored = table.stored()
        keys, _ = hash_table.erased(table.index, tf.constant(first_step, tf.int64))
        deleted = np.setdiff1d(keys.numpy(), stored.keys)
        changed = Listed(*(part[stored.steps >= first_step] for part in stored))
        rows = _content(table, changed, slots=_slots(embedding) if arguments.opt_type is not None else None)
        copies.append(TableChanges(config.name, first_step, rows=rows, deleted=deleted, arguments=arguments))
    return copies


def _check_departures(table: DynamicTable, first_step: int) -> None:
    """Raises DumpError if keys may have left in or after a step without a note."""
    name = table.config.name
    if not table.index.rules.log_erased:
        raise DumpError(f"table {name!r}: the keys that left it are not known. Make the layer with log_erased=True.")
    if first_step < (known := table.known_steps.departures_from):
        raise DumpError(
            f"table {name!r}: the keys that left it before step {known} are not known: it was loaded or trimmed then, "
            f"and the changes are to begin at step {first_step}. Dump the tables in whole."
        )


def _content(table: DynamicTable | DynamicCopy, stored: Listed, *, slots: Sequence[str] | None) -> TableRows:
    """The numbers of some keys; `slots` of the optimizer, None where it has no state to dump."""
    state = None
    if slots is not None:
        none = np.empty((len(stored.keys), 0), np.float32)
        state = np.concatenate([none, *(table.read(stored.rows, slot) for slot in slots)], axis=1)
    values = table.read(stored.rows, WEIGHTS)
    return TableRows(stored.keys, stored.scores, values=values, state=state, steps=stored.steps)


def _slots(embedding: DistributedEmbedding) -> tuple[str, ...]:
    """The slots of the optimizer, in the order of a dump."""
    return tuple(slot for slot in embedding.slots if slot != WEIGHTS)


def _no_changes(config: DynamicTableConfig, first_step: int, *, arguments: Arguments) -> TableChanges:
    none = np.empty(0, np.int64)
    values, state = (np.empty((0, n), np.float32) for n in (arguments.embedding_dim, arguments.state_dim))
    rows = TableRows(none, none, values=values, state=None if arguments.opt_type is None else state, steps=none)
    return TableChanges(config.name, first_step, rows=rows, deleted=none, arguments=arguments)
