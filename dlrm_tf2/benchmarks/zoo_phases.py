"""The phases of a step, each timed on its own: lookup, exchange, dense, update.

Inside a step the phases overlap, and a clock there would delay them. So after the timed steps the phases run in turn,
each as a compiled function with the tensors of a real step. All ranks begin a phase together; the slowest rank counts.
"""

import statistics
import time
from collections.abc import Callable

import tensorflow as tf

from dlrm_tf2.benchmarks.floor import wait_for_devices
from dlrm_tf2.benchmarks.zoo_model import SyntheticModel
from dlrm_tf2.data.batches import RankBatch
from dlrm_tf2.runtime import activity

_REPEATS = 8
_STEP = 1.0  # number of the step for the optimizer


def phase_times(model: SyntheticModel, batch: RankBatch, learning_rate: float) -> dict[str, float]:
    """Phase -> the median of its milliseconds, on the slowest rank. The weights are updated with each run."""
    phases = _phases(model, batch, learning_rate)
    seconds: dict[str, list[float]] = {name: [] for name in phases}
    for _ in range(1 + _REPEATS):
        for name, phase in phases.items():
            activity.doing(f"measuring the phase {name}")
            model.comm.allgather_object(None, name=f"begin_{name}")
            start = time.perf_counter()
            phase()
            wait_for_devices()
            seconds[name].append(time.perf_counter() - start)
    medians = {name: 1e3 * statistics.median(times[1:]) for name, times in seconds.items()}  # the first run compiles
    of_ranks = model.comm.allgather_object(medians, name="phases")
    return {name: max(times[name] for times in of_ranks) for name in phases}


def _phases(model: SyntheticModel, batch: RankBatch, learning_rate: float) -> dict[str, Callable[[], object]]:
    """Phase -> a compiled function that does it for a batch.

    lookup    ids -> vectors of this rank's tables
    exchange  vectors to the samples' ranks, their gradients back, the ids with data-parallel input, and the sum of the
              MLP's gradients over the ranks
    dense     pooling, MLP and loss, forward and backward
    update    MLP, and rows of the tables; for replicated tables with the exchange of their gradients
    """
    embedding, dense_variables = model.embedding, model.dense_variables
    exchanged = embedding.exchange_ids(batch.ids)
    lookup = model.lookup(exchanged)
    vectors = embedding.exchange(lookup)

    def dense() -> list[tf.Tensor]:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch([vectors, *dense_variables])
            logits = model.dense_block(batch.numerical, vectors)
            losses = tf.nn.sigmoid_cross_entropy_with_logits(batch.label, logits)
            loss = tf.reduce_sum(losses) / batch.global_batch
        return tape.gradient(loss, [vectors, *dense_variables])

    by_vectors, *by_dense = dense()

    def exchange() -> list[tf.Tensor]:
        ids = tf.nest.flatten(embedding.exchange_ids(batch.ids)) if embedding.exchanges_ids else []
        with tf.GradientTape() as tape:
            tape.watch(lookup.vectors)
            result = embedding.exchange(lookup)
        gradients = tape.gradient(result, lookup.vectors, output_gradients=by_vectors)
        return [*ids, result, *gradients, *model.comm.allreduce_sum(by_dense, name="phase_dense_gradients")]

    row_gradients = exchange()[-len(by_dense) - len(lookup.vectors) : -len(by_dense)]

    def update() -> tf.Tensor:
        check = embedding.apply_gradient(
            lookup, row_gradients, learning_rate=tf.constant(learning_rate), step=tf.constant(_STEP)
        )
        return check, model.dense_optimizer.apply(by_dense, tf.constant(learning_rate), tf.constant(_STEP))

    phases = {"lookup": lambda: model.lookup(exchanged).vectors, "exchange": exchange, "dense": dense, "update": update}
    return {name: tf.function(phase) for name, phase in phases.items()}
