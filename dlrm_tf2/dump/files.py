"""The files of a dump of dynamic tables: plain little-endian numbers, without a header. No TensorFlow.

For each table and each rank r of the w ranks that wrote the dump:

    {table}_emb_keys.rank_{r}.world_size_{w}        int64 [n]
    {table}_emb_values.rank_{r}.world_size_{w}      float32 [n, embedding_dim]
    {table}_emb_scores.rank_{r}.world_size_{w}      int64 [n]; for the score timestamp the age: time of the dump - score
    {table}_emb_opt_values.rank_{r}.world_size_{w}  float32 [n, state_dim]: the optimizer's slots side by side
    {table}_emb_steps.rank_{r}.world_size_{w}       int64 [n], the step of the last batch that had the key
    {table}_counter_keys.rank_{r}.world_size_{w}    int64 [m], keys that are counted and not admitted yet
    {table}_counter_frequencies.rank_{r}.world_size_{w}  int64 [m], how often these have occurred
    {table}_opt_args.json                           the arguments of the table, once

Source: the files that dynamicemb dumps and loads. Its dumps have no steps, and of the arguments only opt_type and
evict_strategy. It takes the keys of rank r by key mod w: give it the dump of one rank, as apply.py writes it.
"""

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from dlrm_tf2.dump.arguments import BLOCK_ROWS, Arguments, DumpError, TableRows

_TYPES = {"keys": "<i8", "values": "<f4", "scores": "<i8", "opt_values": "<f4", "steps": "<i8"}
_NAME = re.compile(r"(?P<table>.+)_emb_keys\.rank_(?P<rank>\d+)\.world_size_(?P<world_size>\d+)")


class Part(NamedTuple):
    """What one rank wrote of a table.

    Attributes:
      table: name.
      rank, world_size: of the job that wrote it.
    """

    table: str
    rank: int
    world_size: int

    def path(self, folder: Path, kind: str) -> Path:
        """The file of a kind: emb_keys, emb_values, ..."""
        return folder / f"{self.table}_{kind}.rank_{self.rank}.world_size_{self.world_size}"


class PartWriter:
    """Writes a part, rows after rows. A context manager; its end makes the files outlive a power cut.

    Args:
      folder: exists.
      part: what is written.
      arguments: of the table.
    """

    def __init__(self, folder: Path, part: Part, arguments: Arguments):
        self._folder, self._part, self._arguments = folder, part, arguments
        kinds = [kind for kind in _TYPES if kind != "opt_values" or arguments.opt_type is not None]
        self._files: dict[str, BinaryIO] = {kind: part.path(folder, f"emb_{kind}").open("xb") for kind in kinds}

    def __enter__(self) -> "PartWriter":
        return self

    def write(self, rows: TableRows) -> None:
        """Appends rows."""
        scores = self._arguments.time - rows.scores if self._arguments.score == "timestamp" else rows.scores
        parts = {"keys": rows.keys, "values": rows.values, "scores": scores, "opt_values": rows.state}
        for kind, numbers in {**parts, "steps": rows.steps}.items():
            if kind in self._files:
                self._files[kind].write(np.ascontiguousarray(numbers, _TYPES[kind]).data)

    def write_counts(self, keys: np.ndarray, counts: np.ndarray) -> None:
        """Writes how often keys that are not admitted yet have occurred, int64 [m] each."""
        for kind, numbers in {"counter_keys": keys, "counter_frequencies": counts}.items():
            self._files[kind] = self._part.path(self._folder, kind).open("xb")
            self._files[kind].write(np.ascontiguousarray(numbers, "<i8").data)

    def __exit__(self, *error: object) -> None:
        for file in self._files.values():
            with file:
                file.flush()
                os.fsync(file.fileno())


