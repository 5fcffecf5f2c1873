"""split-bin and its inverse against a copy of the same bytes, start-up apart.

    python bench/split_bin.py [--records 4000000] [--repeats 5] [--folder DIR] [--output bench/split_bin.json]

Rounds of copy, split and join follow each other; the first one is left out, which compiles nothing but pays for page
cache that was never touched. Shares are ratios of medians. All data are in the page cache.
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from criteo_prep.split_bin import RecordForm, join, split, split_to_tf_raw  # noqa: E402

SLOTS = [1000] * 26


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--records", type=int, default=4_000_000, help="of 160 bytes (4000000)")
    parser.add_argument("--repeats", type=int, default=5, help="measured rounds, of which the median is taken (5)")
    parser.add_argument("--folder", help="where the temporary files go")
    parser.add_argument("--output", default=str(Path(__file__).with_suffix(".json")))
    arguments = parser.parse_args(argv)
    folder = Path(tempfile.mkdtemp(prefix="bench_split_bin_", dir=arguments.folder))
    try:
        records = make_records(folder / "records.bin", arguments.records)
        steps = {
            "copy": lambda: copy(records, folder / "copy.bin"),
            "split": lambda: split(records, folder / "parts", RecordForm(), SLOTS, overwrite=True, quiet=True),
            "split, sizes found": lambda: split(records, folder / "found", RecordForm(), overwrite=True, quiet=True),
            "join": lambda: join(folder / "parts", folder / "joined.bin", overwrite=True, quiet=True),
            "split to tf_raw": lambda: split_to_tf_raw(records, folder / "raw", RecordForm(), SLOTS, True, True),
        }
        seconds: dict[str, list[float]] = {name: [] for name in steps}
        for _ in range(arguments.repeats + 1):
            for name, step in steps.items():
                start = time.perf_counter()
                step()
                seconds[name].append(time.perf_counter() - start)
    finally:
        shutil.rmtree(folder)
    medians = {name: statistics.median(times[1:]) for name, times in seconds.items()}
    rows = [{"step": name, "seconds": median, "million_records_per_s": arguments.records / median / 1e6,
             "share_of_copy": medians["copy"] / median} for name, median in medians.items()]  # fmt: skip
    print(f"{'step':20} {'s':>7} {'M records/s':>12} {'of copy':>8}")
    for row in rows:
        print("{step:20} {seconds:7.2f} {million_records_per_s:12.2f} {share_of_copy:8.0%}".format(**row))
    document = {
        "command": " ".join(["python", "bench/split_bin.py", *(sys.argv[1:] if argv is None else argv)]),
        "commit": subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout.strip(),
        "machine": {"cores": len(os.sched_getaffinity(0)), "processor": platform.machine(), "load": os.getloadavg()},
        "rows": rows,
    }
    Path(arguments.output).write_text(json.dumps(document, indent=1) + "\n")
    return 0


def make_records(path: Path, count: int) -> Path:
    rng = np.random.default_rng(0)
    with open(path, "wb") as file:
        for start in range(0, count, 1 << 18):
            words = rng.integers(0, 1000, (min(1 << 18, count - start), 40), np.int32)
            words[:, 0] &= 1
            file.write(words.data)
    return path


def copy(source: Path, destination: Path) -> None:
    """As cp does it without help of the file system: every byte is read and written."""
    with open(source, "rb") as reading, open(destination, "wb") as writing:
        shutil.copyfileobj(reading, writing, 8 << 20)


if __name__ == "__main__":
    sys.exit(main())
