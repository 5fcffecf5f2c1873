"""A training step against its floor, against DLRM in plain TensorFlow, and on two processes; CPU.

    python bench/training_step.py [--batch_size 8192] [--rows 100000] [--rounds 3]

`floor` is the matrix products of the MLPs alone, forward and backward with SGD: the time of a step if everything else
cost nothing. `plain TensorFlow` is the same model with a gather per table, a matmul for the interaction, and
IndexedSlices for the rows. `ours` is the trainer as a user starts it, on synthetic data of the same shape, reading
included. `ours, 2 ranks` is the same batch on two processes with one thread each. With --rows 0 ours has the tables of
Criteo at threshold 15 (15.6 GiB), and plain TensorFlow has 100,000 rows a table. The ways take turns, and the medians
count.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

from programs import run
from result_file import write_result

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from criteo_prep.feature_spec import Feature, tf_raw_spec
from criteo_prep.synthetic import presets

BOTTOM, TOP, DIM, TABLES = (16, 512, 256, 128), (480, 1024, 1024, 512, 256, 1), 128, 26
STEPS = 8
PRECISIONS = {"float32": [], "bfloat16": ["--amp"]}
RANKS = {"ours": 1, "ours, 2 ranks": 2}
WAYS = ("floor", "plain TensorFlow", *RANKS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--batch_size", type=int, default=8192)
    parser.add_argument("--rows", type=int, default=100_000, help="rows of each table; 0 for the rows of criteo_t15")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", default=str(Path(__file__).parent / "results" / "training_step.json"))
    parser.add_argument("--only", choices=("floor", "plain TensorFlow"), help=argparse.SUPPRESS)
    parser.add_argument("--precision", choices=tuple(PRECISIONS), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.only:
        run = {"floor": floor, "plain TensorFlow": plain}[arguments.only]
        print(run(arguments.batch_size, arguments.rows or 100_000, arguments.precision))
        return
    document = {"batch_size": arguments.batch_size, "rows": arguments.rows, "samples_per_s": {}}
    print(f"{'samples/s':20}" + "".join(f"{name:>12}" for name in PRECISIONS))
    rates = {(what, name): [] for what in WAYS for name in PRECISIONS}
    with tempfile.TemporaryDirectory(prefix="bench_training_step_") as folder:
        for _ in range(arguments.rounds):
            for (what, name), found in rates.items():
                found.append(
                    ours(Path(folder), arguments, name, RANKS[what]) if what in RANKS else other(what, name, arguments)
                )
    medians = {key: statistics.median(found) for key, found in rates.items()}
    for what in WAYS:
        print(f"{what:20}" + "".join(f"{medians[what, name]:12,.0f}" for name in PRECISIONS))
    for what in WAYS:
        if what == "ours":
            continue
        ratios = {name: medians["ours", name] / medians[what, name] for name in PRECISIONS}
        print(f"{'ours / ' + what:24}" + "".join(f"{ratio:12.2f}" for ratio in ratios.values()))
        document[f"ours / {what}"] = ratios
    for (what, name), found in rates.items():
        document["samples_per_s"].setdefault(what, {})[name] = found
    document |= {}
    write_result(arguments.json, document)


def ours(folder: Path, arguments: argparse.Namespace, precision: str, ranks: int) -> float:
    """Samples per second in the trainer's log."""
    preset = presets.PRESETS["criteo_t15"].categorical
    features = [Feature(f.name, "int32", arguments.rows or f.cardinality, alpha=1.05) for f in preset]
    tf_raw_spec(features, splits=()).save(folder / "feature_spec.yaml")
    command = f"""-m dlrm_tf2.dlrm --cpu --dataset_path {folder} --dataset_type synthetic --batch_size
        {arguments.batch_size} --max_steps 30 --print_freq 5 --evals_per_epoch 0 --valid_batch_size 8192 --seed 1
        --log_path {folder}/log.json""".split()
    run(["python", *command, *PRECISIONS[precision]], ranks)
    return json.loads((folder / "log.json").read_text().splitlines()[-1])["throughput"]


def other(what: str, precision: str, arguments: argparse.Namespace) -> float:
    size = ["--batch_size", str(arguments.batch_size), "--rows", str(arguments.rows)]
    return float(run(["python", __file__, "--only", what, "--precision", precision, *size]).split()[-1])


