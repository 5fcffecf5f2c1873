"""The embedding layer on 2 ranks: bytes sent and milliseconds, by how ids are exchanged and tables are placed.

    python bench/embedding.py [--batch_size 8192] [--scale 0.02] [--rounds 5] [--ranks 2]

The layer alone, forward and backward with sgd: 26 tables with the cardinalities of T15 times --scale, ids by a power
law. The program starts itself under horovodrun. All ways of one shape train in the same job, in turn. Times are medians
over the rounds of the slowest rank's mean step. Bytes are the bytes that the busiest rank sends to other ranks in a
step, counted where they are sent. Ratios compare with the first way of the same kind of input.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from criteo_prep.synthetic import power_law
from criteo_prep.synthetic.presets import T15
from dlrm_tf2.runtime import process
from dlrm_tf2.sharding.plan import make_plan, samples_of_rank
from dlrm_tf2.sharding.tables import TableConfig

ROOT = Path(__file__).resolve().parent.parent
SHAPES = {"one id, alpha 1.05": (1, 1.05), "one id, alpha 1.45": (1, 1.45), "10 ids, alpha 1.05": (10, 1.05)}
STEPS = 3  # steps of a way in a round
NEVER = 1 << 62


@dataclass(frozen=True)
class Way:
    """One way to train: flags of the program, and the same settings in Python.

    Attributes:
      flags: flags of the program, or a description.
      dedup_ids: "on", "off", or "auto" as on a GPU.
      columns, rows, replicated: thresholds of make_plan, as parts of the elements of the largest table. With None,
        columns and rows are not cut, and the planner chooses the replicated tables.
      strategy: strategy of make_plan; balanced would keep the pieces of a table together.
    """

    flags: str
    data_parallel_input: bool
    dedup_ids: str = "off"
    columns: float | None = None
    rows: float | None = None
    replicated: float | None = 0
    strategy: str = "balanced"


WAYS = (
    Way("--data_parallel_input --dedup_ids off", True),
    Way("--data_parallel_input --dedup_ids on", True, "on"),
    Way("fewer than 0.5 different ids once", True, "auto"),
    Way("--data_parallel_input, 5 large by rows", True, rows=0.3),
    Way("--data_parallel_threshold 0", False),
    Way("18 small tables replicated", False, replicated=0.0042),
    Way("replicated by the planner", False, replicated=None),
    Way("5 large tables by columns", False, columns=0.3, strategy="basic"),
    Way("5 large tables by rows", False, rows=0.3),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--batch_size", type=int, default=8192, help="samples of a step, all ranks together")
    parser.add_argument("--scale", type=float, default=0.02, help="factor of the cardinalities")
    parser.add_argument("--width", type=int, default=64, help="width of the tables")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--json", default=str(ROOT / "bench" / "results" / "embedding.json"))
    parser.add_argument("--measure", metavar="FILE", help=argparse.SUPPRESS)  # given to the ranks
    arguments = parser.parse_args()
    if arguments.measure:
        measure(arguments)
        return
    sys.path.insert(0, str(ROOT / "bench"))
    from programs import run
    from result_file import write_result

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "measured.json"
        run(["python", __file__, *sys.argv[1:], "--measure", str(file)], arguments.ranks)
        shapes = json.loads(file.read_text())
    for shape, ways in shapes.items():
        print(f"{shape:42} {'ms a step':>10} {'ratio':>6} {'MB sent':>8} {'ratio':>6}")
        for way in ways:
            print(
                f"  {way['way']:40} {way['step_ms']:10.1f} {way['time_ratio']:6.2f} {way['sent_bytes'] / 1e6:8.2f} "
                f"{way['bytes_ratio']:6.2f}"
            )
    document = {
        "shapes": shapes,
        **{name: getattr(arguments, name) for name in ("batch_size", "scale", "width", "ranks")},
    }
    write_result(arguments.json, document)


def measure(arguments: argparse.Namespace) -> None:
    """Measures all ways of all shapes, on every rank; rank 0 writes the file."""
    launch = process.Launch.detect()
    process.set_up_process(launch, cpu=True, amp=False)
    from dlrm_tf2.runtime.comm import connect

    comm, found = connect(launch.world_size), {}
    for shape, (hotness, alpha) in SHAPES.items():
        steps = [_Step(arguments, way, hotness, alpha, comm) for way in WAYS]
        times = [[] for _ in WAYS]
        for number in range(arguments.rounds + 1):
            for step, of_way in zip(steps, times, strict=True):
                comm.allgather_object(None, name="barrier")
                start = time.perf_counter()
                for _ in range(STEPS):
                    step.run()
                seconds = max(comm.allgather_object(time.perf_counter() - start, name="seconds"))
                if number:  # the first round traces
                    of_way.append(1e3 * seconds / STEPS)
        sent = [max(comm.allgather_object(step.sent_bytes(), name="sent")) for step in steps]
        ways = []
        for way, of_way, num_bytes in zip(WAYS, times, sent, strict=True):
            if (way.dedup_ids, way.columns, way.rows, way.replicated) == ("off", None, None, 0):
                first = len(ways)
            ways.append(
                {
                    "way": way.flags,
                    "step_ms": statistics.median(of_way),
                    "all_ms": of_way,
                    "sent_bytes": num_bytes,
                    "time_ratio": statistics.median(t / one for t, one in zip(of_way, times[first], strict=True)),
                    "bytes_ratio": num_bytes / sent[first],
                }
            )
        found[shape] = ways
    if comm.rank == 0:
        Path(arguments.measure).write_text(json.dumps(found))


class _Step:
    """A layer and its batches; each run takes the next batch."""

    def __init__(self, arguments: argparse.Namespace, way: Way, hotness: int, alpha: float, comm):
        import tensorflow as tf

        from dlrm_tf2.data.repeated_ids import PAYS_BELOW
        from dlrm_tf2.embedding.layer import DistributedEmbedding
        from dlrm_tf2.optim import Optimizer

        tables = [
            TableConfig(
                f"cat_{number}", max(4, round(rows * arguments.scale)), embedding_dim=arguments.width, combiner="sum"
            )
            for number, rows in enumerate(T15)
        ]
        largest = max(table.num_elements for table in tables)
        plan = make_plan(
            tables,
            comm.size,
            strategy=way.strategy,
            hotness={table.name: hotness for table in tables},
            batch_size=arguments.batch_size,
            data_parallel_threshold=None if way.replicated is None else int(way.replicated * largest),
            column_slice_threshold=int(way.columns * largest) if way.columns else NEVER,
            row_slice_threshold=int(way.rows * largest) if way.rows else NEVER,
        )
        batches = [_batch(tables, arguments.batch_size, hotness, alpha, number) for number in range(STEPS)]
        first, last = samples_of_rank(arguments.batch_size, comm.size, comm.rank)
        share = last - first
        unique = {name: len(np.unique(ids[:share])) / share for name, ids in batches[0].items()}
        below = {"off": 0, "on": np.inf, "auto": PAYS_BELOW}[way.dedup_ids]
        counting = _Counting(comm, tf)
        self._sent, self._steps = counting.sent, 0
        layer = DistributedEmbedding(
            tables,
            plan,
            comm=counting,
            seed=0,
            optimizer=Optimizer("sgd"),
            hotness=dict.fromkeys(unique, hotness),
            data_parallel_input=way.data_parallel_input,
            deduplicated=[name for name, ratio in unique.items() if ratio < below],
        )
        self._ids = [
            tf.nest.map_structure(
                lambda tensor: tf.cast(tensor, tf.int32),
                layer.ids(
                    {name: batch[name] for name in layer.global_features},
                    {name: batch[name][first:last] for name in layer.sample_features},
                    global_batch=arguments.batch_size,
                ),
            )
            for batch in batches
        ]

        def step(ids):
            lookup = layer.lookup(ids)
            with tf.GradientTape() as tape:
                tape.watch(lookup.vectors)
                loss = tf.reduce_sum(layer.exchange(lookup)) / arguments.batch_size
            layer.apply_gradient(lookup, tape.gradient(loss, lookup.vectors), learning_rate=0.01)
            return loss

        self._compiled = tf.function(step, input_signature=[layer.signature], autograph=False)

    def run(self) -> None:
        float(self._compiled(self._ids[self._steps % STEPS]))
        self._steps += 1

    def sent_bytes(self) -> float:
        """Bytes that this rank sends to other ranks in a step."""
        return int(self._sent) / self._steps


class _Counting:
    """Comm that counts the bytes this rank sends to other ranks by alltoall."""

    def __init__(self, comm, tf):
        self._comm, self._tf, self.rank, self.size = comm, tf, comm.rank, comm.size
        self.local_rank, self.local_size, self.allgather_object = (
            comm.local_rank,
            comm.local_size,
            comm.allgather_object,
        )
        self.sent = tf.Variable(0, dtype=tf.int64, trainable=False)

    def alltoall(self, rows, splits, name):
        row_bytes = int(np.prod(rows.shape[1:])) * rows.dtype.size
        to_others = self._tf.reduce_sum(splits) - splits[self.rank]
        self.sent.assign_add(self._tf.cast(to_others, self._tf.int64) * row_bytes)
        return self._comm.alltoall(rows, splits, name)


def _batch(tables, samples: int, hotness: int, alpha: float, number: int) -> dict[str, np.ndarray]:
    batch = {}
    for table in tables:
        ids = np.empty(samples * hotness, np.int32)
        power_law.PowerLaw(table.num_rows, alpha).fill(power_law.stream_key(number, table.name), 0, out=ids)
        batch[table.name] = ids.reshape(samples, hotness)
    return batch


if __name__ == "__main__":
    main()
