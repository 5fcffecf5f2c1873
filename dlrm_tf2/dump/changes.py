"""The files of changes: the rows of a dynamic table that changed in some steps, and the keys that left. No TensorFlow.

One Parquet file for each table and rank, {table}.steps_{first}_{next}.rank_{r}.world_size_{w}.parquet: the steps from
`first` up to, and without, `next`. One row for each key:

    key      int64
    deleted  bool: the key left the table; the columns that follow are null then
    score    int64
    step     int64, the last step that touched the key
    values   fixed_size_list<float>[embedding_dim]
    state    fixed_size_list<float>[state_dim], the optimizer's slots side by side

The metadata of the schema has the arguments of the table (files.Arguments) as JSON, under the name `arguments`.
"""

import json
import os
import re
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dlrm_tf2.dump.files import BLOCK_ROWS, Arguments, DumpError, TableRows

_NAME = re.compile(
    r"(?P<table>.+)\.steps_(?P<first>\d+)_(?P<next>\d+)\.rank_(?P<rank>\d+)\.world_size_(?P<world_size>\d+)\.parquet"
)


class TableChanges(NamedTuple):
    """What changed in a table, on one rank.

    Attributes:
      table: name.
      first_step: the changes of this step and later ones are here, up to arguments.next_step.
      rows: the rows that changed.
      deleted: int64 [d], keys that left and are not stored now.
      arguments: of the table, after the changes.
    """

    table: str
    first_step: int
    rows: TableRows
    deleted: np.ndarray
    arguments: Arguments


def write_changes(folder: Path, changes: TableChanges, *, rank: int, world_size: int) -> Path:
    """Writes the file of a rank, under its name only when it is complete.

    Raises:
      DumpError: there is such a file, or the folder cannot be written.
    """
    arguments = changes.arguments
    name = f"{changes.table}.steps_{changes.first_step}_{arguments.next_step}"
    path = folder / f"{name}.rank_{rank}.world_size_{world_size}.parquet"
    partial = path.with_name(f".{path.name}.partial")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if path.exists():
            raise DumpError(f"{path}: exists. Dump the changes into another folder, or delete this file.")
        pq.write_table(_table_of(changes), partial, compression="zstd", row_group_size=BLOCK_ROWS)
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        raise DumpError(f"{path}: cannot be written: {error.strerror or error}.") from error
    return path


def read_changes(folder: Path) -> dict[str, list[TableChanges]]:
    """The changes in a folder: table -> changes, in the order of their steps, all ranks of the same steps joined.

    Raises:
      DumpError: there are none, or files are missing or damaged.
    """
    found: dict[tuple[str, int, int], dict[int, Path]] = {}
    world_sizes: dict[tuple[str, int, int], set[int]] = {}
    for name in sorted(os.listdir(folder)) if folder.is_dir() else ():
        if match := _NAME.fullmatch(name):
            steps = match["table"], int(match["first"]), int(match["next"])
            found.setdefault(steps, {})[int(match["rank"])] = folder / name
            world_sizes.setdefault(steps, set()).add(int(match["world_size"]))
    if not found:
        raise DumpError(f"{folder}: holds no changes: no file is named TABLE.steps_A_B.rank_R.world_size_W.parquet.")
    of_tables: dict[str, list[TableChanges]] = {}
    for (table, first, next_step), paths in sorted(found.items()):
        sizes = world_sizes[table, first, next_step]
        if len(sizes) > 1 or sorted(paths) != list(range(min(sizes))):
            raise DumpError(
                f"{folder}: the changes of table {table!r} in steps {first} to {next_step} have the files of ranks "
                f"{sorted(paths)}, expected all ranks of one job of {sorted(sizes)}. Wait until every rank has written "
                "its file, or copy what is missing."
            )
        parts = [_read(paths[rank], table, first_step=first) for rank in sorted(paths)]
        of_tables.setdefault(table, []).append(_joined(parts))
    return of_tables


def _table_of(changes: TableChanges) -> pa.Table:
    rows, deleted, arguments = changes.rows, changes.deleted, changes.arguments
    kept, gone = len(rows.keys), len(deleted)
    assert rows.steps is not None

    def with_nulls(numbers: pa.Array) -> pa.ChunkedArray:
        return pa.chunked_array([numbers, pa.nulls(gone, numbers.type)])

    def lists(numbers: np.ndarray) -> pa.ChunkedArray:
        flat = pa.array(np.ascontiguousarray(numbers, np.float32).reshape(-1))
        return with_nulls(pa.FixedSizeListArray.from_arrays(flat, numbers.shape[1]))

    columns = {
        "key": pa.array(np.concatenate([rows.keys, deleted])),
        "deleted": pa.array(np.arange(kept + gone) >= kept),
        "score": with_nulls(pa.array(rows.scores)),
        "step": with_nulls(pa.array(rows.steps)),
        "values": lists(rows.values),
    }
    if rows.state is not None and rows.state.shape[1]:
        columns["state"] = lists(rows.state)
    return pa.table(columns).replace_schema_metadata({"arguments": json.dumps(asdict(arguments))})


def _read(path: Path, table: str, *, first_step: int) -> TableChanges:
    try:
        content = pq.read_table(path)
        arguments = Arguments(**json.loads(content.schema.metadata[b"arguments"]))
        deleted = content["deleted"].to_numpy()
        keys, kept = content["key"].to_numpy(), content.filter(pa.array(~deleted))
        state = None if arguments.opt_type is None else np.empty((kept.num_rows, 0), np.float32)
        if "state" in content.column_names:
            state = _matrix(kept, "state", arguments.state_dim)
        rows = TableRows(
            keys[~deleted],
            kept["score"].to_numpy(),
            values=_matrix(kept, "values", arguments.embedding_dim),
            state=state,
            steps=kept["step"].to_numpy(),
        )
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError) as error:
        raise DumpError(f"{path}: is not a file of changes, or is damaged: {error}. Dump the changes again.") from error
    return TableChanges(table, first_step, rows=rows, deleted=keys[deleted], arguments=arguments)


def _matrix(content: pa.Table, column: str, width: int) -> np.ndarray:
    flat = content[column].combine_chunks()
    numbers = flat.flatten().to_numpy(zero_copy_only=False) if len(flat) else np.empty(0, np.float32)
    return numbers.reshape(content.num_rows, width)


def _joined(parts: list[TableChanges]) -> TableChanges:
    columns = zip(*(part.rows for part in parts), strict=True)
    rows = TableRows(*(None if of_parts[0] is None else np.concatenate(of_parts) for of_parts in columns))
    return parts[0]._replace(rows=rows, deleted=np.concatenate([part.deleted for part in parts]))
