"""The check before a run starts: the rows, disk and memory that it needs, against the disk and memory it has."""

import contextlib
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from criteo_prep.machine import available_memory_bytes
from criteo_prep.preprocess.columns.memory import (
    MOST_DISTINCT,
    MemoryPlan,
    PreflightError,
    large_column_bytes,
)
from criteo_prep.preprocess.locations import Location, size_of
from criteo_prep.preprocess.parse.parquet_columns import note_on_columns
from criteo_prep.preprocess.parse.parquet_rows import column_names, is_parquet, num_rows_of
from criteo_prep.preprocess.parse.text_blocks import BLOCK_BYTES, text_blocks
from criteo_prep.preprocess.parse.text_stream import TruncatedError
from criteo_prep.schema import NUM_CATEGORICAL, NUM_NUMERICAL
from criteo_prep.sizes import shown_bytes

_VALUE_BYTES, _KEY_BYTES = 4, 8
RAW_ROW_BYTES = _VALUE_BYTES * NUM_CATEGORICAL
LABEL_ROW_BYTES, NUMERICAL_ROW_BYTES = 1, 2 * NUM_NUMERICAL
_MARGIN = 0.1


@dataclass(frozen=True)
class Preflight:
    """What a run needs and what the machine has; sizes in bytes.

    Attributes:
      num_rows: estimated rows of all input files.
      input_bytes: stored bytes of all input files.
      disk_needed: most bytes that the run writes and still needs at a time.
      disk_free: free bytes on the disk of the destination.
      memory_needed: most memory that the run takes.
      memory_limit: memory that the run may take.
      most_distinct: distinct values that one column may have under the memory limit.
      notes: lines about the input files that the user should read.
    """

    num_rows: int
    input_bytes: int
    disk_needed: int
    disk_free: int
    memory_needed: int
    memory_limit: int
    most_distinct: int
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        enough = self.memory_needed <= self.memory_limit
        refused = "" if enough else f": a column with more than {self.most_distinct:,} distinct values will be refused"
        return (
            f"preflight: about {self.num_rows:,} rows in {shown_bytes(self.input_bytes)}; "
            f"disk {shown_bytes(self.disk_needed)} needed, {shown_bytes(self.disk_free)} free; "
            f"memory {shown_bytes(self.memory_needed)} needed at most, limit {shown_bytes(self.memory_limit)}{refused}"
            + "".join(f"\n  {note}" for note in self.notes)
        )


class Columns(NamedTuple):
    """What becomes of the categorical columns.

    Attributes:
      keep_raw: whether the raw columns are kept.
      shuffled: whether the train rows are shuffled.
      keys: whether columns become keys, for which nothing is counted.
    """

    keep_raw: bool = False
    shuffled: bool = False
    keys: bool = False


def check_resources(
    paths: tuple[Location, ...], destination: Path, *, plan: MemoryPlan, columns: Columns, written: int = 0
) -> Preflight:
    """Estimates what a run needs, from the sizes of the files and the rows at their beginning.

    Args:
      paths: the input files.
      destination: the dataset folder to make.
      plan: memory limit and number of threads.
      columns: what becomes of the categorical columns.
      written: bytes that an earlier run has written already.

    Raises:
      PreflightError: the disk or the memory limit is too small.
    """
    rows = sum(estimated_rows(path) for path in paths)
    parent = next(folder for folder in (destination, *destination.parents) if folder.exists())
    free = shutil.disk_usage(parent).free
    disk = max(0, _disk_bytes(rows, plan.workers, columns) - written)
    memory = plan.base_bytes + (0 if columns.keys else large_column_bytes(min(rows, MOST_DISTINCT)))
    size = sum(map(size_of, paths))
    preflight = Preflight(
        rows,
        size,
        disk_needed=disk,
        disk_free=free,
        memory_needed=memory,
        memory_limit=plan.limit_bytes,
        most_distinct=plan.most_distinct,
        notes=tuple(note for path in paths if is_parquet(path) and (note := note_on_columns(path, column_names(path)))),
    )
    if disk > free:
        raise PreflightError(
            f"{destination}: {preflight}. The disk is too small: free {shown_bytes(disk - free)}, "
            "or name a destination on another disk."
        )
    least = plan.base_bytes + (0 if columns.keys else large_column_bytes(0))
    if plan.limit_bytes < least:
        raise PreflightError(
            f"--memory_limit {shown_bytes(plan.limit_bytes)}: is too small; {plan.workers} workers need "
            f"{shown_bytes(least)} for any data. Give a larger limit, or fewer --workers."
        )
    return preflight


def _disk_bytes(rows: int, workers: int, columns: Columns) -> int:
    """The most bytes that the folder of the run holds at any time."""
    keep_raw, shuffled, keys = columns
    id_bytes = _KEY_BYTES if keys else _VALUE_BYTES  # at most
    growth = NUM_CATEGORICAL * (id_bytes if keep_raw else id_bytes - _VALUE_BYTES)
    at_once = workers * ((0 if keep_raw else _VALUE_BYTES) + id_bytes * shuffled)
    parsed = rows * (LABEL_ROW_BYTES + NUMERICAL_ROW_BYTES + RAW_ROW_BYTES)
    arranging = rows * 2 * NUMERICAL_ROW_BYTES if shuffled else 0
    return parsed + max(arranging, rows * (growth + at_once))


def estimated_rows(path: Location) -> int:
    """Rows of a file: by the footer of parquet; for text, by its size and the length of its first rows."""
    if is_parquet(path):
        return num_rows_of(path)
    size, stored = size_of(path), []
    with contextlib.suppress(TruncatedError):  # without a whole row; parsing reports it
        for block, _ in text_blocks(path, BLOCK_BYTES, on_read=stored.append):
            lines = max(1, int(np.count_nonzero(block == ord("\n"))))
            return max(lines, int(size * lines / max(1, min(sum(stored), size))))
    return 0


def memory_limit(given: int | str | None) -> int:
    """The memory limit in bytes.

    Args:
      given: bytes, or text such as "8G" with K, M, G or T; None for the memory that is available, less a tenth.
    """
    if given is None:
        return int(available_memory_bytes() * (1 - _MARGIN))
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", str(given).strip(), re.IGNORECASE)
    if not match:
        raise PreflightError(f"--memory_limit {given}: is not a size. Write a size such as 8G or 1500M.")
    return int(float(match[1]) * 1024 ** " KMGT".index(match[2].upper() or " "))
