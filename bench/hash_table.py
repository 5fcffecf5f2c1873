"""The hash table of dynamic tables on the CPU: rates, against random reads of memory in the same run.

    python bench/hash_table.py [--sizes 1000000,20000000] [--json bench/results/hash_table.json]

Prints one table and writes one JSON: medians in million keys a second. `reads` is the rate at which all threads read
lines of 64 bytes at random places of as much memory as the index's groups take. `find` and `find_or_insert` get stored
keys in random order, `insert` new keys while there is room, and `evict` new keys in a full table, each of which takes
the place of the key that was touched longest ago.
"""

import argparse
import json
import os
import statistics
import sys
import time
from pathlib import Path

import numba
import numpy as np
from preprocess import commit, hardware

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from dlrm_tf2.runtime import memory, process

BATCHES, REPEATS = (1 << 12, 1 << 16, 1 << 20), 9
LINE_BYTES, GROUP_BYTES_OF_A_ROW = 64, 19.2


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", default="1000000,20000000", help="keys in the table")
    parser.add_argument("--json", default=str(Path(__file__).parent / "results" / "hash_table.json"))
    arguments = parser.parse_args(argv)
    try:
        setup = process.set_up_process(process.Launch(), cpu=True, amp=False)
    except ValueError as error:
        print(f"bench/hash_table.py: {error}", file=sys.stderr)
        return 1
    # TensorFlow must not be imported before the process is set up.
    from dlrm_tf2 import ops

    if not ops.available():
        print(f"bench/hash_table.py: {ops.why_unavailable()}", file=sys.stderr)
        return 1
    print(f"{'keys':>12} {'batch':>9} | {'reads':>7} | {'find':>7} of reads | find_or_insert of reads")
    tables = [measure(int(size)) for size in arguments.sizes.split(",")]
    document = {
        "tables": tables,
        "threads": setup.threads,
        **hardware(),
        "load_average": os.getloadavg(),
        "commit": commit(),
        "command": " ".join(["bench/hash_table.py", *(sys.argv[1:] if argv is None else argv)]),
    }
    Path(arguments.json).parent.mkdir(parents=True, exist_ok=True)
    Path(arguments.json).write_text(json.dumps(document, indent=1) + "\n")
    print(f"written to {arguments.json}")
    return 0


def measure(num_keys: int) -> dict:
    """Rates of a table in which `num_keys` keys are stored, in million keys a second."""
    import tensorflow as tf

    from dlrm_tf2.ops import hash_table
    from dlrm_tf2.sharding.buckets import buckets_of

    buckets = buckets_of(num_keys)
    index = hash_table.KeyIndex(buckets, range(buckets.num_buckets), hash_table.IndexRules("timestamp"))
    rng, clock = np.random.default_rng(0), iter(range(1 << 30))

    def insert(keys):
        now = tf.constant(next(clock), tf.int64)
        return hash_table.find_or_insert(index, keys, step=now, scores=now)

    def rate(run, batches):
        """The median rate over batches; the first is not counted."""
        seconds = []
        for batch in batches:
            start = time.perf_counter()
            run(batch)
            seconds.append(time.perf_counter() - start)
        return len(batches[0]) / statistics.median(seconds[1:]) / 1e6

    starts = range(0, num_keys, 1 << 20)
    inserted = rate(insert, [tf.range(s, min(s + (1 << 20), num_keys), dtype=tf.int64) for s in starts])
    lines = memory_of_lines(int(num_keys * GROUP_BYTES_OF_A_ROW) // LINE_BYTES)
    table = {"keys": num_keys, "insert": inserted, "batches": []}
    for size in BATCHES:
        keys = [tf.constant(rng.integers(0, num_keys, size)) for _ in range(REPEATS)]
        places = [rng.integers(0, len(lines), size) for _ in range(REPEATS)]
        found = {
            "batch": size,
            "reads": rate(lambda batch: read(lines, batch), places),
            "find": rate(lambda batch: hash_table.find(index, batch), keys),
            "find_or_insert": rate(insert, keys),
        }
        table["batches"].append(found)
        reads = found["reads"]
        print(
            f"{num_keys:>12,} {size:>9,} | {reads:7.1f} | {found['find']:7.1f} {found['find'] / reads:8.2f} | "
            f"{found['find_or_insert']:14.1f} {found['find_or_insert'] / reads:8.2f}"
        )
    new = [tf.range(s, s + (1 << 20), dtype=tf.int64) for s in range(1 << 40, (1 << 40) + (REPEATS << 20), 1 << 20)]
    fill = buckets.num_rows // (1 << 20) + 1  # until every bucket is full
    rate(insert, [keys + (1 << 50) + (step << 20) for step, keys in enumerate([new[0]] * fill)])
    table["evict"] = rate(insert, new)
    print(f"{num_keys:>12,} insert {inserted:.1f}, evict {table['evict']:.1f}")
    return table


def memory_of_lines(count: int) -> np.ndarray:
    """[count, 8] int64, in large pages."""
    lines = np.empty((count, LINE_BYTES // 8), np.int64)
    memory.use_huge_pages(lines)
    lines[:] = 1
    return lines


@numba.njit(parallel=True)
def read(lines, places):
    """The sum of one number of each line."""
    total = 0
    for i in numba.prange(len(places)):
        total += lines[places[i], 0]
    return total


if __name__ == "__main__":
    raise SystemExit(main())
