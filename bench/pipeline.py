"""--pipeline on 2 ranks: milliseconds of a training step with the ids of the next batch exchanged ahead, and without.

    python bench/pipeline.py [--batch_size 2048] [--hotness 4] [--delays 0,20,100] [--rounds 9] [--ranks 2]

A DLRM with data-parallel input: 26 tables of 20,000 rows, ids by a power law, Adagrad. The program starts itself under
horovodrun; both ways train in the same job, in turn, on batches that are in memory. The ranks share one machine, so ids
arrive at once: a delay stands for a network. Each exchange of ids then arrives that many milliseconds later, while no
processor works for it. Times are medians over the rounds of the slowest rank's mean step.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from criteo_prep.feature_spec import Feature, tf_raw_spec
from criteo_prep.synthetic import power_law
from dlrm_tf2.config import TrainConfig
from dlrm_tf2.model.config import ModelConfig
from dlrm_tf2.runtime import process
from dlrm_tf2.sharding.plan import make_plan, samples_of_rank

ROOT = Path(__file__).resolve().parent.parent
TABLES, ROWS, ALPHA = 26, 20_000, 1.05
STEPS = 10  # steps of a way in a round
WAYS = ("off", "on")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--batch_size", type=int, default=2048, help="samples of a step, all ranks together")
    parser.add_argument("--hotness", type=int, default=4, help="ids a sample of each feature")
    parser.add_argument("--width", type=int, default=32, help="width of the tables")
    parser.add_argument("--delays", default="0,20,100", help="milliseconds by which ids arrive later")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--json", default=str(ROOT / "bench" / "results" / "pipeline.json"))
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
        found = json.loads(file.read_text())
    print(f"{'delay ms':>8} {'off ms':>8} {'on ms':>8} {'on / off':>8}")
    for row in found:
        print(f"{row['delay_ms']:8g} {row['off_ms']:8.1f} {row['on_ms']:8.1f} {row['ratio']:8.3f}")
    document = {
        "delays": found,
        **{name: getattr(arguments, name) for name in ("batch_size", "hotness", "width", "ranks", "rounds")},
    }
    write_result(arguments.json, document)


def measure(arguments: argparse.Namespace) -> None:
    """Measures both ways with all delays, on every rank; rank 0 writes the file."""
    launch = process.Launch.detect()
    # Each delay keeps one thread of TensorFlow asleep, so two more than a run has.
    process.set_up_process(launch, cpu=True, amp=False, threads=process.Threads(None, 4))
    from dlrm_tf2.runtime.comm import connect

    comm, found = connect(launch.world_size), []
    delayed, steps, batches = _model(arguments, comm)
    for delay_ms in map(float, arguments.delays.split(",")):
        delayed.delay_s = delay_ms / 1e3
        times: dict[str, list[float]] = {way: [] for way in WAYS}
        for number in range(arguments.rounds + 1):
            for way in WAYS:
                comm.allgather_object(None, name="barrier")
                start = time.perf_counter()
                for batch, next_batch in steps[way].with_next(batches):
                    steps[way].outcome(steps[way](batch, 0.01, step=1, next_batch=next_batch))
                seconds = max(comm.allgather_object(time.perf_counter() - start, name="seconds"))
                if number:  # the first round traces
                    times[way].append(1e3 * seconds / len(batches))
        ratios = [on / off for on, off in zip(times["on"], times["off"], strict=True)]
        medians = {f"{way}_ms": statistics.median(times[way]) for way in WAYS}
        found.append({"delay_ms": delay_ms, **medians, "ratio": statistics.median(ratios), "all_ms": times})
    if comm.rank == 0:
        Path(arguments.measure).write_text(json.dumps(found))


def _model(arguments: argparse.Namespace, comm):
    """The Comm whose ids are delayed, the step of each way for one model, and this rank's batches."""
    import tensorflow as tf

    from dlrm_tf2.data.batches import Position, RankBatch
    from dlrm_tf2.model.dlrm import ComputeSettings, Dlrm
    from dlrm_tf2.optim import Optimizer
    from dlrm_tf2.training.step import TrainingStep

    width = arguments.width
    config = TrainConfig(
        dataset_path="none", embedding_dim=width, bottom_mlp_dims=(256, width), top_mlp_dims=(512, 256, 1)
    )
    features = [Feature(f"cat_{number}", "int32", ROWS, hotness=arguments.hotness) for number in range(TABLES)]
    shape = ModelConfig.of(config, tf_raw_spec(features, splits=()))
    settings = ComputeSettings(optimizer=Optimizer("adagrad"), data_parallel_input=True)
    plan = make_plan(shape.tables, comm.size, hotness=shape.hotness_of, batch_size=arguments.batch_size)
    delayed = _Delayed(comm, tf)
    model = Dlrm(shape, plan, comm=delayed, seed=1, settings=settings)
    first, last = samples_of_rank(arguments.batch_size, comm.size, comm.rank)
    batches = []
    for number in range(STEPS):
        rng = np.random.default_rng([number, comm.rank])
        ids = {feature.name: _ids(feature, arguments.batch_size, number)[first:last] for feature in features}
        ids = model.embedding.ids({}, ids, global_batch=arguments.batch_size)
        ids = tf.nest.map_structure(lambda tensor: tf.cast(tensor, tf.int32), ids)
        label = (rng.random(last - first) < 0.5).astype(np.float32)
        numerical = rng.random((last - first, shape.num_numerical), np.float32)
        batches.append(RankBatch(arguments.batch_size, label, numerical=numerical, ids=ids, after=Position()))
    return delayed, {way: TrainingStep(model, ahead=way == "on") for way in WAYS}, batches


def _ids(feature: Feature, samples: int, number: int) -> np.ndarray:
    ids = np.empty(samples * feature.hotness, np.int32)
    power_law.PowerLaw(ROWS, ALPHA).fill(power_law.stream_key(number, feature.name), 0, out=ids)
    return ids.reshape(samples, feature.hotness)


class _Delayed:
    """Comm in which ids arrive `delay_s` seconds later."""

    def __init__(self, comm, tf):
        self._comm, self._tf, self.rank, self.size = comm, tf, comm.rank, comm.size
        self.local_rank, self.local_size = comm.local_rank, comm.local_size
        self.allreduce_sum, self.allgather_object, self.delay_s = comm.allreduce_sum, comm.allgather_object, 0.0

    def alltoall(self, rows, splits, name):
        received, counts = self._comm.alltoall(rows, splits, name)
        if name != "embedding.ids":
            return received, counts
        size = self._tf.size(received)
        return received[: self._tf.numpy_function(self._wait, [size], size.dtype, stateful=False)], counts

    def _wait(self, size: np.int32) -> np.int32:
        time.sleep(self.delay_s)
        return size


if __name__ == "__main__":
    main()
