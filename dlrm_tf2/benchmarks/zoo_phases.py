"""The phases of a step, each timed on its own: lookup, exchange, dense, update.

Inside a step the phases overlap, and a clock there would delay them. So after the timed steps each phase runs alone, as
a compiled function with the tensors of a real step. All ranks begin a phase together, and the slowest rank counts.
"""

import statistics
from collections.abc import Callable, Sequence

import tensorflow as tf

from dlrm_tf2.benchmarks.floor import wait_for_devices
from dlrm_tf2.benchmarks.timing import time_steps
from dlrm_tf2.benchmarks.zoo_model import SyntheticModel
from dlrm_tf2.data.batches import RankBatch

_BATCHES, _REPEATS = 3, 4  # each phase runs on some batches in turn, and so often on each
_STEP = 1.0  # number of the step for the optimizer


def phase_times(model: SyntheticModel, batches: Sequence[RankBatch], learning_rate: float) -> dict[str, float]:
    """Phase -> the median of its milliseconds, on the slowest rank. The weights are updated with each run."""
    of_batches = [_phases(model, batch, learning_rate) for batch in batches[:_BATCHES]]
    times = {}
    for phase in of_batches[0]:
        functions = [phases[phase] for phases in of_batches]
        for function in functions:  # compiles it
            function()
        wait_for_devices()
        model.comm.allgather_object(None, name=f"begin_{phase}")
        seconds = time_steps(
            lambda number: functions[number % len(functions)](),  # noqa: B023 - called in this iteration
            lambda _: wait_for_devices(),
            num_steps=_REPEATS * len(functions),
        )
        times[phase] = 1e3 * max(model.comm.allgather_object(statistics.median(seconds), name=f"times_{phase}"))
    return times


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
