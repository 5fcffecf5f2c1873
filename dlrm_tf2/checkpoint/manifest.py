"""The manifest of a checkpoint: the content of the folder, checked before a weight is read. No TensorFlow.

    <checkpoint>/manifest.json            written last: tables, shards, files with sizes and checksums, the document
    <checkpoint>/dense/<name>.npy         one file per dense variable
    <checkpoint>/tables/<table>.<slot>.r<start>-<stop>.c<start>-<stop>.npy     one file per shard and slot

A table is stored as the shards of the plan that saved it: rectangles that tile the table exactly once.
The weights are float32 or bfloat16, all other slots float32. Shards of dynamic tables hold a line for each key
(dynamic_entries.py).
"""

import itertools
import json
import os
import urllib.parse
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from zlib import crc32

from criteo_prep.plain_file import check_plain, open_plain
from dlrm_tf2.checkpoint.bfloat16 import BFLOAT16
from dlrm_tf2.checkpoint.dynamic_entries import KEYS, check_dynamic, is_of_index
from dlrm_tf2.checkpoint.files import CheckpointError, StoredFile, check_size, unreadable, unwritable
from dlrm_tf2.checkpoint.manifest_entries import StoredShard, StoredTable, parse_dense, parse_shards, parse_tables

MANIFEST = "manifest.json"
_KIND = "dlrm checkpoint"  # a dataset has a manifest.json of another kind
# Formats: programs that read only the first have no 16-bit tables; programs that read only two have no dynamic tables.
_PLAIN, _SIXTEEN_BIT, _WITH_KEYS = 1, 2, 3
_WEIGHTS = "weights"


@dataclass(frozen=True)
class Manifest:
    """A checkpoint without its weights.

    Attributes:
      document: what the program keeps next to the weights, such as the model and the step.
      tables: all tables, in the model's order.
      shards: rectangles of all tables and slots.
      dense: name of a dense variable -> its file.
    """

    document: dict
    tables: tuple[StoredTable, ...]
    shards: tuple[StoredShard, ...]
    dense: dict[str, StoredFile]

    @property
    def files(self) -> list[StoredFile]:
        return [*self.dense.values(), *(shard.file for shard in self.shards)]

    @property
    def table_dtype(self) -> str:
        """Type of the tables' weights: float32 or bfloat16."""
        return BFLOAT16 if any(shard.file.dtype == BFLOAT16 for shard in self.shards) else "float32"

    @property
    def dynamic_tables(self) -> list[str]:
        """Names of the dynamic tables, in the model's order."""
        names = {shard.table for shard in self.shards if shard.slot == KEYS}
        return [table.name for table in self.tables if table.name in names]

    def num_keys(self, table: str) -> int:
        """How many keys a dynamic table has."""
        return sum(shard.file.shape[0] for shard in self.shards if (shard.table, shard.slot) == (table, KEYS))


def shard_path(table: str, slot: str, *, rows: tuple[int, int], columns: tuple[int, int]) -> str:
    """Where the rectangle of a table is stored, relative to the checkpoint."""
    return f"tables/{_file_name(table)}.{_file_name(slot)}.r{rows[0]}-{rows[1]}.c{columns[0]}-{columns[1]}.npy"


def dense_path(name: str) -> str:
    """Where a dense variable is stored, relative to the checkpoint."""
    return f"dense/{_file_name(name)}.npy"


def _file_name(name: str) -> str:
    """A name as part of a file name: a character that is not a letter, a digit or one of `_.-~` becomes %XX.

    Two names never become the same part: a long one is cut, and its checksum appended.
    """
    quoted = urllib.parse.quote(name, safe="")
    return quoted if len(quoted) <= 120 else f"{quoted[:100]}~{crc32(name.encode()):08x}"


def is_state(name: str, names: Iterable[str]) -> bool:
    """Whether a dense variable is optimizer state of another one: VARIABLE.SLOT, where VARIABLE is one of the names."""
    variable, _, slot = name.rpartition(".")
    return bool(slot) and variable in names


