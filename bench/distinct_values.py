"""A column with as many distinct values as the largest of the full logs: counted, ranked, encoded; in how much memory.

    python bench/distinct_values.py [--distinct 300000000] [--memory_limit SIZE]

The column is made as the parse leaves it, 4 bytes a row, in an order without pattern; the first tenth of the values
comes twice. A process of its own takes it from there to vocabulary and ids, under the memory limit that the preflight
would ask for it, which is told beside what it really took; then under one that is too small, which must be refused.
The ids are checked: the values that come twice have the first ones, and each id occurs as often as it should.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from preprocess import ROOT, commit, hardware, resident_peak

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
    parser.add_argument("--memory_limit", help="such as 3G (what the preflight asks for)")
    parser.add_argument("--folder", help="where the temporary files go: about 18 bytes a value")
    parser.add_argument("--json", default=str(ROOT / "bench" / "results" / "distinct_values.json"))
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        do_column(Path(arguments.child[0]), int(arguments.child[1]), int(arguments.child[2]))
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
    print(f"memory: {needed / 1e9:.2f} GB announced, limit {limit / 1e9:.2f} GB, peak {peak / 1e9:.2f} GB")
    print(f"with 64 MiB less: {refused}")
    document = {
        "distinct": arguments.distinct,
        "rows": rows,
        "needed_bytes": needed,
        "limit_bytes": limit,
        **done,
        "refused": refused,
        "load": os.getloadavg()[0],
        "commit": commit(),
        **hardware(),
    }
    Path(arguments.json).write_text(json.dumps(document, indent=1) + "\n")
    print(f"written to {arguments.json}")


def write_column(folder: Path, distinct: int) -> int:
    """Makes the folder of a run that has parsed: raw column and journal. Returns the rows."""
    for name in ("raw", "train", "work", "vocabularies"):
        (folder / name).mkdir()
    twice = distinct // 10
    with open(folder / "raw" / "cat_0.raw", "wb") as file:
        for first in range(0, distinct + twice, PIECE):
            numbers = np.arange(first, min(first + PIECE, distinct + twice), dtype=np.int64) % distinct
            file.write((numbers.astype(np.uint32) * np.uint32(0x9E3779B1)) ^ np.uint32(0x5BD1E995))  # one to one
    return distinct + twice


def run(folder: Path, rows: int, limit: int) -> dict:
    """Seconds and peak resident bytes of a process that does the column, or its error."""
    start, peak = time.perf_counter(), 0
    command = [sys.executable, __file__, "--child", str(folder), str(rows), str(limit)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    while process.poll() is None:
        peak = max(peak, resident_peak(process.pid))
        time.sleep(0.05)
    error = process.stderr.read().strip().rpartition("\n")[2]
    return {"seconds": time.perf_counter() - start, "peak_bytes": peak, "error": error}


def do_column(folder: Path, rows: int, limit: int) -> None:
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
    """Ids 1 to `twice` twice, the others once, each."""
    ids, twice = np.memmap(path, np.int32, "r"), rows - distinct
    total = sum(int(ids[start : start + PIECE].sum(dtype=np.int64)) for start in range(0, rows, PIECE))
    assert len(ids) == rows and total == distinct * (distinct + 1) // 2 + twice * (twice + 1) // 2
    for start in range(0, twice, PIECE):
        again = ids[start : min(start + PIECE, twice)]
        assert int(again.max()) <= twice and int(again.min()) >= 1
        assert np.array_equal(again, ids[distinct + start :][: len(again)]), "the same value, another id"


if __name__ == "__main__":
    main()