def parts_in(folder: Path) -> dict[str, list[Part]]:
    """The tables of a dump, each with its parts in the order of the ranks.

    Raises:
      DumpError: there is no dump, or it is not complete.
    """
    found: dict[str, list[Part]] = {}
    if not folder.is_dir():
        raise DumpError(f"{folder}: there is no such folder. Give the folder of a dump.")
    for name in sorted(os.listdir(folder)):
        if match := _NAME.fullmatch(name):
            part = Part(match["table"], int(match["rank"]), int(match["world_size"]))
            found.setdefault(part.table, []).append(part)
    if not found:
        raise DumpError(f"{folder}: holds no dump: no file is named TABLE_emb_keys.rank_R.world_size_W.")
    return {table: _complete(folder, table, parts) for table, parts in found.items()}


def read_part(folder: Path, part: Part, arguments: Arguments) -> Iterator[TableRows]:
    """The rows of a part, at most BLOCK_ROWS at a time.

    Raises:
      DumpError: files are missing, or their sizes contradict each other.
    """
    paths = {kind: part.path(folder, f"emb_{kind}") for kind in _TYPES}
    num_rows = _size(paths["keys"]) // 8
    state_dim = arguments.state_dim
    if paths["opt_values"].exists() and not state_dim and num_rows:
        state_dim = _size(paths["opt_values"]) // 4 // num_rows
    widths = {"keys": 1, "values": arguments.embedding_dim, "scores": 1, "opt_values": state_dim, "steps": 1}
    optional = [kind for kind in ("opt_values", "steps") if not paths[kind].exists()]
    arrays: dict[str, np.ndarray | None] = dict.fromkeys(optional)
    for kind in set(_TYPES) - set(optional):
        expected, found = num_rows * widths[kind] * int(_TYPES[kind][-1]), _size(paths[kind])
        if found != expected:
            raise DumpError(
                f"{paths[kind]}: has {found} bytes, expected {expected} for {num_rows} keys. The dump is damaged, or "
                f"its table has another embedding_dim than {arguments.embedding_dim}."
            )
        shape = (num_rows, widths[kind]) if kind in ("values", "opt_values") else (num_rows,)
        empty = np.empty(shape, _TYPES[kind])
        arrays[kind] = np.memmap(paths[kind], _TYPES[kind], "r", shape=shape) if empty.size else empty
    for start in range(0, num_rows, BLOCK_ROWS):
        block = {
            kind: None if array is None else np.array(array[start : start + BLOCK_ROWS])
            for kind, array in arrays.items()
        }
        scores = block["scores"]
        assert scores is not None
        if arguments.score == "timestamp":
            scores = arguments.time - scores
        yield TableRows(block["keys"], scores, values=block["values"], state=block["opt_values"], steps=block["steps"])


def read_counts(folder: Path, part: Part) -> tuple[np.ndarray, np.ndarray]:
    """(keys, counts) of the keys that are not admitted yet, int64 [m] each.

    Raises:
      DumpError: the files contradict each other.
    """
    keys, counts = (part.path(folder, kind) for kind in ("counter_keys", "counter_frequencies"))
    if not keys.exists():
        return np.empty(0, np.int64), np.empty(0, np.int64)
    if _size(keys) != _size(counts) or _size(keys) % 8:
        raise DumpError(f"{counts}: has {_size(counts)} bytes, and {keys.name} {_size(keys)}. The dump is damaged.")
    return np.fromfile(keys, "<i8"), np.fromfile(counts, "<i8")


def _complete(folder: Path, table: str, parts: Sequence[Part]) -> list[Part]:
    world_sizes = {part.world_size for part in parts}
    ordered = sorted(parts, key=lambda part: part.rank)
    if len(world_sizes) > 1 or [part.rank for part in ordered] != list(range(ordered[0].world_size)):
        names = ", ".join(f"rank {part.rank} of {part.world_size}" for part in ordered)
        raise DumpError(
            f"{folder}: table {table!r} has the files of {names}, expected every rank of one job. Dump the table "
            "again, into an empty folder."
        )
    return ordered


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise DumpError(f"{path}: cannot be read: {error.strerror}. The dump is not complete.") from error
