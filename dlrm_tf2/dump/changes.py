"""The files of changes: the rows of a dynamic table that changed in some steps, and the keys that left. No TensorFlow.

A set of changes is a folder steps_{first}_{next}: the steps from `first` up to, and without, `next`. It has one Parquet
file for each table and rank, {table}.rank_{r}.world_size_{w}.parquet, and appears when all are complete. One row for
each key:

    key      int64
    deleted  bool: the key left the table; the columns that follow are null then
    score    int64
    step     int64, the last step that touched the key
    values   fixed_size_list<float>[embedding_dim]
    state    fixed_size_list<float>[state_dim], the optimizer's slots side by side

The metadata of the schema has the arguments of the table (arguments.Arguments) as JSON, under the name `arguments`.
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

from dlrm_tf2.dump.arguments import BLOCK_ROWS, Arguments, DumpError, TableRows

_SET = re.compile(r"steps_(\d+)_(\d+)")
_NAME = re.compile(r"(?P<table>.+)\.rank_(?P<rank>\d+)\.world_size_(?P<world_size>\d+)\.parquet")


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


def set_name(folder_name: str) -> tuple[int, int] | None:
    """(first step, next step) of the name of a set's folder; None for another name."""
    match = _SET.fullmatch(folder_name)
    return (int(match[1]), int(match[2])) if match else None


def set_folder(folder: Path, first_step: int, next_step: int) -> Path:
    """The folder of a set in a folder of sets."""
    return folder / f"steps_{first_step}_{next_step}"


def write_changes(folder: Path, changes: TableChanges, *, rank: int, world_size: int) -> None:
    """Writes the file of a table and rank into the folder of a set, which nobody reads yet.

    Raises:
      DumpError: there is such a file, or the folder cannot be written.
    """
    path = folder / f"{changes.table}.rank_{rank}.world_size_{world_size}.parquet"
    try:
        with path.open("xb") as file:
            pq.write_table(_table_of(changes), file, compression="zstd", row_group_size=BLOCK_ROWS)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise DumpError(f"{path}: cannot be written: {error.strerror or error}.") from error


def read_changes(folder: Path) -> list[dict[str, TableChanges]]:
    """The sets in a folder, in the order of their steps: table -> changes, all ranks joined.

    Args:
      folder: the folder of a set, or a folder of such folders.

    Raises:
      DumpError: there are none, or files are missing or damaged.
    """
    if set_name(folder.name) is not None:
        return [_read_set(folder)]
    found = {}
    for name in os.listdir(folder) if folder.is_dir() else ():
        if steps := set_name(name):
            found[steps] = folder / name
    if not found:
        raise DumpError(f"{folder}: holds no changes: no folder in it is named steps_A_B.")
    return [_read_set(found[steps]) for steps in sorted(found)]


def _read_set(folder: Path) -> dict[str, TableChanges]:
    """Table -> its changes in the folder of a set."""
    parts: dict[str, dict[int, Path]] = {}
    world_sizes: set[int] = set()
    steps = set_name(folder.name)
    for name in sorted(os.listdir(folder)) if folder.is_dir() else ():
        if match := _NAME.fullmatch(name):
            parts.setdefault(match["table"], {})[int(match["rank"])] = folder / name
            world_sizes.add(int(match["world_size"]))
    if not parts or not steps:
        raise DumpError(f"{folder}: holds no changes: no file is named TABLE.rank_R.world_size_W.parquet.")
    for table, paths in parts.items():
        if len(world_sizes) > 1 or sorted(paths) != list(range(min(world_sizes))):
            raise DumpError(
                f"{folder}: table {table!r} has the files of ranks {sorted(paths)}, expected all ranks of one job of "
                f"{' or '.join(map(str, sorted(world_sizes)))}. Copy the whole folder again."
            )
    return {
        table: _joined([_read(paths[rank], table, steps=steps) for rank in sorted(paths)])
        for table, paths in parts.items()
    }


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


def _read(path: Path, table: str, *, steps: tuple[int, int]) -> TableChanges:
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
    if arguments.next_step != steps[1]:
        raise DumpError(
            f"{path}: has the changes before step {arguments.next_step}, and the folder's name says {steps[1]}. Give "
            "the folder its name again."
        )
    return TableChanges(table, steps[0], rows=rows, deleted=keys[deleted], arguments=arguments)


def _matrix(content: pa.Table, column: str, width: int) -> np.ndarray:
    flat = content[column].combine_chunks()
    numbers = flat.flatten().to_numpy(zero_copy_only=False) if len(flat) else np.empty(0, np.float32)
    return numbers.reshape(content.num_rows, width)


def _joined(parts: list[TableChanges]) -> TableChanges:
    columns = zip(*(part.rows for part in parts), strict=True)
    rows = TableRows(*(None if of_parts[0] is None else np.concatenate(of_parts) for of_parts in columns))
    return parts[0]._replace(rows=rows, deleted=np.concatenate([part.deleted for part in parts]))
