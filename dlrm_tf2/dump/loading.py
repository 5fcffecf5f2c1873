"""Loads dumps into the dynamic tables of a DistributedEmbedding: of any number of ranks, into any capacity."""

from collections.abc import Collection
from pathlib import Path

import numpy as np
import tensorflow as tf

from dlrm_tf2.dump.arguments import Arguments, DumpError, TableRows, read_arguments
from dlrm_tf2.dump.copying import dynamic_configs
from dlrm_tf2.dump.files import parts_in, read_counts, read_part
from dlrm_tf2.embedding.dynamic.table import DynamicTable
from dlrm_tf2.embedding.layer import DistributedEmbedding
from dlrm_tf2.embedding.slab import WEIGHTS
from dlrm_tf2.ops import hash_table
from dlrm_tf2.runtime.agreement import on_all_ranks
from dlrm_tf2.runtime.comm import Comm
from dlrm_tf2.sharding.dynamic_tables import DynamicTableConfig


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
    folder, configs = Path(folder), dynamic_configs(embedding, names)

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
            table.clear(max(step, arguments.next_step - 1, 0))
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
