"""`python -m dlrm_tf2.export`: a checkpoint as plain .npy files, one whole table per feature. No TensorFlow.

    <output>/feature_<i>.npy       float32 [rows, embedding_dim] of the i-th categorical feature, in channel order
    <output>/dense/<name>.npy      the MLPs' variables
    <output>/export.json           which feature, table and variable each file is, and the checkpoint's document

Tables are streamed, whatever shards they were saved in; every file of the checkpoint is compared with its checksum.
"""

import argparse
import contextlib
import io
import json
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from dlrm_tf2.checkpoint import open_checkpoint, restore_tables
from dlrm_tf2.checkpoint.files import read_array, write_npy
from dlrm_tf2.checkpoint.manifest import Manifest, StoredTable, dense_path
from dlrm_tf2.checkpoint.staging import take_empty
from dlrm_tf2.embedding.plan import Shard, ShardingPlan


class ExportError(ValueError):
    """The output cannot be written."""


def export(checkpoint: str | Path, output: str | Path) -> dict:
    """Writes the tables and dense variables of a checkpoint as plain .npy files.

    Args:
      checkpoint: folder that training saved.
      output: folder to create; it may exist if it is empty. It appears when it is complete.

    Returns:
      What export.json holds.

    Raises:
      CheckpointError: the checkpoint is incomplete or damaged.
      ExportError: the output is not empty, or is no folder.
    """
    folder, manifest = open_checkpoint(checkpoint)
    with _new_folder(Path(os.path.realpath(output))) as staging:
        features = _feature_files(manifest)
        with contextlib.closing(_NpyTables(staging, manifest.tables, features)) as tables:
            restore_tables(folder, manifest, tables)
        for first, *others in _files_of_tables(manifest, features):
            for other in others:  # features that share a table
                shutil.copyfile(staging / first, staging / other)
        (staging / "dense").mkdir()
        for name, file in manifest.dense.items():
            array = read_array(folder, file)
            write_npy(staging, dense_path(name), array.shape, array.dtype, [array])
        contents = {
            "features": features,
            "dense": {name: dense_path(name) for name in manifest.dense},
            "document": manifest.document,
        }
        (staging / "export.json").write_text(json.dumps(contents, indent=1) + "\n", encoding="utf-8")
    return contents


def _feature_files(manifest: Manifest) -> list[dict]:
    """One entry per feature, in channel order."""
    pairs = [(feature, table) for table in manifest.tables for feature in table.features]
    return [
        {
            "file": f"feature_{i}.npy",
            "feature": feature,
            "table": table.name,
            "rows": table.num_rows,
            "embedding_dim": table.embedding_dim,
        }
        for i, (feature, table) in enumerate(pairs)
    ]


def _files_of_tables(manifest: Manifest, features: list[dict]) -> list[list[str]]:
    return [[entry["file"] for entry in features if entry["table"] == table.name] for table in manifest.tables]


class _NpyTables:
    """Whole tables as .npy files, in the role of an embedding that a checkpoint is restored into."""

    slots = ("weights",)
    rank = 0

    def __init__(self, folder: Path, tables: Sequence[StoredTable], features: list[dict]):
        self.tables = tables
        shards = [Shard(table.name, 0, (0, table.num_rows), (0, table.embedding_dim)) for table in tables]
        self.plan = ShardingPlan(1, tuple(shards))
        self._descriptors: dict[str, int] = {}
        self._header_bytes: dict[str, int] = {}
        file_of = {entry["table"]: entry["file"] for entry in reversed(features)}
        for shard in shards:
            header = io.BytesIO()
            layout = {"descr": "<f4", "fortran_order": False, "shape": (shard.num_rows, shard.num_columns)}
            np.lib.format.write_array_header_1_0(header, layout)
            descriptor = os.open(folder / file_of[shard.table], os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
            self._descriptors[shard.table] = descriptor
            self._header_bytes[shard.table] = len(header.getvalue())
            os.truncate(descriptor, len(header.getvalue()) + shard.num_bytes)
            os.pwrite(descriptor, header.getvalue(), 0)

    def read_rows(self, shard: Shard, slot: str, start: int, stop: int) -> np.ndarray:
        values = np.empty((stop - start, shard.num_columns), "<f4")
        self._transfer(os.preadv, shard, start, values)
        return values

    def write_rows(self, shard: Shard, slot: str, start: int, values: np.ndarray) -> None:
        self._transfer(os.pwritev, shard, start, np.ascontiguousarray(values, "<f4"))

    def _transfer(self, call, shard: Shard, start: int, values: np.ndarray) -> None:
        rest = memoryview(values.reshape(-1).view(np.uint8))
        offset = self._header_bytes[shard.table] + start * shard.num_columns * 4
        while rest:
            count = call(self._descriptors[shard.table], [rest], offset)
            rest, offset = rest[count:], offset + count

    def close(self) -> None:
        for descriptor in self._descriptors.values():
            os.fsync(descriptor)
            os.close(descriptor)


@contextlib.contextmanager
def _new_folder(path: Path) -> Iterator[Path]:
    """A staging folder beside `path`, renamed to it on a clean exit and removed on another."""
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise ExportError(f"{path}: is not an empty folder. Name another --output.")
    if os.path.ismount(path):
        raise ExportError(f"{path}: is a mount point, which cannot be replaced. Name a folder inside it.")
    staging = path.with_name(f".{path.name}.partial")
    lock = take_empty(staging, path)
    try:
        yield staging
        os.replace(staging, path)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    finally:
        os.close(lock)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m dlrm_tf2.export", description="Writes a checkpoint as plain .npy files.", allow_abbrev=False
    )
    parser.add_argument("--checkpoint", required=True, metavar="DIR", help="folder that training saved")
    parser.add_argument("--output", required=True, metavar="DIR", help="folder to create, absent or empty")
    arguments = parser.parse_args(argv)
    try:
        contents = export(arguments.checkpoint, arguments.output)
    except (ValueError, OSError) as error:
        print(f"export: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("export: stopped; nothing was written", file=sys.stderr)
        return 130
    for entry in contents["features"]:
        print(f"{entry['file']}: {entry['feature']}, {entry['rows']} x {entry['embedding_dim']}")
    print(f"{arguments.output}: {len(contents['features'])} tables, {len(contents['dense'])} dense variables")
    return 0


if __name__ == "__main__":
    sys.exit(main())
