"""New articles every day: training on the keys as they come, and a serving process that follows it by the changes.

    python examples/daily_training.py --folder days

Day 0 ends with a dump of the tables, each later day with the changes of that day. The serving process knows the folder
alone, and has no TensorFlow in it: after each day its vectors are the vectors of the training.
"""

import argparse
from pathlib import Path

import numpy as np
import tensorflow as tf

from dlrm_tf2.dump.apply import TableContent, apply_changes
from dlrm_tf2.dump.tables import dump_changes, dump_tables
from dlrm_tf2.embedding import DistributedEmbedding, DynamicTableConfig, make_plan
from dlrm_tf2.optim import Optimizer
from dlrm_tf2.runtime.comm import connect
from dlrm_tf2.runtime.process import Launch, set_up_process
from dlrm_tf2.sharding.dynamic_tables import AfterCount, AfterSteps
from dlrm_tf2.sharding.plan import samples_of_rank

DAYS, STEPS_A_DAY, BATCH, WIDTH = 4, 20, 64, 8
FEATURES = ("article", "reader")


def make_layer(comm):
    """Articles are stored when they occur for the second time, and expire after a day without a click."""
    tables = [
        DynamicTableConfig("article", 300, WIDTH, score="lfu", admission=AfterCount(2), expiry=AfterSteps(STEPS_A_DAY)),
        DynamicTableConfig("reader", 2_000, WIDTH),
    ]
    plan = make_plan(tables, comm.size, optimizer="adagrad", batch_size=BATCH)
    optimizer = Optimizer("adagrad")
    return DistributedEmbedding(tables, plan, comm=comm, seed=1, optimizer=optimizer, log_erased=True)


def global_batch(day, step):
    """Keys as a log has them: 64 bits that nobody has numbered. Each day has 100 articles, half of them new."""
    rng = np.random.default_rng(step)
    article, reader = 50 * day + rng.integers(0, 100, BATCH), rng.integers(0, 1_000, BATCH)
    clicked = (article % 2 == reader % 2).astype(np.float32)
    return {"article": article * 1_000_003 - 2**40, "reader": reader * -7_919 + 2**50}, clicked


def train_day(layer, comm, day):
    """The steps of a day. Returns the mean loss of the day."""
    start, stop = samples_of_rank(BATCH, comm.size, comm.rank)
    losses = []
    for step in range(1 + day * STEPS_A_DAY, 1 + (day + 1) * STEPS_A_DAY):
        keys, clicked = global_batch(day, step)

        def loss(vectors, clicked=clicked[start:stop]):
            logits = 8 * tf.reduce_sum(vectors["article"] * vectors["reader"], axis=1)
            return tf.nn.sigmoid_cross_entropy_with_logits(clicked, logits)

        own = {name: keys[name][start:stop] for name in layer.sample_features}
        wanted = {name: keys[name] for name in layer.global_features}
        ids = layer.ids(wanted, own, global_batch=BATCH)
        losses.append(float(layer.train_step(ids, loss, learning_rate=0.2, step=step).loss))
    layer.expire(step)
    return np.mean(losses)


class Serving:
    """The tables in a serving process: keys in ascending order, and their vectors.

    Args:
      tables: what `apply_changes` returns.
    """

    def __init__(self, tables: dict[str, TableContent]):
        self._tables = {name: table.rows for name, table in tables.items()}

    def vectors(self, table: str, keys: np.ndarray) -> np.ndarray:
        """[n, WIDTH]; zeros for keys that the table does not have."""
        rows = self._tables[table]
        places = np.searchsorted(rows.keys, keys) % max(1, len(rows.keys))
        known = rows.keys[places] == keys
        return np.where(known[:, np.newaxis], rows.values[places], 0)


def main():
    parser = argparse.ArgumentParser(description="Trains for some days and follows the training.")
    parser.add_argument(
        "--folder", type=Path, required=True, help="folder for the dump and the changes; absent or empty"
    )
    folder = parser.parse_args().folder
    launch = Launch.detect()
    set_up_process(launch, cpu=True, amp=False)
    comm = connect(launch.world_size)
    layer = make_layer(comm)
    for day in range(DAYS):
        loss, last = train_day(layer, comm, day), (day + 1) * STEPS_A_DAY
        if day == 0:
            dump_tables(layer, folder / "dump", comm=comm, step=last)
        else:
            dump_changes(layer, folder / "changes", comm=comm, first_step=last - STEPS_A_DAY + 1, step=last)
        keys, _ = global_batch(day, last)
        start, stop = samples_of_rank(BATCH, comm.size, comm.rank)
        own = {name: keys[name][start:stop] for name in layer.sample_features}
        ids = layer.ids({name: keys[name] for name in layer.global_features}, own, global_batch=BATCH)
        trained = layer.split(layer.exchange(layer.lookup(ids, training=False)))
        serving = Serving(
            apply_changes(folder / "dump", [folder / "changes"] if day else [], folder / f"served_{day}_{comm.rank}")
        )
        for name in FEATURES:
            assert np.array_equal(serving.vectors(name, keys[name][start:stop]), trained[name].numpy())
        sizes = comm.allgather_object(
            [layer.dynamic_tables[name].size() if name in layer.dynamic_tables else 0 for name in FEATURES], "sizes"
        )
        if comm.rank == 0:
            articles, readers = np.sum(sizes, axis=0)
            print(
                f"day {day}: loss {loss:.3f}; {articles} articles and {readers} readers are stored and served",
                flush=True,
            )


if __name__ == "__main__":
    main()
