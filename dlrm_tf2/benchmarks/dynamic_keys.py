"""The keys of dynamicemb's benchmarks, as functions of the seed. No TensorFlow."""

import numpy as np

from dlrm_tf2.benchmarks.dynamic_config import CollectionConfig, TablesConfig


def power_law_keys(uniform: np.ndarray, num_rows: int, *, alpha: float) -> np.ndarray:
    """Keys 1 ... num_rows - 1, of which the small ones are frequent: int64 of the shape of `uniform`.

        key = floor(((N**(1 - a) - 1) * u + 1) ** (1 / (1 - a)))          N ** u for a = 1

    Args:
      uniform: numbers u from 0 to below 1.
      num_rows: N, at least 2.
      alpha: the exponent a.

    Source: dataset_generator.py of dynamicemb's benchmark. Key 0 never occurs.
    """
    power = 1.0 - alpha
    keys = ((num_rows**power - 1) * uniform + 1) ** (1 / power) if power else float(num_rows) ** uniform
    return np.minimum(keys, num_rows - 1).astype(np.int64)  # rounding may reach N


def tables_batch(config: TablesConfig, number: int) -> np.ndarray:
    """The keys of batch `number` of `tables`: int64 [batch_size], all below num_rows."""
    rng = np.random.default_rng((config.seed, number))
    if config.feature_distribution == "random":
        return rng.integers(0, config.num_rows, config.batch_size)
    return power_law_keys(rng.random(config.batch_size), config.num_rows, alpha=config.alpha)


def collection_batch(config: CollectionConfig, number: int) -> dict[str, np.ndarray]:
    """Feature -> ids [batch_size, hotness] of step `number`, the same for any number of ranks.

    All ids of a feature are equally frequent. Ids of the fused dynamic table are int64 and begin where the ids of the
    features before end; ids of static tables are int32.
    """
    rng = np.random.default_rng((config.seed, number))
    batch, first = {}, 0
    for (feature, size), rows in zip(config.hotness.items(), config.num_rows, strict=True):
        ids = rng.integers(0, rows, (config.batch_size, size), np.int32)
        batch[feature] = ids + np.int64(first) if config.use_dynamic_embedding else ids
        first += rows
    return batch
