"""The tables and dense variables of a checkpoint as plain .npy files. No TensorFlow."""

import contextlib
import dataclasses
import io
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from dlrm_tf2.checkpoint import restore_tables
from dlrm_tf2.checkpoint.files import read_array, write_npy
from dlrm_tf2.checkpoint.manifest import Manifest, dense_path, is_state
from dlrm_tf2.checkpoint.manifest_entries import StoredTable
from dlrm_tf2.export.sorted_keys import SortedKeys
from dlrm_tf2.sharding.plan import Shard, ShardingPlan


def write_tables(folder: Path, manifest: Manifest, output: Path) -> list[dict]:
    """Writes `feature_<i>.npy` into `output`: the table of the i-th categorical feature, float32 [rows, width].

    Of a dynamic table these are the rows of its keys, in the order of the keys, which `feature_<i>.keys.npy` has, int64
    [rows]. Features count in channel order. Memory: one block of rows, for any shards; and the keys.

    Returns:
      One entry per feature: its file, name, table, rows and width; of a dynamic table also the file of the keys.

    Raises:
      CheckpointError: the checkpoint is damaged.
    """
    dynamic = manifest.dynamic_tables
    stored = [
        dataclasses.replace(table, num_rows=manifest.num_keys(table.name)) if table.name in dynamic else table
        for table in manifest.tables
    ]
    pairs = [(feature, table) for table in stored for feature in table.features]
    features = [
        {
            "file": f"feature_{i}.npy",
            "feature": feature,
            "table": table.name,
            "rows": table.num_rows,
            "embedding_dim": table.embedding_dim,
        }
        for i, (feature, table) in enumerate(pairs)
    ]
    file_of = {entry["table"]: entry["file"] for entry in reversed(features)}
    with contextlib.closing(NpyTables(output, stored, file_of=file_of, dynamic=dynamic)) as tables:
        restore_tables(folder, manifest, embedding=tables)
    for entry in features:
        if entry["table"] in dynamic:
            keys, path = tables.dynamic_tables[entry["table"]].keys, entry["file"].replace(".npy", ".keys.npy")
            write_npy(output, path, shape=keys.shape, dtype="<i8", blocks=[keys])
            entry["keys"] = path
        if entry["file"] != file_of[entry["table"]]:  # another feature shares the table
            shutil.copyfile(output / file_of[entry["table"]], output / entry["file"])
    return features


def write_dense(folder: Path, manifest: Manifest, output: Path) -> dict[str, str]:
    """Writes `dense/<name>.npy` into `output` for each dense variable, without optimizer state.

    Returns:
      Name of the variable -> its file.

    Raises:
      CheckpointError: the checkpoint is damaged.
    """
    (output / "dense").mkdir(exist_ok=True)
    names = [name for name in manifest.dense if not is_state(name, manifest.dense)]
    for name in names:
        array = read_array(folder, manifest.dense[name])
        write_npy(output, dense_path(name), shape=array.shape, dtype=array.dtype.str, blocks=[array])
    return {name: dense_path(name) for name in names}


class NpyTables:
    """Whole tables as .npy files: a checkpoint is restored into them as into a DistributedEmbedding of one rank.

    Args:
      folder: folder of the files, which are created.
      tables: the tables, one file each.
      file_of: name of a table -> name of its file.
      dynamic: the tables whose rows belong to keys.

    Attributes:
      dynamic_tables: name -> its keys.
    """

    slots = ("weights",)
    rank = 0

    def __init__(
        self, folder: Path, tables: Sequence[StoredTable], *, file_of: Mapping[str, str], dynamic: Sequence[str] = ()
    ):
        self.tables, self.dynamic_tables = tables, dict[str, SortedKeys]()
        shards = [Shard(table.name, 0, rows=(0, table.num_rows), columns=(0, table.embedding_dim)) for table in tables]
        self.plan = ShardingPlan(1, tuple(shards))
        self._descriptors: dict[str, int] = {}
        self._header_bytes: dict[str, int] = {}
        for shard in shards:
            header = io.BytesIO()
            layout = {"descr": "<f4", "fortran_order": False, "shape": (shard.num_rows, shard.num_columns)}
            np.lib.format.write_array_header_1_0(header, layout)
            descriptor = os.open(folder / file_of[shard.table], os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
            self._descriptors[shard.table] = descriptor
            self._header_bytes[shard.table] = len(header.getvalue())
            os.truncate(descriptor, len(header.getvalue()) + 4 * shard.num_elements)
            os.pwrite(descriptor, header.getvalue(), 0)
            if shard.table in dynamic:
                values = np.load(folder / file_of[shard.table], mmap_mode="r+" if shard.num_rows else None)
                self.dynamic_tables[shard.table] = SortedKeys(values.__setitem__)

    def read_rows(self, shard: Shard, slot: str, *, start: int, stop: int) -> np.ndarray:
        values = np.empty((stop - start, shard.num_columns), "<f4")
        self._transfer(os.preadv, shard, start=start, values=values)
        return values

    def write_rows(self, shard: Shard, slot: str, *, start: int, values: np.ndarray) -> None:
        self._transfer(os.pwritev, shard, start=start, values=np.ascontiguousarray(values, "<f4"))

    def _transfer(self, call, shard: Shard, *, start: int, values: np.ndarray) -> None:
        waiting = memoryview(values.reshape(-1).view(np.uint8))
        offset = self._header_bytes[shard.table] + start * shard.num_columns * 4
        while waiting:
            count = call(self._descriptors[shard.table], [waiting], offset)
            waiting, offset = waiting[count:], offset + count

    def close(self) -> None:
        for descriptor in self._descriptors.values():
            os.fsync(descriptor)
            os.close(descriptor)
