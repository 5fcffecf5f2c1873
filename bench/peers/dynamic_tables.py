"""A training step of TFRA's dynamic embedding on the CPU, for bench/dynamic_tables.py --peer_python.

    TF_USE_LEGACY_KERAS=1 python bench/peers/dynamic_tables.py KEYS.npz OPTIMIZER WIDTH ROWS

Needs tensorflow-cpu 2.16.2, tf-keras 2.16.0 and tensorflow-recommenders-addons 0.8.1. KEYS.npz holds the batches. All
keys 0 ... ROWS - 1 are stored first. A step looks up the vectors of the different keys of a batch, and updates their
rows with a gradient that is there already. Prints one line of JSON: milliseconds of each lookup and of each step.
"""

import json
import sys
import time

import numpy as np
import tensorflow as tf
from tensorflow_recommenders_addons import dynamic_embedding

_FILLED_AT_ONCE = 1 << 18


def main() -> None:
    keys_file, optimizer_name, width, num_rows = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    with np.load(keys_file) as stored:
        batches = [tf.constant(stored[name], tf.int64) for name in stored.files]
    optimizers = tf.keras.optimizers
    optimizer = dynamic_embedding.DynamicEmbeddingOptimizer(
        optimizers.SGD(0.1) if optimizer_name == "sgd" else optimizers.Adam(0.1, epsilon=1e-3)
    )
    table = dynamic_embedding.get_variable(
        "t_0", key_dtype=tf.int64, value_dtype=tf.float32, dim=width, devices=["/CPU:0"], init_size=num_rows
    )
    shadow = dynamic_embedding.shadow_ops.ShadowVariable(table, name="shadow")
    gradient = tf.random.normal([len(batches[0]), width], stddev=1e-3)

    @tf.function
    def look_up(keys):
        return table.lookup(keys)

    @tf.function
    def train(keys):
        with tf.GradientTape() as tape:
            tape.watch(shadow)
            vectors = dynamic_embedding.shadow_ops.embedding_lookup_unique(shadow, keys, embedding_size=width)
            loss = tf.reduce_sum(vectors * gradient)
        optimizer.apply_gradients([(tape.gradient(loss, shadow), shadow)])
        return loss

    for first in range(0, num_rows, _FILLED_AT_ONCE):
        keys = tf.range(first, min(first + _FILLED_AT_ONCE, num_rows), dtype=tf.int64)
        table.upsert(keys, tf.random.uniform([len(keys), width]))
    print(json.dumps({"lookup": times(look_up, batches), "train": times(train, batches)}))


def times(run, batches) -> list[float]:
    """Milliseconds of a call for each batch, after three calls that are not counted."""
    found = []
    for keys in [*batches[:3], *batches]:
        start = time.perf_counter()
        run(keys)
        found.append(1e3 * (time.perf_counter() - start))
    return found[min(3, len(batches)) :]


if __name__ == "__main__":
    main()