def write_manifest(folder: Path, manifest: Manifest, made_by: str) -> None:
    """Writes manifest.json. Raises CheckpointError if the shards do not tile the tables."""
    _check_tiling(folder / MANIFEST, manifest)
    form = _SIXTEEN_BIT if manifest.table_dtype == BFLOAT16 else _PLAIN
    form = _WITH_KEYS if manifest.dynamic_tables else form
    content = {"kind": _KIND, "format": form, "made_by": made_by, **asdict(manifest)}
    content["crc32"] = _content_checksum(content)
    try:
        with open(folder / MANIFEST, "x", encoding="utf-8") as file:
            json.dump(content, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise unwritable(folder / MANIFEST, error) from error


def read_manifest(folder: Path) -> Manifest:
    """Reads and checks manifest.json, and the sizes of all files. Compares no checksum of a file.

    Raises:
      CheckpointError: the manifest is missing, damaged or of another kind, or a file is missing or truncated.
    """
    path = folder / MANIFEST
    content = _parse(path)
    if content.get("kind") != _KIND:
        raise CheckpointError(f"{path}: is not the manifest of a checkpoint. Name a folder that this program saved.")
    if content.get("format") not in (_PLAIN, _SIXTEEN_BIT, _WITH_KEYS):
        raise CheckpointError(
            f"{path}: is of format {str(content.get('format'))[:40]}; this program reads the formats "
            f"{_PLAIN} to {_WITH_KEYS}. Use the version that saved it."
        )
    if content.pop("crc32", None) != _content_checksum(content):
        raise CheckpointError(f"{path}: its checksum does not fit its content: it was changed or damaged.")
    document = content.get("document")
    if not isinstance(document, dict):
        raise CheckpointError(f"{path}: document is not an object. The manifest is damaged.")
    manifest = Manifest(
        document,
        parse_tables(path, content.get("tables")),
        shards=parse_shards(path, content.get("shards")),
        dense=parse_dense(path, content.get("dense")),
    )
    _check_tiling(path, manifest)
    for file in manifest.files:
        try:
            check_plain(folder / file.path)
            size = (folder / file.path).stat().st_size
        except OSError as error:
            raise unreadable(folder / file.path, error) from None
        check_size(folder / file.path, size, file)
    return manifest


def document_of(folder: Path) -> dict | None:
    """The document of a checkpoint of any format, without a look at its files; None if the folder holds no checkpoint.

    None too if the folder holds other files as well: replacing the checkpoint would delete them.
    """
    try:
        content = _parse(folder / MANIFEST)
        names = {entry.name for entry in folder.iterdir()}
    except (CheckpointError, OSError):
        return None
    if content.get("kind") != _KIND or not names <= {MANIFEST, "dense", "tables"}:
        return None
    document = content.get("document")
    return document if isinstance(document, dict) else {}


def is_checkpoint(folder: Path) -> bool:
    """Whether the folder holds a checkpoint of any format, and no other file."""
    return document_of(folder) is not None


def _parse(path: Path) -> dict:
    try:
        with open_plain(path) as file:
            content = json.loads(file.read().decode("utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise CheckpointError(f"{path}: there is no such file, so {path.parent} is not a checkpoint.") from None
    except OSError as error:
        raise unreadable(path, error) from None
    except (ValueError, RecursionError) as error:  # not JSON, not UTF-8, or nested too deep
        raise CheckpointError(f"{path}: is not whole: {error}. Restore another checkpoint.") from None
    return content if isinstance(content, dict) else {}


def _content_checksum(content: dict) -> str:
    return f"{crc32(json.dumps(content, sort_keys=True).encode()):08x}"


def _check_tiling(path: Path, manifest: Manifest) -> None:
    """Raises CheckpointError unless the shards of each slot cover its table exactly once."""
    tables, dynamic = {table.name: table for table in manifest.tables}, manifest.dynamic_tables
    for name in dynamic:
        shards = [shard for shard in manifest.shards if shard.table == name]
        check_dynamic(f"{path}: table {name!r}", shards, tables[name].embedding_dim)
    groups: dict[tuple[str, str], list[StoredShard]] = {(name, _WEIGHTS): [] for name in tables}
    for shard in manifest.shards:
        groups.setdefault((shard.table, shard.slot), []).append(shard)
    for (name, slot), shards in groups.items():
        where = f"{path}: table {name!r}, {slot}"
        table = tables.get(name)
        if table is None:
            raise CheckpointError(f"{where}: has a shard, but the table is not listed.")
        area = 0
        for shard in shards:
            (top, bottom), (left, right) = shard.rows, shard.columns
            if not (0 <= top < bottom <= table.num_rows and 0 <= left < right <= table.embedding_dim):
                raise CheckpointError(f"{where}: the shard {shard.rows} x {shard.columns} does not lie in the table.")
            is_type = shard.file.dtype == "<f4" or (slot == _WEIGHTS and shard.file.dtype == BFLOAT16)
            has_shape = name in dynamic or shard.file.shape == (bottom - top, right - left)
            if not has_shape or not (is_type or (name in dynamic and is_of_index(slot))):
                types = "float32 or bfloat16" if slot == _WEIGHTS else "float32"
                raise CheckpointError(f"{where}: {shard.file.path} is not the {types} rectangle of its shard.")
            area += (bottom - top) * (right - left)
        pairs = itertools.combinations(shards, 2)
        overlap = any(overlaps(a.rows, b.rows) and overlaps(a.columns, b.columns) for a, b in pairs)
        if overlap or area != table.num_rows * table.embedding_dim:
            raise CheckpointError(
                f"{where}: the shards do not cover the {table.num_rows} x {table.embedding_dim} table exactly once."
            )


def overlaps(one: tuple[int, int], other: tuple[int, int]) -> bool:
    """Whether two ranges (start, stop) share a number."""
    return max(one[0], other[0]) < min(one[1], other[1])
