"""Dynamic tables that are larger than memory: in memory, split, and with a cache. On the CPU.

    python bench/tiers.py --folder DIR [--rows 2097152] [--steps 20]

A table of width 128 stores all of its keys, in random order; then training steps look up and update 65,536 keys by a
power law with exponent 1.05. `split` and `cache` have memory for a tenth of the table with its state, the rest in DIR.
`ahead` asks for the rows of the next batch during a step. With `nothing free`, the pages of the file are written to
the disk and given up before each step, as where other processes take the rest of the memory: the system then caches
nothing; `ahead` then asks 100 ms before the step, as if a model had computed meanwhile. Else the whole file fits into
the free memory. Prints a table and writes one JSON, after every case.
"""

import argparse
import ctypes
import json
import os
import re
import statistics
import subprocess
import sys
from pathlib import Path
from time import perf_counter, sleep

import numpy as np
from preprocess import commit, hardware

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

ROOT = Path(__file__).resolve().parent.parent
WIDTH, BATCH, ALPHA, WARMUP = 128, 65536, 1.05, 5
COMPUTING_S = 0.1
RECORD_BYTES = {"sgd": WIDTH * 4, "adam": 3 * WIDTH * 4}
CASES = [
    (tiers, free, ahead)
    for free in ("all free", "nothing free")
    for tiers in ("memory", "split", "cache")
    for ahead in (False, True)
    if tiers != "memory" or (free == "all free" and not ahead)
]
_MS_SYNC, _MADV_PAGEOUT = 4, 21


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--folder", required=True, help="folder on a local disk")
    parser.add_argument("--rows", type=int, default=2 << 20)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--optimizers", nargs="+", default=["sgd", "adam"])
    parser.add_argument("--case", help=argparse.SUPPRESS)  # of a child process: JSON
    parser.add_argument("--json", default=str(ROOT / "bench" / "results" / "tiers.json"))
    arguments = parser.parse_args()
    if arguments.case:
        print(json.dumps(measure(arguments, *json.loads(arguments.case))))
        return
    command = f"bench/tiers.py --folder DIR --rows {arguments.rows} --steps {arguments.steps}"
    document: dict = {"cases": [], **hardware(), "commit": commit(), "command": command}
    print("optimizer tiers  memory       ahead ms a step      p95 hit rate    GiB")
    for optimizer in arguments.optimizers:
        for case in CASES:
            words = ["--folder", arguments.folder, "--rows", str(arguments.rows), "--steps", str(arguments.steps)]
            done = subprocess.run(
                [sys.executable, __file__, *words, "--case", json.dumps([optimizer, *case])],
                cwd=ROOT, capture_output=True, text=True,
            )  # fmt: skip
            if done.returncode:
                sys.exit(f"bench/tiers.py: {case}\n{done.stderr[-2000:]}")
            found = json.loads(done.stdout.splitlines()[-1])
            document["cases"].append(found)
            rate = "" if found["cache_hit_rate"] is None else f"{found['cache_hit_rate']:.3f}"
            print(f"{optimizer:9} {case[0]:6} {case[1]:12} {case[2]!s:5} {found['p50_ms']:9.1f} {found['p95_ms']:8.1f} "
                  f"{rate:>8} {found['anonymous_gib']:6.2f}", flush=True)  # fmt: skip
            Path(arguments.json).write_text(json.dumps(document, indent=1) + "\n")
    print(f"written to {arguments.json}")


