"""The entries of a manifest, and how they are read from JSON: a value of another type or form is a CheckpointError."""

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from dlrm_tf2.checkpoint.bfloat16 import BFLOAT16
from dlrm_tf2.checkpoint.files import CheckpointError, StoredFile

_TABLE = {"name": str, "num_rows": int, "embedding_dim": int, "features": list}
_SHARD = {"table": str, "slot": str, "rows": list, "columns": list, "file": dict}
_FILE = {"path": str, "shape": list, "dtype": str, "num_bytes": int, "crc32": str}
_NAMES = {str: "text", int: "a whole number", list: "a list", dict: "an object"}


@dataclass(frozen=True)
class StoredShard:
    """One rectangle of one slot of a table, in a file.

    Attributes:
      slot: "weights", or the name of optimizer state.
      rows, columns: (start, stop) in the table.
    """

    table: str
    slot: str
    rows: tuple[int, int]
    columns: tuple[int, int]
    file: StoredFile


@dataclass(frozen=True)
class StoredTable:
    """A whole table, and the features whose ids are its rows."""

    name: str
    num_rows: int
    embedding_dim: int
    features: tuple[str, ...]


def parse_tables(manifest: Path, value: object) -> tuple[StoredTable, ...]:
    """The tables of a manifest. Raises CheckpointError, which names the entry that is wrong."""
    tables = []
    for number, entry in enumerate(_typed(manifest, "tables", value=value, kind=list)):
        where = f"tables[{number}]"
        entry = _object(manifest, where, value=entry, kinds=_TABLE)
        features = [_typed(manifest, f"{where}.features", value=name, kind=str) for name in entry["features"]]
        tables.append(StoredTable(**(entry | {"features": tuple(features)})))
    if len({table.name for table in tables}) < len(tables):
        raise CheckpointError(f"{manifest}: tables: two have the same name. The manifest is damaged.")
    return tuple(tables)


def parse_shards(manifest: Path, value: object) -> tuple[StoredShard, ...]:
    """The shards of a manifest. Raises as parse_tables does."""
    shards = []
    for number, entry in enumerate(_typed(manifest, "shards", value=value, kind=list)):
        where = f"shards[{number}]"
        entry = _object(manifest, where, value=entry, kinds=_SHARD)
        ranges = {key: _integers(manifest, f"{where}.{key}", value=entry[key]) for key in ("rows", "columns")}
        for key, numbers in ranges.items():
            if len(numbers) != 2:
                raise _wrong(manifest, f"{where}.{key}", "[start, stop]")
        file = _file(manifest, f"{where}.file", value=entry["file"], others=(BFLOAT16,))
        shards.append(StoredShard(entry["table"], entry["slot"], **ranges, file=file))
    return tuple(shards)


def parse_dense(manifest: Path, value: object) -> dict[str, StoredFile]:
    """The files of the dense variables, by name. Raises as parse_tables does."""
    entries = _typed(manifest, "dense", value=value, kind=dict)
    return {name: _file(manifest, f"dense[{name!r}]", value=entry) for name, entry in entries.items()}


def _file(manifest: Path, where: str, *, value: object, others: tuple[str, ...] = ()) -> StoredFile:
    """A file whose dtype is a type of numpy's numbers, or one of `others`."""
    entry = _object(manifest, where, value=value, kinds=_FILE)
    shape = _integers(manifest, f"{where}.shape", value=entry["shape"])
    path = entry["path"]
    if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
        raise CheckpointError(f"{manifest}: names the file {path[:200]!r}, which leads out of the checkpoint.")
    if not (path.isascii() and path.isprintable() and path):
        raise _wrong(manifest, f"{where}.path", "the path of a file")
    try:
        is_number = entry["dtype"] in others or np.dtype(entry["dtype"]).kind in "biuf"
    except Exception:  # numpy parses the name as a language of its own, and fails in many ways
        is_number = False
    if not is_number:
        raise _wrong(manifest, f"{where}.dtype", "a type of numbers, such as '<f4'")
    return StoredFile(**(entry | {"shape": shape}))


def _object(manifest: Path, where: str, *, value: object, kinds: dict[str, type]) -> dict:
    """An object with exactly these keys, whose values have these types."""
    entry = _typed(manifest, where, value=value, kind=dict)
    if set(entry) != set(kinds):
        raise _wrong(manifest, where, f"an object with the keys {', '.join(kinds)}")
    return {key: _typed(manifest, f"{where}.{key}", value=entry[key], kind=kind) for key, kind in kinds.items()}


def _integers(manifest: Path, where: str, *, value: list) -> tuple[int, ...]:
    for number in value:
        if _typed(manifest, where, value=number, kind=int) < 0:
            raise _wrong(manifest, where, "numbers that are not negative")
    return tuple(value)


def _typed(manifest: Path, where: str, *, value: object, kind: type):
    if not isinstance(value, kind) or isinstance(value, bool):
        raise _wrong(manifest, where, _NAMES[kind])
    return value


def _wrong(manifest: Path, where: str, expected: str) -> CheckpointError:
    return CheckpointError(f"{manifest}: {where[:200]}: is not {expected}. The manifest is damaged.")
