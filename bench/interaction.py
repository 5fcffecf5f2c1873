"""The dot interaction on the CPU: the native op against TensorFlow, and against what the machine can do.

    python bench/interaction.py [--shapes criteo|all] [--json bench/results/interaction.json]

Prints one table and writes one JSON: medians in ms, and the least time of the native op. `plain` is the obvious
implementation (matmul, reshape, gather, concat, and TensorFlow's own derivative); `TF` is this project's fallback,
whose gradient is written by hand. Forward + backward returns both results, so that TensorFlow cannot leave one out. The
floor of a pass is the larger of two times: its arithmetic at the rate of a large matmul of the same type, and its bytes
(inputs once, outputs once) at the rate of a copy. Both rates are measured here.
"""

import argparse
import statistics
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from result_file import write_result

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from dlrm_tf2.runtime import process

NUM_VECTORS, WIDTHS, DTYPES = (2, 9, 27, 33, 101), (16, 64, 127, 128, 256), ("float32", "float16", "bfloat16")
CRITEO = (8192, 27, 128)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shapes", choices=("criteo", "all"), default="all")
    parser.add_argument("--json", default=str(Path(__file__).parent / "results" / "interaction.json"))
    arguments = parser.parse_args(argv)
    try:
        setup = process.set_up_process(process.Launch(), cpu=True, amp=False)
    except ValueError as error:
        print(f"bench/interaction.py: {error}", file=sys.stderr)
        return 1
    # TensorFlow must not be imported before the process is set up.
    import tensorflow as tf

    from dlrm_tf2 import ops

    if not ops.available():
        print(f"bench/interaction.py: {ops.why_unavailable()}", file=sys.stderr)
        return 1
    copy_rate = measure_copy()
    matmul_rates = {dtype: measure_matmul(tf, dtype) for dtype in ("float32", "bfloat16")}
    matmul_rates["float16"] = matmul_rates["float32"]  # the kernels multiply halves as float32
    print(
        f"copy {copy_rate / 1e9:.1f} GB/s; matmul {matmul_rates['float32'] / 1e9:.0f} GFLOP/s float32, "
        f"{matmul_rates['bfloat16'] / 1e9:.0f} bfloat16; {setup.threads} threads"
    )
    print(
        f"{'B':>6} {'F':>4} {'D':>4} {'type':>8} | {'forward, ms':^23} | {'forward + backward, ms':^35} | "
        f"{'native against':^14} | share of"
    )
    print(
        f"{'':>6} {'':>4} {'':>4} {'':>8} | {'plain':>7} {'TF':>7} {'native':>7} | "
        f"{'plain':>8} {'TF':>8} {'native':>8} {'floor':>8} | {'plain':>6} {'TF':>7} | floor"
    )
    rows = []
    shapes = [CRITEO] if arguments.shapes == "criteo" else [CRITEO, *grid()]
    for shape in shapes:
        for dtype in DTYPES:
            rows.append(measure(tf, shape, dtype, copy_rate, matmul_rates[dtype]))
            print(table_row(rows[-1]), flush=True)
    document = {
        "rows": rows,
        "copy_bytes_per_s": copy_rate,
        "matmul_flop_per_s": matmul_rates,
        "threads": setup.threads,
        "tensorflow": tf.__version__,
        "instruction_set": ops.instruction_set(),
    }
    write_result(arguments.json, document, arguments=argv)
    return 0


