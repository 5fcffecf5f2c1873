"""The hash table of dynamic tables on the CPU: rates, against random reads of memory in the same run.

    python bench/hash_table.py [--sizes 8388608,20000000] [--batches 65536,1048576]
                               [--threads N] [--json bench/results/hash_table.json]

Prints one table and writes one JSON: million keys a second, and in brackets the share of `reads`, the rate at which all
threads read lines of 64 bytes at random places of as much memory as the index's groups take. Both are medians; before
each measured call, the reads are measured too. `find` looks stored keys up in random order. The others are
find_or_insert: `present` with stored keys, `new_5%` with 19 of 20 keys stored, `none` with new keys while there is
room, and `evict` with new keys in a full table, each of which takes the place of the key that was touched longest ago.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numba
import numpy as np
from result_file import write_result

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from dlrm_tf2.runtime import memory, process

NUM_READS = 1 << 20  # at once, so that the start of numba's threads, some milliseconds, does not count
REPEATS, IDLE_S = 15, 0.02  # IDLE_S: idle threads spin for a while, and would take a core from the other's
LINE_BYTES, GROUP_BYTES_OF_A_ROW = 64, 32
FILLED, NEW = 0.875, 0.05  # the part of the rows that the first keys take; the new part of a batch of `new_5%`
CASES = ("find", "present", "new_5%", "none", "evict")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", default="8388608,20000000", help="keys that the tables have room for")
    parser.add_argument("--batches", default="65536,1048576", help="keys of a call, at most an eighth of the sizes")
    parser.add_argument(
        "--threads",
        type=int,
        help="threads of the reads and of the calls; by default all; of one the processor's "
        "time is taken, which other programs disturb less",
    )
    parser.add_argument("--json", default=str(Path(__file__).parent / "results" / "hash_table.json"))
    arguments = parser.parse_args(argv)
    try:
        setup = process.set_up_process(
            process.Launch(), cpu=True, amp=False, threads=process.Threads(intra_op=arguments.threads)
        )
    except ValueError as error:
        print(f"bench/hash_table.py: {error}", file=sys.stderr)
        return 1
    # TensorFlow must not be imported before the process is set up.
    from dlrm_tf2 import ops

    if not ops.available():
        print(f"bench/hash_table.py: {ops.why_unavailable()}", file=sys.stderr)
        return 1
    numba.set_num_threads(setup.threads)
    clock = time.process_time if setup.threads == 1 else time.perf_counter
    memory.prepare_step_memory(64 << 20)  # as a training does: results in memory that is used again
    sizes, batches = ([int(number) for number in text.split(",")] for text in (arguments.sizes, arguments.batches))
    if max(batches) * 8 > min(sizes) or min(batches) < 1:
        print("bench/hash_table.py: --batches: expected numbers from 1 to an eighth of --sizes", file=sys.stderr)
        return 1
    print(f"{'keys':>12} {'batch':>10} {'reads':>8}" + "".join(f"{case:>16}" for case in CASES))
    tables = []
    for size in sizes:
        for batch in batches:
            tables.append(TableBench(size, batch, clock).measure())
            cells = (f"{tables[-1][case]:.1f} ({tables[-1][f'{case}_of_reads']:.2f})" for case in CASES)
            print(f"{size:>12,} {batch:>10,} {tables[-1]['reads']:8.1f}" + "".join(f"{cell:>16}" for cell in cells))
    write_result(arguments.json, {"tables": tables, "threads": setup.threads, "clock": clock.__name__}, arguments=argv)
    return 0


class TableBench:
    """A table with room for `num_keys` keys, and the rates of calls with `batch_size` keys."""

    def __init__(self, num_keys: int, batch_size: int, clock: Callable[[], float]):
        from dlrm_tf2.ops import hash_table
        from dlrm_tf2.sharding.buckets import buckets_of

        buckets = buckets_of(num_keys)
        rules = hash_table.IndexRules("timestamp")
        self._num_rows, self._batch_size, self._calls = buckets.num_rows, batch_size, 0
        self._clock = clock
        self._index = hash_table.KeyIndex(buckets, range(buckets.num_buckets), rules)
        self._lines = memory_of_lines(num_keys * GROUP_BYTES_OF_A_ROW // LINE_BYTES)
        self._num_stored = 0  # the keys 0 .. _num_stored - 1
        self._rng = np.random.default_rng(0)
        self._reads: list[float] = []
        self._first_stored = int(num_keys * FILLED)
        read(self._lines, np.zeros(NUM_READS, np.int64))  # compiles

    def measure(self) -> dict:
        """The rates in million keys a second, and as parts of the rate of random reads."""
        found = {"keys": self._first_stored, "batch": self._batch_size}
        calls: dict[str, tuple[int, Callable]] = {
            "none": (self._first_stored // self._batch_size, lambda: self._insert(self._batch_size)),
            "find": (REPEATS, self._find),
            "present": (REPEATS, lambda: self._insert(0)),
            "new_5%": (REPEATS, lambda: self._insert(int(NEW * self._batch_size))),
        }
        for case, (repeats, call) in calls.items():
            found |= self._rates(case, repeats, call)
        while self._num_stored < 1.1 * self._num_rows:  # until all buckets are full
            self._insert(self._batch_size)
        found |= self._rates("evict", REPEATS, lambda: self._insert(self._batch_size))
        return found | {"reads": self._batch_size / statistics.median(self._reads) / 1e6}

    def _rates(self, case: str, repeats: int, call: Callable) -> dict:
        """Of a call, which returns its seconds. The first call is not counted."""
        call()
        seconds = []
        for _ in range(repeats - 1):
            places = self._rng.integers(0, len(self._lines), NUM_READS)
            start = self._clock()
            read(self._lines, places)
            self._reads.append((self._clock() - start) * self._batch_size / NUM_READS)
            time.sleep(IDLE_S)
            seconds.append((call(), self._reads[-1]))
            time.sleep(IDLE_S)
        return {
            case: self._batch_size / statistics.median(one for one, _ in seconds) / 1e6,
            f"{case}_of_reads": statistics.median(reads / one for one, reads in seconds),
        }

    def _find(self) -> float:
        import tensorflow as tf

        from dlrm_tf2.ops import hash_table

        keys = tf.constant(self._rng.integers(0, self._num_stored, self._batch_size))
        start = self._clock()
        hash_table.find(self._index, keys)
        return self._clock() - start

    def _insert(self, num_new: int) -> float:
        import tensorflow as tf

        from dlrm_tf2.ops import hash_table

        new = np.arange(self._num_stored, self._num_stored + num_new)
        old = self._rng.integers(0, max(1, self._num_stored), self._batch_size - num_new)
        keys = tf.constant(self._rng.permutation(np.concatenate([new, old])))
        self._calls, self._num_stored = self._calls + 1, self._num_stored + num_new
        now = tf.constant(self._calls, tf.int64)
        start = self._clock()
        hash_table.find_or_insert(self._index, keys, step=now, scores=now)
        return self._clock() - start


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