def measure(arguments: argparse.Namespace, optimizer: str, tiers: str, free: str, ahead: bool) -> dict:
    """One case: the record for the JSON."""
    import tensorflow as tf

    from dlrm_tf2.benchmarks.dynamic_keys import power_law_keys
    from dlrm_tf2.embedding import DistributedEmbedding, DynamicTableConfig
    from dlrm_tf2.embedding.dynamic.tiers import Tiers
    from dlrm_tf2.embedding.pipeline import Pipeline
    from dlrm_tf2.optim import Optimizer
    from dlrm_tf2.runtime import memory
    from dlrm_tf2.runtime.comm import SingleProcess
    from dlrm_tf2.sharding.plan import make_plan

    config = DynamicTableConfig("t", arguments.rows, WIDTH, score="step")
    budget = config.num_rows * RECORD_BYTES[optimizer] // 10
    layer = DistributedEmbedding(
        [config], make_plan([config], 1, optimizer=optimizer), comm=SingleProcess(), seed=1,
        optimizer=Optimizer(optimizer), safe_check="count",
        tiers=None if tiers == "memory" else Tiers(budget, arguments.folder, tiers == "cache"),
    )  # fmt: skip
    memory.prepare_step_memory(3.0 * 4 * BATCH * WIDTH)
    gradient = tf.random.stateless_normal([BATCH, WIDTH], [1, 2], stddev=1e-3)

    def step(ids, number):
        lookup = layer.lookup(ids, step=number)
        (vectors,) = lookup.vectors
        return layer.apply_gradient(lookup, [gradient[: tf.shape(vectors)[0]]], learning_rate=0.1, step=number)

    in_step = ahead and free == "all free"
    pipeline = Pipeline(layer, step, inputs=[tf.TensorSpec([], tf.int64)], ahead=in_step)
    rng = np.random.default_rng(1)

    def ids_of(keys):
        packed = layer.ids({"t": keys})
        return tf.nest.map_structure(lambda one, spec: tf.cast(one, spec.dtype), packed, layer.signature)

    keys = rng.permutation(arguments.rows)
    at_once = min(BATCH, arguments.rows // 20)  # they must fit into the cache
    for first in range(0, arguments.rows, at_once):
        pipeline(ids_of(keys[first : first + at_once]), None, tf.constant(1, tf.int64))
    batches = [
        ids_of(power_law_keys(rng.random(BATCH), arguments.rows, alpha=ALPHA)) for _ in range(WARMUP + arguments.steps)
    ]
    seconds, table = [], layer.dynamic_tables["t"]
    for number, (ids, next_ids) in enumerate(pipeline.with_next(batches), start=2):
        if number == WARMUP + 2:
            before = table.cache_counters()
        if free == "nothing free":
            give_up_pages(arguments.folder)
            if ahead:
                layer.ask_ahead(layer.exchange_ids(ids))
                sleep(COMPUTING_S)
        start = perf_counter()
        pipeline(ids, next_ids, tf.constant(number, tf.int64))
        seconds.append(perf_counter() - start)
    counted = {name: number - before[name] for name, number in table.cache_counters().items()}
    requests = counted["hits"] + counted["misses"]
    ms = [1000 * of_step for of_step in seconds[WARMUP:]]
    return {
        "optimizer": optimizer, "tiers": tiers, "file_pages": free, "ahead": ahead, "rows": arguments.rows,
        "batch_size": BATCH, "p50_ms": statistics.median(ms), "p95_ms": float(np.percentile(ms, 95)),
        "cache_hit_rate": counted["hits"] / requests if requests else None,
        "rows_read_a_step": counted["misses"] / arguments.steps,
        "rows_written_a_step": counted["written_back"] / arguments.steps,
        "anonymous_gib": anonymous_bytes() / 2**30, "load_average": os.getloadavg(),
    }  # fmt: skip


def give_up_pages(folder: str) -> None:
    """Writes this process's mapped files in a folder to the disk, and gives up their pages."""
    libc = ctypes.CDLL(None, use_errno=True)
    for line in Path("/proc/self/maps").read_text().splitlines():
        if match := re.fullmatch(rf"(\w+)-(\w+) rw-s .* {re.escape(os.path.realpath(folder))}/.*\(deleted\)", line):
            first, last = int(match[1], 16), int(match[2], 16)
            place = ctypes.c_void_p(first), ctypes.c_size_t(last - first)
            if libc.msync(*place, _MS_SYNC) or libc.madvise(*place, _MADV_PAGEOUT):
                raise OSError(ctypes.get_errno(), "the pages of the file cannot be given up")


def anonymous_bytes() -> int:
    """Bytes of this process that are in no file."""
    return int(re.search(r"RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) << 10


if __name__ == "__main__":
    main()
