"""Gradients of the ids' weights: of the layer on any number of ranks, and of numpy by finite differences.

The loss is the mean over the samples of the sum of a * x + b * x**2 over the columns x of the result.
"""

from dataclasses import replace

import numpy as np
import tensorflow as tf
from support.embedding_case import Case, assembled, draw, given_ids, head

from dlrm_tf2.embedding.layer import DistributedEmbedding
from dlrm_tf2.sharding.plan import samples_of_rank


def draw_weighted(seed: int, world_size: int, data_parallel_input: bool | None = None) -> Case:
    """A small case of which about half of the features have weights, also those of tables without combiner."""
    case, rng = draw(seed, world_size, "sgd", data_parallel_input), np.random.default_rng([seed, 2])
    weighted = frozenset(feature for feature in case.hotness if rng.random() < 0.6)
    return replace(case, weighted=weighted, global_batch=int(rng.integers(1, 7)))


def of_layer(case: Case, comm, *, embedding_op: str, dtype: str, wire: str | None = None, compiled: bool = False):
    """One rank's part of the gradients and the tables.

    Returns:
      (feature -> the gradients of the global batch's weights, as far as they came to this rank;
      {("weights", shard): rows} of this rank's shards).
    """
    layer = DistributedEmbedding(
        case.tables, case.plan, comm=comm, seed=case.seed, hotness=case.hotness,
        data_parallel_input=case.data_parallel_input, deduplicated=case.deduplicated, weighted=case.weighted,
        wire_dtype=wire or ("float32" if dtype == "bfloat16" else dtype), dtype=dtype, embedding_op=embedding_op,
    )  # fmt: skip
    batch, _ = case.batch(1)
    first, last = samples_of_rank(case.global_batch, comm.size, comm.rank)
    local = {feature: sample.of(first, last) for feature, sample in batch.items()}
    inputs = [(batch, layer.global_features), (local, layer.sample_features)]
    a, b = (tf.constant(vector, tf.float64) for vector in head(case, layer.width))

    def gradients(weights):
        with tf.GradientTape() as tape:
            tape.watch(weights)
            of_inputs = [{f: w for f, w in weights.items() if f in features} for _, features in inputs]
            ids = layer.ids(
                *(given_ids(samples, features, case) for samples, features in inputs),
                global_batch=case.global_batch, global_weights=of_inputs[0], local_weights=of_inputs[1],
            )  # fmt: skip
            lookup = layer.lookup(ids)
            tape.watch(lookup.vectors)
            x = tf.cast(layer.exchange(lookup), tf.float64)
            loss = tf.reduce_sum(tf.linalg.matvec(x, a) + tf.linalg.matvec(x**2, b)) / case.global_batch
        return tape.gradient(loss, [lookup.vectors, weights])[1]

    weights = {
        feature: tf.constant(samples[feature].weights, tf.float64 if dtype == "float64" else tf.float32)
        for samples, features in inputs
        for feature in features
        if feature in case.weighted
    }
    found = (tf.function(gradients, autograph=False) if compiled else gradients)(weights)
    everywhere = {f: np.zeros(len(sample.ids)) for f, sample in batch.items() if f in case.weighted}
    for feature, gradient in found.items():
        start = 0 if feature in layer.global_features else int(batch[feature].lengths[:first].sum())
        everywhere[feature][start : start + len(gradient)] = gradient
    parts = {
        ("weights", shard): layer.read_rows(shard, "weights", start=shard.rows[0], stop=shard.rows[1])
        for shard in case.plan.of_rank(comm.rank)
    }
    return everywhere, parts


def check(case: Case, ranks, relative: float, absolute: float) -> None:
    """Compares what `of_layer` returned on all ranks, added up, with finite differences on the layer's tables."""
    tables = assembled(case, {key: part for _, parts in ranks for key, part in parts.items()})
    batch, _ = case.batch(1)
    for feature, wanted in _differences(case, tables, batch).items():
        found = sum(gradients[feature] for gradients, _ in ranks)
        np.testing.assert_allclose(found, wanted, relative, absolute, err_msg=feature)


def _differences(case, tables, batch, size=1e-5):
    """feature -> float64 [ids], the gradients of the loss by its weights."""
    vectors, found = head(case, _result(case, tables, batch).shape[1]), {}
    for feature in sorted(case.weighted):
        weights, gradients = batch[feature].weights, []
        for place, weight in enumerate(weights.copy()):
            losses = []
            for near in (weight + size, weight - size):
                weights[place] = near
                x = _result(case, tables, batch)
                losses.append((x @ vectors[0] + x**2 @ vectors[1]).sum() / case.global_batch)
            weights[place] = weight
            gradients.append((losses[0] - losses[1]) / (2 * size))
        found[feature] = np.array(gradients)
    return found


def _result(case, tables, batch):
    """[samples, columns] in float64."""
    columns = []
    for table in case.tables:
        for feature in table.features:
            sample = batch[feature]
            bounds = np.cumsum([0, *sample.lengths])
            weights = np.ones(len(sample.ids)) if sample.weights is None else sample.weights
            rows = tables["weights", table.name][sample.ids] * weights[:, None]
            bags = [slice(start, stop) for start, stop in zip(bounds, bounds[1:], strict=False)]
            if table.combiner is None:
                pooled = [rows[bag].reshape(-1) for bag in bags]
            elif table.combiner == "sum":
                pooled = [rows[bag].sum(axis=0) for bag in bags]
            else:
                pooled = [rows[bag].sum(axis=0) / (weights[bag].sum() or 1) for bag in bags]
            columns.append(np.stack(pooled))
    return np.concatenate(columns, axis=1)
