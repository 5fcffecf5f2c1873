"""Lookup and update of embedding tables on the CPU: the native op, TensorFlow's ops, and what the machine can do.

    python bench/embedding_op.py [--shapes tiny criteo multi_hot small] [--rounds 3] [--peer PYTHON]

Adagrad, one rank, ids by a power law with exponent 1.05. `lookup` writes the vectors of a batch; `update` is the rest
of a step of the layer, with a gradient that is there already. `step` is a training step of the zoo's model around the
layer, with its MLP; `plain` is the same model as anyone would write it, a gather for each table and TensorFlow's fused
sparse Adagrad. Each way is a process; they take turns, and the medians count.

Two floors: `bytes`, what must be read and written (ids, the different rows and their state once, vectors once and a
gradient once) at the rate of a copy of 1 GiB; and `rows`, a numba loop that reads one row for each id, and one that
updates one row for each id, without state and without adding up. With --peer, a Python that has torch and
fbgemm-gpu-cpu, FBGEMM's table-batched embedding runs the shape `one_table`.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from result_file import write_result

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from criteo_prep.synthetic import power_law
from dlrm_tf2.benchmarks.zoo import MODELS
from dlrm_tf2.sharding.tables import TableConfig

ROOT = Path(__file__).resolve().parent.parent
WAYS = ("native", "tensorflow", "plain")
BATCHES, STEPS = 3, 6
# Ids a sample of the 26 features. Source: MLPerf's DLRM-DCNv2 (torchrec_dlrm/README, multi-hot sizes).
MULTI_HOT = (3, 2, 1, 2, 6, 1, 1, 1, 1, 7, 3, 8, 1, 6, 9, 5, 1, 1, 1, 12, 100, 27, 10, 3, 1, 1)


def shape_of(name: str) -> tuple[list[TableConfig], dict[str, int], int]:
    """(tables, feature -> ids a sample, samples of a batch)."""
    if name in ("tiny", "small"):
        model, scale = MODELS[name], 1 if name == "tiny" else 0.2
        tables = [
            TableConfig(t.name, max(4, round(t.num_rows * scale)), t.embedding_dim, "sum", t.features)
            for t in model.tables
        ]
        return tables, dict(model.hotness), 65536 if name == "tiny" else 16384
    sizes, rows, batch = {"criteo": ((1,) * 26, 100_000, 65536), "multi_hot": (MULTI_HOT, 100_000, 4096),
                          "dlrm": ((1,) * 26, 100_000, 8192), "one_table": ((1,), 1_000_000, 65536)}[name]  # fmt: skip
    tables = [TableConfig(f"cat_{i}", rows, 128, "sum") for i in range(len(sizes))]
    return tables, {f"cat_{i}": size for i, size in enumerate(sizes)}, batch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--shapes", nargs="+", default=["tiny", "criteo", "multi_hot", "dlrm", "small", "one_table"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peer", metavar="PYTHON", help="a Python that has torch and fbgemm-gpu-cpu")
    parser.add_argument("--json", default=str(ROOT / "bench" / "results" / "embedding_op.json"))
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        shape, way = arguments.measure
        found = floors(shape) if way == "floors" else measure(shape, way)
        print(json.dumps(found))
        return
    document: dict = {"shapes": {}}
    for shape in arguments.shapes:
        document["shapes"][shape] = compare(shape, arguments)
    write_result(arguments.json, document)


def compare(shape: str, arguments: argparse.Namespace) -> dict:
    """Runs all ways of a shape in turn, prints their medians and ratios."""
    ways = ["floors", *(way for way in WAYS if way != "plain" or shape == "tiny")]
    ways += ["peer"] if arguments.peer and shape == "one_table" else []
    rounds = []
    for _ in range(arguments.rounds):
        rounds.append({})
        for way in ways:
            command = [sys.executable, __file__, "--measure", shape, way]
            if way == "peer":
                command = [arguments.peer, str(ROOT / "bench" / "peers" / "embedding_op.py"), write_ids(shape)]
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
            if done.returncode:
                sys.exit(f"bench/embedding_op.py: {shape}, {way}\n{done.stderr[-2000:]}")
            rounds[-1][way] = json.loads(done.stdout.splitlines()[-1])
    median = {way: {key: statistics.median(one[way][key] for one in rounds) for key in rounds[0][way]} for way in ways}
    print(f"\n{shape}, ms" + "".join(f"{key:>18}" for key in ("lookup", "update", "both", "step")))
    for way in ways:
        print(
            f"{way:14}"
            + "".join(f"{median[way].get(key, float('nan')):18.1f}" for key in ("lookup", "update", "both", "step"))
        )
    ratios = {
        f"{way} / native, both": statistics.median(one[way]["both"] / one["native"]["both"] for one in rounds)
        for way in ways
        if way != "native" and "both" in median[way]
    }
    ratios["bytes / native, both"] = statistics.median(one["floors"]["bytes"] / one["native"]["both"] for one in rounds)
    for way in ("tensorflow", "plain"):
        if "step" in median.get(way, {}):
            ratios[f"{way} / native, step"] = statistics.median(
                one[way]["step"] / one["native"]["step"] for one in rounds
            )
    for name, ratio in ratios.items():
        print(f"{name:26}{ratio:8.2f}")
    return {"median_ms": median, "ratios": ratios, "rounds": rounds}


def ids_of(shape: str, number: int) -> dict[str, np.ndarray]:
    """Feature -> ids [samples, hotness] of batch `number`."""
    tables, hotness, samples = shape_of(shape)
    batch = {}
    for table in tables:
        for feature in table.features:
            ids = np.empty(samples * hotness[feature], np.int32)
            power_law.PowerLaw(table.num_rows, 1.05).fill(power_law.stream_key(number, feature), 0, out=ids)
            batch[feature] = ids.reshape(samples, hotness[feature])
    return batch


def write_ids(shape: str) -> str:
    """Writes the batches of a shape of one table into a file for the peer; returns its path."""
    path = Path(tempfile.gettempdir()) / "embedding_op_ids.npz"
    table = shape_of(shape)[0][0]
    batches = {f"batch_{number}": ids_of(shape, number)[table.name].ravel() for number in range(BATCHES)}
    np.savez(path, shape=(table.num_rows, table.embedding_dim), **batches)
    return str(path)


def median_ms(run) -> float:
    """The median time of a call, which gets the number of the call; the first two are not counted."""
    times = []
    for number in range(STEPS + 2):
        start = time.perf_counter()
        run(number)
        times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times[2:])


def measure(shape: str, way: str) -> dict[str, float]:
    """Milliseconds of a way."""
    from dlrm_tf2.runtime import process

    process.set_up_process(process.Launch(), cpu=True, amp=False)
    if way == "plain":
        return plain(shape)
    import tensorflow as tf

    from dlrm_tf2.embedding import DistributedEmbedding, make_plan
    from dlrm_tf2.optim import Optimizer
    from dlrm_tf2.runtime import memory
    from dlrm_tf2.runtime.comm import SingleProcess

    tables, hotness, samples = shape_of(shape)
    layer = DistributedEmbedding(
        tables, make_plan(tables, 1, data_parallel_threshold=0), comm=SingleProcess(), seed=0,
        optimizer=Optimizer("adagrad"), hotness=hotness, embedding_op=way,
    )  # fmt: skip
    memory.prepare_step_memory(3 * 4 * samples * (layer.width + 1000))  # as the trainer does
    batches = [layer.ids(ids_of(shape, number)) for number in range(BATCHES)]
    batches = [tf.nest.map_structure(lambda ids: tf.cast(ids, tf.int32), batch) for batch in batches]
    signature = [layer.signature]
    gradients = [tf.random.normal(tf.shape(part), stddev=1e-3) for part in layer.lookup(batches[0]).vectors]

    @tf.function(input_signature=signature, autograph=False)
    def look_up(ids):
        return [part[:1] for part in layer.lookup(ids).vectors]

    @tf.function(input_signature=signature, autograph=False)
    def both(ids):
        return layer.apply_gradient(layer.lookup(ids), gradients, learning_rate=0.01)

    found = {"lookup": median_ms(lambda number: look_up(batches[number % BATCHES]))}
    found["both"] = median_ms(lambda number: float(both(batches[number % BATCHES])))
    found["update"] = found["both"] - found["lookup"]
    if shape == "tiny":
        found["step"] = step_of(layer, batches, samples)
    return found


def head(tf, width: int, samples: int):
    """(variables of the zoo's MLP for tiny, numericals, labels, the logits of its input)."""
    dims = (width + 10, *MODELS["tiny"].mlp_dims)
    layers = [
        (tf.Variable(tf.random.normal([a, b], stddev=0.05)), tf.Variable(tf.zeros([b])))
        for a, b in zip(dims, dims[1:], strict=False)
    ]
    numerical = tf.random.uniform([samples, 10], 0, 100.0)
    label = tf.cast(tf.random.uniform([samples]) > 0.5, tf.float32)

    def losses(vectors):
        hidden = tf.concat([vectors, numerical], axis=1)
        for number, (kernel, bias) in enumerate(layers):
            hidden = tf.matmul(hidden, kernel) + bias
            hidden = tf.nn.relu(hidden) if number < len(layers) - 1 else hidden
        return tf.nn.sigmoid_cross_entropy_with_logits(label, hidden[:, 0])

    return [variable for layer in layers for variable in layer], losses


def step_of(layer, batches, samples: int) -> float:
    import tensorflow as tf

    from dlrm_tf2.optim import DenseOptimizer, Optimizer

    variables, losses = head(tf, layer.width, samples)
    dense = DenseOptimizer(Optimizer("adagrad"), variables)

    @tf.function(input_signature=[layer.signature], autograph=False)
    def step(ids):
        lookup = layer.lookup(ids)
        with tf.GradientTape() as tape:
            tape.watch(lookup.vectors)
            loss = tf.reduce_mean(losses(layer.exchange(lookup)))
        by_vectors, by_variables = tape.gradient(loss, [lookup.vectors, variables])
        dense.apply(by_variables, tf.constant(0.01), tf.constant(1.0))
        return loss + layer.apply_gradient(lookup, by_vectors, learning_rate=0.01)

    return median_ms(lambda number: float(step(batches[number % BATCHES])))


def plain(shape: str) -> dict[str, float]:
    """A training step of the zoo's tiny in plain TensorFlow."""
    import tensorflow as tf

    tables, _, samples = shape_of(shape)
    weights = [tf.Variable(tf.random.uniform([t.num_rows, t.embedding_dim], -0.05, 0.05)) for t in tables]
    state = [tf.Variable(tf.fill(variable.shape, 0.1)) for variable in weights]
    of_feature = {feature: number for number, table in enumerate(tables) for feature in table.features}
    width = sum(tables[number].embedding_dim for number in of_feature.values())
    variables, losses = head(tf, width, samples)
    sums = [tf.Variable(tf.fill(variable.shape, 0.1)) for variable in variables]
    batches = [[tf.constant(ids, tf.int64) for ids in ids_of(shape, number).values()] for number in range(BATCHES)]

    @tf.function
    def step(batch):
        with tf.GradientTape() as tape:
            found = [tf.gather(weights[of_feature[f]], ids) for f, ids in zip(of_feature, batch, strict=True)]
            loss = tf.reduce_mean(losses(tf.concat([tf.reduce_sum(rows, axis=1) for rows in found], axis=1)))
        gradients = tape.gradient(loss, [*variables, *weights])
        for variable, total, gradient in zip(variables, sums, gradients, strict=False):
            total.assign_add(gradient * gradient)
            variable.assign_sub(0.01 * gradient / (tf.sqrt(total) + 1e-7))
        for table, total, rows in zip(weights, state, gradients[len(variables) :], strict=True):
            tf.raw_ops.ResourceSparseApplyAdagradV2(
                var=table.handle, accum=total.handle, lr=0.01, epsilon=1e-7, grad=rows.values, indices=rows.indices
            )
        return loss

    return {"step": median_ms(lambda number: float(step(batches[number % BATCHES])))}


def floors(shape: str) -> dict[str, float]:
    """Milliseconds of the numba loops, and of the bytes at the rate of a copy."""
    import numba

    tables, hotness, samples = shape_of(shape)
    batch = ids_of(shape, 0)
    loops = {"parallel": True, "fastmath": True}

    @numba.njit(**loops)
    def gather(table, ids, out):
        for i in numba.prange(ids.shape[0]):
            for j in range(ids.shape[1]):
                for column in range(table.shape[1]):
                    out[i, column] += table[ids[i, j], column]

    @numba.njit(**loops)
    def update(table, ids, gradient):
        for i in numba.prange(ids.shape[0]):
            for j in range(ids.shape[1]):
                for column in range(table.shape[1]):
                    table[ids[i, j], column] -= 0.01 * gradient[i, column]

    @numba.njit(**loops)
    def copy(a, b):
        for i in numba.prange(a.size):
            b[i] = a[i]

    source, target = np.ones(1 << 28, np.float32), np.zeros(1 << 28, np.float32)
    copy_bytes_per_ms = 2 * source.nbytes / median_ms(lambda _: copy(source, target))
    source = target = np.empty(0)
    work, num_bytes = [], 0
    for table in tables:
        rows = np.ones((table.num_rows, table.embedding_dim), np.float32)
        row_bytes = 4 * table.embedding_dim
        for feature in table.features:
            ids = batch[feature]
            work.append((rows, ids, np.zeros((samples, table.embedding_dim), np.float32)))
            num_bytes += ids.nbytes * 2 + 2 * samples * row_bytes  # ids twice; vectors written, a gradient read
        different = len(np.unique(np.concatenate([batch[feature].ravel() for feature in table.features])))
        num_bytes += different * row_bytes * 5  # read; read and written with the accumulator
    found = {
        "lookup": median_ms(lambda _: [gather(*one) for one in work]),
        "update": median_ms(lambda _: [update(*one) for one in work]),
        "bytes": num_bytes / copy_bytes_per_ms,
    }
    return found | {"both": found["lookup"] + found["update"]}


if __name__ == "__main__":
    main()
