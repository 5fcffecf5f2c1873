"""The check before a run starts: the rows, disk and memory that it needs, by the beginning of each file."""

import shutil
from pathlib import Path

from criteo_prep.preprocess.columns.memory import MemoryPlan, PreflightError
from criteo_prep.preprocess.locations import Location, size_of
from criteo_prep.preprocess.preflight import Preflight
from criteo_prep.sizes import shown_bytes
from criteo_prep.table.parse import TableParsing, open_table
from criteo_prep.table.read_arrow import ArrowFile, ParquetFile
from criteo_prep.table.read_csv import BLOCK_BYTES, CsvFile
from criteo_prep.table.row_values import rows_of
from criteo_prep.table.value_codes import INTEGER_BYTES, TEXT_BYTES

_CODE_BYTES, _ID_BYTES = 4, 4  # at most
_PACKED = 5  # text of a compressed file, as a multiple of its stored bytes; an estimate


def check_resources(
    paths: tuple[Location, ...], destination: Path, *, plan: MemoryPlan, parsing: TableParsing, written: int = 0
) -> Preflight:
    """Estimates what a run needs, from the sizes of the files and the rows at their beginning.

    Args:
      paths: the input files.
      destination: the dataset folder to make.
      plan: memory limit and number of threads.
      parsing: what the columns are.
      written: bytes that an earlier run has written already.

    Raises:
      PreflightError: the disk or the memory limit is too small.
    """
    total = disk = 0
    value_bytes = 0.0  # of the longest column
    for path in paths:
        rows, parsed_bytes, longest = _estimate(path, parsing)
        total += rows
        disk += int(rows * parsed_bytes)
        value_bytes = max(value_bytes, longest)
    num_columns, num_numbers = len(parsing.schema.categorical), len(parsing.schema.numerical)
    final = 1 + 2 * num_numbers + _ID_BYTES * num_columns
    disk += total * (final + _CODE_BYTES * min(plan.workers, num_columns))
    parent = next(folder for folder in (destination, *destination.parents) if folder.exists())
    free = shutil.disk_usage(parent).free
    at_a_time = max(1, min(plan.workers, len(parsing.schema.groups)))
    each = (INTEGER_BYTES if value_bytes <= 8 else TEXT_BYTES) + value_bytes
    preflight = Preflight(
        total,
        sum(map(size_of, paths)),
        disk_needed=max(0, disk - written),
        disk_free=free,
        memory_needed=plan.base_bytes + int(total * each * at_a_time),
        memory_limit=plan.limit_bytes,
        most_distinct=int(max(0, plan.limit_bytes - plan.base_bytes) / at_a_time / each),
    )
    if preflight.disk_needed > free:
        raise PreflightError(
            f"{destination}: {preflight}. The disk is too small: free {shown_bytes(preflight.disk_needed - free)}, "
            "or name a destination on another disk."
        )
    if plan.limit_bytes < plan.base_bytes:
        raise PreflightError(
            f"--memory_limit {shown_bytes(plan.limit_bytes)}: is too small; {plan.workers} workers need "
            f"{shown_bytes(plan.base_bytes)} for any data. Give a larger limit, or fewer --workers."
        )
    return preflight


def _estimate(path: Location, parsing: TableParsing) -> tuple[int, float, float]:
    """(rows of a file, bytes that the parse writes for a row, bytes of a value of the longest column)."""
    table = open_table(path, parsing.schema, skip_bad_rows=True)
    for frame, position, _ in table.blocks(parsing.columns):
        if not frame.height:
            continue
        rows = rows_of(frame, parsing.schema, path=path, labelled=parsing.labelled)
        num_rows, sizes = max(1, len(rows.label)), []
        for cells in rows.columns:
            sizes.append(cells.values.estimated_size() / num_rows)
        written = sum(sizes) + 9 + 8 * len(parsing.schema.numerical) + 4 * len(sizes)
        if isinstance(table, ParquetFile | ArrowFile):
            return table.num_rows(), written, max(sizes, default=0)
        size = size_of(path) * (_PACKED if path.suffix in (".gz", ".zst") else 1)
        is_csv = isinstance(table, CsvFile)  # whose positions are rows; a JSON position is in bytes
        row_bytes = (min(BLOCK_BYTES, size) if is_csv else position) / frame.height
        return max(frame.height, int(size / row_bytes)), written, max(sizes, default=0)
    return 0, 0.0, 0.0
