"""The reckoning before anything starts: rows, disk and memory that a run needs, against those that are there."""

import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from criteo_prep.preprocess.blocks import BLOCK_BYTES, text_blocks
from criteo_prep.preprocess.parquet_rows import is_parquet, num_rows_of
from criteo_prep.preprocess.rank_bitmap import BITMAP_BYTES
from criteo_prep.preprocess.threshold import WINDOW_IDS
from criteo_prep.schema import NUM_CATEGORICAL, NUM_NUMERICAL

RAW_ROW_BYTES = 4 * NUM_CATEGORICAL
LABEL_ROW_BYTES, NUMERICAL_ROW_BYTES = 1, 2 * NUM_NUMERICAL
# The interpreter with its libraries and numba's code; measured 0.25 GB.
_BASE_BYTES = 300 << 20
# Blocks of text and of columns on their way, and a small column's hash table while it grows; of each worker.
_WORKER_BYTES = 120 << 20
# The largest column of Criteo's 1 TB logs has 292,775,614 distinct values (T0); more are counted if memory allows.
_MOST_DISTINCT = 300_000_000
_MARGIN = 0.1


class PreflightError(ValueError):
    """What is asked for does not fit this machine."""


@dataclass(frozen=True)
class MemoryPlan:
    """How many columns with many distinct values may be in work at a time.

    Args:
      limit_bytes: memory that this process may use.
      workers: threads.
    """

    limit_bytes: int
    workers: int

    @property
    def base_bytes(self) -> int:
        return _BASE_BYTES + self.workers * _WORKER_BYTES

    def large_columns(self, num_rows: int) -> int:
        """1 at least."""
        each = large_column_bytes(min(num_rows, _MOST_DISTINCT))
        return int(np.clip((self.limit_bytes - self.base_bytes) // each, 1, self.workers))

    @property
    def most_distinct(self) -> int:
        """The distinct values that one column may have under the limit; see large_column_bytes."""
        there = self.limit_bytes - self.base_bytes - large_column_bytes(0)
        return max(0, min(there // 8, WINDOW_IDS) if there < 8 * WINDOW_IDS else (there - 4 * WINDOW_IDS) // 4)

    def check_distinct(self, column: str, num_distinct: int, at_a_time: int) -> None:
        """Raises PreflightError where a column has more distinct values than memory allows to count."""
        needed, there = large_column_bytes(num_distinct), (self.limit_bytes - self.base_bytes) // at_a_time
        if needed > there:
            raise PreflightError(
                f"{column}: {num_distinct:,} distinct values need {gigabytes(needed * at_a_time + self.base_bytes)} of "
                f"memory to be counted, more than the limit of {gigabytes(self.limit_bytes)}. Give a --memory_limit of "
                "that much; what is done so far is kept."
            )


def large_column_bytes(num_distinct: int) -> int:
    """Memory of one column that is counted by a bitmap: the bitmap, a count each, a window of the vocabulary."""
    return BITMAP_BYTES + 4 * num_distinct + 4 * min(num_distinct, WINDOW_IDS) + (96 << 20)


@dataclass(frozen=True)
class Preflight:
    """What a run needs and what there is, in bytes where not said otherwise."""

    num_rows: int
    input_bytes: int
    disk_needed: int
    disk_free: int
    memory_needed: int
    memory_limit: int
    most_distinct: int

    def __str__(self) -> str:
        enough = self.memory_needed <= self.memory_limit
        refused = "" if enough else f": a column with more than {self.most_distinct:,} distinct values will be refused"
        return (
            f"preflight: about {self.num_rows:,} rows in {gigabytes(self.input_bytes)}; "
            f"disk {gigabytes(self.disk_needed)} needed, {gigabytes(self.disk_free)} free; "
            f"memory {gigabytes(self.memory_needed)} needed at most, limit {gigabytes(self.memory_limit)}{refused}"
        )


def look_ahead(
    paths: tuple[Path, ...], destination: Path, plan: MemoryPlan, keep_raw: bool, shuffled: bool, already: int = 0
) -> Preflight:
    """Estimates what the work needs, from the size of the files and the rows at their beginning.

    Args:
      already: bytes of an earlier run that are there and need no space any more.

    Raises:
      PreflightError: it does not fit.
    """
    rows = sum(estimated_rows(path) for path in paths)
    parent = next(folder for folder in (destination, *destination.parents) if folder.exists())
    free = shutil.disk_usage(parent).free
    disk = max(0, _disk_bytes(rows, plan.workers, keep_raw, shuffled) - already)
    memory = plan.base_bytes + large_column_bytes(min(rows, _MOST_DISTINCT))
    size = sum(path.stat().st_size for path in paths)
    found = Preflight(rows, size, disk, free, memory, plan.limit_bytes, plan.most_distinct)
    if disk > free:
        raise PreflightError(
            f"{destination}: {found}. The disk is too small: free {gigabytes(disk - free)}, "
            "or name a place on another disk."
        )
    least = plan.base_bytes + large_column_bytes(0)
    if plan.limit_bytes < least:
        raise PreflightError(
            f"--memory_limit {gigabytes(plan.limit_bytes)}: {gigabytes(least)} are needed with {plan.workers} workers, "
            "whatever the data. Give more, or fewer --workers."
        )
    return found


def _disk_bytes(rows: int, workers: int, keep_raw: bool, shuffled: bool) -> int:
    """The most that the folder holds at any time."""
    parsed = rows * (LABEL_ROW_BYTES + NUMERICAL_ROW_BYTES + RAW_ROW_BYTES)
    arranging = rows * 2 * NUMERICAL_ROW_BYTES if shuffled else 0
    encoding = rows * 4 * (NUM_CATEGORICAL if keep_raw else workers + workers * shuffled)
    return parsed + max(arranging, encoding)


def estimated_rows(path: Path) -> int:
    """Rows of a file: by its footer, or by its size and the length of its first rows."""
    if is_parquet(path):
        return num_rows_of(path)
    size, stored = path.stat().st_size, []
    for block, _ in text_blocks(path, BLOCK_BYTES, stored.append):
        lines = max(1, int(np.count_nonzero(block == ord("\n"))))
        return max(lines, int(size * lines / max(1, min(sum(stored), size))))
    return 0


def memory_available() -> int:
    """Bytes that this process may still use: what the machine has, or what its cgroup leaves."""
    meminfo = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    found = [int(meminfo["MemAvailable"].split()[0]) << 10]
    for limit, used in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ):
        try:
            found.append(int(Path(limit).read_text()) - int(Path(used).read_text()))
        except (OSError, ValueError):  # no such cgroup, or "max"
            continue
    return min(found)


def memory_limit(given: int | str | None) -> int:
    """Bytes of what the user gave: a number, or one with K, M, G or T; by default what there is, less a margin."""
    if given is None:
        return int(memory_available() * (1 - _MARGIN))
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", str(given).strip(), re.IGNORECASE)
    if not match:
        raise PreflightError(f"--memory_limit {given}: is no size. Write one such as 8G or 1500M.")
    return int(float(match[1]) * 1024 ** " KMGT".index(match[2].upper() or " "))


def processors() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0))


def gigabytes(size: int) -> str:
    return f"{size / 1e9:.2f} GB"
