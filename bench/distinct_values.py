"""A column with as many distinct values as the largest column of the full logs: its time and its memory.

    python bench/distinct_values.py [--distinct 300000000] [--memory_limit SIZE]

The column is written as the parse writes it: 4 bytes a row, in an order without pattern. The first tenth of the values
occurs twice. A process counts, ranks and encodes the column under the memory limit that the preflight asks for; the
table shows that limit and the memory that the process took. A second process gets a limit that is too small, and must
refuse it. The ids are checked: values that occur twice have the first ids, and each id occurs as often as its value.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from preprocess import ROOT, resident_peak
from result_file import write_result

sys.path.insert(0, str(ROOT))
from criteo_prep.feature_spec import Feature, tf_raw_spec  # noqa: E402
from criteo_prep.preprocess.columns.encoder import ColumnEncoder, ColumnWork  # noqa: E402
from criteo_prep.preprocess.columns.memory import MemoryPlan, large_column_bytes
from criteo_prep.preprocess.journal import Journal  # noqa: E402
from criteo_prep.preprocess.parse.raw_columns import RawColumns  # noqa: E402
from criteo_prep.preprocess.preflight import memory_limit  # noqa: E402
from criteo_prep.progress import Progress  # noqa: E402
from criteo_prep.schema import CATEGORICAL  # noqa: E402

PIECE = 1 << 22
WORKERS = 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--distinct", type=int, default=300_000_000)
    parser.add_argument("--memory_limit", help="such as 3G (default: the limit that the preflight asks for)")
    parser.add_argument("--folder", help="where the temporary files go: about 18 bytes a value")
    parser.add_argument("--json", default=str(ROOT / "bench" / "results" / "distinct_values.json"))
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        encode_column(Path(arguments.child[0]), int(arguments.child[1]), int(arguments.child[2]))
        return
    needed = MemoryPlan(0, WORKERS).base_bytes + large_column_bytes(arguments.distinct)
    limit = memory_limit(arguments.memory_limit) if arguments.memory_limit else needed
    folder = Path(tempfile.mkdtemp(prefix="bench_distinct_", dir=arguments.folder))
    try:
        rows = write_column(folder, arguments.distinct)
        done = run(folder, rows, limit)
        check_ids(folder / "train" / "cat_0.bin", arguments.distinct, rows)
        done["bytes"] = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        (folder / "work" / "cat_0.json").unlink()
        refused = run(folder, rows, needed - (64 << 20))["error"]
    finally:
        shutil.rmtree(folder)
    assert "memory to be counted, more than the limit" in refused, refused
    seconds = done["seconds"]
    rate = rows / seconds / 1e6
    print(f"{arguments.distinct:,} distinct values in {rows:,} rows: {seconds:.1f} s, {rate:.2f} M rows/s")
    peak = done["peak_bytes"]
    print(f"memory: {needed / 1e9:.2f} GB predicted, limit {limit / 1e9:.2f} GB, peak {peak / 1e9:.2f} GB")
    print(f"with 64 MiB less: {refused}")
    document = {
        "distinct": arguments.distinct,
        "rows": rows,
        "needed_bytes": needed,
        "limit_bytes": limit,
        **done,
        "refused": refused,
    }
    write_result(arguments.json, document)


def write_column(folder: Path, distinct: int) -> int:
    """Writes the folder of a run whose parse is complete: raw column and journal. Returns the number of rows."""
    for name in ("raw", "train", "work", "vocabularies"):
        (folder / name).mkdir()
    twice = distinct // 10
    with open(folder / "raw" / "cat_0.raw", "wb") as file:
        for first in range(0, distinct + twice, PIECE):
            numbers = np.arange(first, min(first + PIECE, distinct + twice), dtype=np.int64) % distinct
            file.write((numbers.astype(np.uint32) * np.uint32(0x9E3779B1)) ^ np.uint32(0x5BD1E995))  # one to one
    return distinct + twice


def run(folder: Path, rows: int, limit: int) -> dict:
    """Seconds and peak resident bytes of a process that encodes the column, or its error."""
    start, peak = time.perf_counter(), 0
    command = [sys.executable, __file__, "--child", str(folder), str(rows), str(limit)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    while process.poll() is None:
        peak = max(peak, resident_peak(process.pid))
        time.sleep(0.05)
    error = process.stderr.read().strip().rpartition("\n")[2]
    return {"seconds": time.perf_counter() - start, "peak_bytes": peak, "error": error}


def encode_column(folder: Path, rows: int, limit: int) -> None:
    spec = tf_raw_spec([Feature(name, "", 1) for name in CATEGORICAL], splits=("train",))
    raw = RawColumns(folder / "raw", rows, num_zeros=[0] * len(CATEGORICAL))
    work = ColumnWork(
        folder,
        spec,
        raw=raw,
        splits={"train": range(rows)},
        counted=range(rows),
        thresholds=(0,) * 26,
        caps=(None,) * 26,
        keep_raw=True,
    )
    with Progress("column", None, unit="values", quiet=True) as progress:
        ColumnEncoder(work, Journal(folder / "work", {}), memory=MemoryPlan(limit, WORKERS), progress=progress).run([0])


def check_ids(path: Path, distinct: int, rows: int) -> None:
    """Checks that ids 1 to `twice` occur twice, and each other id once."""
    ids, twice = np.memmap(path, np.int32, "r"), rows - distinct
    total = sum(int(ids[start : start + PIECE].sum(dtype=np.int64)) for start in range(0, rows, PIECE))
    assert len(ids) == rows and total == distinct * (distinct + 1) // 2 + twice * (twice + 1) // 2
    for start in range(0, twice, PIECE):
        again = ids[start : min(start + PIECE, twice)]
        assert int(again.max()) <= twice and int(again.min()) >= 1
        assert np.array_equal(again, ids[distinct + start :][: len(again)]), "the same value, another id"


if __name__ == "__main__":
    main()