def grid() -> list[tuple[int, int, int]]:
    """Every F with every D; the batch is such that the input has at most a quarter of the values in Criteo's shape."""
    return [(max(64, min(8192, 2**23 // (4 * f * d)) // 64 * 64), f, d) for f in NUM_VECTORS for d in WIDTHS]


def measure(tf, shape: tuple[int, int, int], dtype: str, copy_rate: float, matmul_rate: float) -> dict:
    """Times both implementations in turn, and the floor, in ms."""
    from dlrm_tf2.model.interaction import NATIVE, TENSORFLOW

    batch, count, width = shape
    features = tf.cast(tf.random.stateless_normal(shape, [1, 2]), dtype)
    output_width = NATIVE.compute(features).shape[1]
    upstream = tf.cast(tf.random.stateless_normal([batch, output_width], [3, 4]), dtype)
    functions = {}
    for name, compute in (("plain", plain(tf)), ("tensorflow", TENSORFLOW.compute), ("native", NATIVE.compute)):
        functions[name, "forward"] = tf.function(compute)
        functions[name, "both"] = tf.function(both_of(tf, compute, upstream))
    times = {key: [] for key in functions}
    most, seconds = (15, 30) if shape == CRITEO else (7, 1.5)
    for repeat in range(most + 2):  # the first two do not count
        if repeat == 2:
            began = time.perf_counter()
        elif repeat > 4 and time.perf_counter() - began > seconds:
            break
        for key, function in functions.items():  # in turn, so that a busy moment of the machine slows all of them
            start = time.perf_counter()
            result = function(features)
            tf.nest.flatten(result)[-1][0, ..., 0].numpy()  # waits for the result, and copies one number of it
            if repeat >= 2:
                times[key].append(1e3 * (time.perf_counter() - start))
    median = {key: statistics.median(values) for key, values in times.items()}
    pairs, size = count * (count - 1) // 2, tf.as_dtype(dtype).size
    values_in, values_out = batch * count * width, batch * output_width
    floor_forward = max(2 * batch * pairs * width / matmul_rate, (values_in + values_out) * size / copy_rate)
    floor_backward = max(4 * batch * pairs * width / matmul_rate, (2 * values_in + values_out) * size / copy_rate)
    return {
        "batch": batch,
        "num_vectors": count,
        "width": width,
        "dtype": dtype,
        **{f"{name}_{part}_ms": value for (name, part), value in median.items()},
        **{f"native_{part}_least_ms": min(times["native", part]) for part in ("forward", "both")},
        "floor_both_ms": 1e3 * (floor_forward + floor_backward),
    }


def both_of(tf, compute, upstream):
    def both(features):
        with tf.GradientTape() as tape:
            tape.watch(features)
            output = compute(features)
        return output, tape.gradient(output, features, upstream)

    return both


def plain(tf):
    """The interaction as in the published fallback, without a hand-written gradient."""

    def compute(features):
        _, count, width = features.shape
        pairs = [i * count + j for i in range(count) for j in range(i)]
        products = tf.reshape(tf.matmul(features, features, transpose_b=True), [-1, count * count])
        output = tf.concat([features[:, 0], tf.gather(products, tf.constant(pairs, tf.int32), axis=1)], 1)
        return tf.pad(output, [[0, 0], [0, -(width + len(pairs)) % 8]])

    return compute


def table_row(row: dict) -> str:
    forward = " ".join(f"{row[f'{name}_forward_ms']:>7.2f}" for name in ("plain", "tensorflow", "native"))
    both = " ".join(f"{row[f'{name}_both_ms']:>8.2f}" for name in ("plain", "tensorflow", "native", "floor"))
    native = row["native_both_ms"]
    return (
        f"{row['batch']:>6} {row['num_vectors']:>4} {row['width']:>4} {row['dtype']:>8} | {forward} | {both} | "
        f"{row['plain_both_ms'] / native:>5.1f}x {row['tensorflow_both_ms'] / native:>6.1f}x | "
        f"{row['floor_both_ms'] / native:.2f}"
    )


def measure_copy() -> float:
    """Bytes read and written per second by a copy of 256 MB into memory that is already mapped, in two threads."""
    source, target = np.ones(2**26, np.float32), np.zeros(2**26, np.float32)
    half = len(source) // 2
    with ThreadPoolExecutor(2) as pool:  # numpy copies without holding the interpreter's lock
        parts = (slice(0, half), slice(half, None))
        return 2 * 2**28 / best(lambda: list(pool.map(lambda part: np.copyto(target[part], source[part]), parts)))


def measure_matmul(tf, dtype: str) -> float:
    a = tf.cast(tf.ones([1536, 1536]), dtype)
    matmul = tf.function(lambda: tf.matmul(a * 1, a)[0, 0])
    return 2 * 1536**3 / best(lambda: matmul().numpy())


def best(function) -> float:
    """The least of 7 times, in seconds, after two runs that do not count."""
    times = []
    for _ in range(9):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times[2:])


if __name__ == "__main__":
    sys.exit(main())