class Layers:
    """Two stacks of dense layers that compute in `dtype`."""

    def __init__(self, tf, dtype):
        self._tf, self._dtype = tf, dtype
        self.bottom, self.top = (
            [self._layer(a, b) for a, b in zip(sizes, sizes[1:], strict=False)] for sizes in (BOTTOM, TOP)
        )
        self.variables = [variable for layer in (*self.bottom, *self.top) for variable in layer]

    def _layer(self, inputs: int, outputs: int) -> tuple:
        tf = self._tf
        return tf.Variable(tf.random.normal([inputs, outputs], stddev=0.02)), tf.Variable(tf.zeros([outputs]))

    def __call__(self, layers: list, values):
        tf = self._tf
        for kernel, bias in layers:
            values = tf.nn.bias_add(tf.matmul(values, tf.cast(kernel, self._dtype)), tf.cast(bias, self._dtype))
            if layers is self.bottom or kernel is not layers[-1][0]:
                values = tf.nn.relu(values)
        return values


def setup(batch_size: int, precision: str):
    """(tensorflow, the layers, numericals, labels)."""
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    import tensorflow as tf

    layers = Layers(tf, tf.as_dtype(precision))
    label = tf.cast(tf.random.uniform([batch_size, 1]) > 0.5, tf.float32)
    return tf, layers, tf.cast(tf.random.normal([batch_size, BOTTOM[0]]), precision), label


def floor(batch_size: int, rows: int, precision: str) -> float:
    """Samples per second of the MLPs alone."""
    tf, layers, numerical, label = setup(batch_size, precision)
    dots = tf.cast(tf.random.normal([batch_size, TOP[0] - DIM]), precision)

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            bottom = layers(layers.bottom, numerical)
            logits = layers(layers.top, tf.concat([bottom, dots], 1))
            loss = tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(label, tf.cast(logits, tf.float32)))
        for variable, gradient in zip(layers.variables, tape.gradient(loss, layers.variables), strict=True):
            variable.assign_sub(0.01 * gradient)
        return loss

    return rate(batch_size, lambda number: step())


def plain(batch_size: int, rows: int, precision: str) -> float:
    """Samples per second of DLRM in plain TensorFlow."""
    import numpy as np

    tf, layers, numerical, label = setup(batch_size, precision)
    tables = [tf.Variable(tf.random.uniform([rows, DIM], -0.01, 0.01)) for _ in range(TABLES)]
    pairs = np.ravel_multi_index(np.tril_indices(TABLES + 1, -1), (TABLES + 1,) * 2).astype(np.int32)
    spread = np.random.default_rng(0).random((STEPS, batch_size, TABLES))
    ids = [tf.constant(((rows + 1.0) ** part - 1).astype(np.int64).clip(0, rows - 1)) for part in spread]

    @tf.function
    def step(ids):
        with tf.GradientTape() as tape:
            bottom = layers(layers.bottom, numerical)
            found = [tf.cast(tf.gather(table, ids[:, i]), precision) for i, table in enumerate(tables)]
            vectors = tf.stack([bottom, *found], axis=1)
            products = tf.reshape(tf.matmul(vectors, vectors, transpose_b=True), [batch_size, -1])
            interacted = tf.pad(tf.concat([bottom, tf.gather(products, pairs, axis=1)], 1), [[0, 0], [0, 1]])
            logits = tf.cast(layers(layers.top, interacted), tf.float32)
            loss = tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(label, logits))
        gradients = tape.gradient(loss, [*layers.variables, *tables])
        for variable, gradient in zip(layers.variables, gradients, strict=False):
            variable.assign_sub(0.01 * gradient)
        for table, gradient in zip(tables, gradients[len(layers.variables) :], strict=True):
            table.scatter_sub(tf.IndexedSlices(0.01 * gradient.values, gradient.indices))
        return loss

    return rate(batch_size, lambda number: step(ids[number]))


def rate(batch_size: int, step) -> float:
    """Samples per second, by the median of STEPS steps."""
    seconds = []
    for number in (0, 1, *range(STEPS)):  # the first two trace and warm up
        start = time.perf_counter()
        float(step(number))
        seconds.append(time.perf_counter() - start)
    return batch_size / statistics.median(seconds[2:])


if __name__ == "__main__":
    main()
