"""split-bin and its inverse against a copy of the records; the start of the program is not included.

    python bench/split_bin.py [--records 4000000] [--rounds 7]

Every run is paired with a copy of the file of records. Both write new files, into page cache that was just freed. A
share is copy time / run time of one pair; the table has the median and the lowest share. The first round does not
count. All data are in the page cache.
"""

import argparse
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from result_file import write_result

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from criteo_prep.split_bin.files import join, split
from criteo_prep.split_bin.record import RecordForm
from criteo_prep.split_bin.to_tf_raw import split_to_tf_raw

SLOTS = [1000] * 26


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--records", type=int, default=4_000_000, help="records of 160 bytes (4000000)")
    parser.add_argument("--rounds", type=int, default=7, help="measured pairs of each step (7)")
    parser.add_argument("--folder", help="where the temporary files go")
    parser.add_argument("--json", default=str(Path(__file__).parent / "results" / "split_bin.json"))
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="bench_split_bin_", dir=arguments.folder))
    try:
        records = make_records(folder / "records.bin", arguments.records)
        split(records, folder / "parts", form=RecordForm(), slot_sizes=SLOTS, quiet=True)
        os.sync()  # or the disk still writes these files during the measurement
        steps = {
            "split": lambda made: split(records, made, form=RecordForm(), slot_sizes=SLOTS, quiet=True),
            "split, sizes found": lambda made: split(records, made, form=RecordForm(), quiet=True),
            "join": lambda made: join(folder / "parts", made, quiet=True),
            "split to tf_raw": lambda made: split_to_tf_raw(
                records, made, form=RecordForm(), slot_sizes=SLOTS, quiet=True
            ),
        }
        pairs = {name: [] for name in steps}
        for number in range(arguments.rounds + 1):
            for name, step in steps.items():
                pair = measured(step, records, folder)
                if number:
                    pairs[name].append(pair)
    finally:
        shutil.rmtree(folder)
    print(f"{'step':20} {'s':>7} {'M records/s':>12} {'of copy':>8} {'lowest':>8}")
    rows = []
    for name, found in pairs.items():
        seconds = statistics.median(run for run, _ in found)
        shares = [copy / run for run, copy in found]
        rows.append(
            {
                "step": name,
                "seconds": seconds,
                "million_records_per_s": arguments.records / seconds / 1e6,
                "share_of_copy": statistics.median(shares),
                "lowest_share": min(shares),
                "pairs": found,
            }
        )
        print(
            "{step:20} {seconds:7.2f} {million_records_per_s:12.2f} {share_of_copy:8.0%} {lowest_share:8.0%}".format(
                **rows[-1]
            )
        )
    document = {
        "rows": rows,
    }
    write_result(arguments.json, document)


def make_records(path: Path, count: int) -> Path:
    rng = np.random.default_rng(0)
    with open(path, "wb") as file:
        for start in range(0, count, 1 << 18):
            words = rng.integers(0, 1000, (min(1 << 18, count - start), 40), np.int32)
            words[:, 0] &= 1
            file.write(words.data)
    return path


def measured(step: Callable[[Path], object], records: Path, folder: Path) -> tuple[float, float]:
    """(seconds of the step, seconds of a copy of the records)."""
    made = folder / "made"
    start = time.perf_counter()
    step(made)
    seconds = time.perf_counter() - start
    if made.is_dir():
        shutil.rmtree(made)
    else:
        made.unlink()
    start = time.perf_counter()
    copy(records, made)
    copied = time.perf_counter() - start
    made.unlink()
    return seconds, copied


def copy(source: Path, destination: Path) -> None:
    """As cp does it without help of the file system: every byte is read and written."""
    with open(source, "rb") as reading, open(destination, "wb") as writing:
        shutil.copyfileobj(reading, writing, 8 << 20)


if __name__ == "__main__":
    main()
