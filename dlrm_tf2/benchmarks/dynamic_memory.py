"""The memory that dynamicemb's benchmarks need, counted before anything is allocated. No TensorFlow."""

import math
from collections.abc import Sequence
from dataclasses import replace

from dlrm_tf2.benchmarks.dynamic_config import CollectionConfig, TablesConfig
from dlrm_tf2.job.preflight import PROCESS_BYTES, DoesNotFit, gib
from dlrm_tf2.sharding.cost import Step, cost_of

_KEY_BYTES = 8
# Copies of the vectors of a batch, as measured: one looked up, one as gradient, and what TensorFlow keeps of others.
_VECTORS, _VECTORS_OF_TABLES = 3, 7
_ID_BYTES = 60  # of an id in a step: its key, row, place, and the order of the update
_SMALLEST = 2.0**-30


def check_tables(config: TablesConfig, available_bytes: int) -> str:
    """Compares the bytes that the larger of the two tables and its steps need with the available bytes.

    Returns:
      One line for the user.

    Raises:
      DoesNotFit: with the bytes needed and available, and the rows that fit.
    """
    tables, rest = _tables_bytes(config)
    if tables + rest <= available_bytes:
        return f"memory: about {gib(tables + rest)} of {gib(available_bytes)}, a table with its state {gib(tables)}"
    rows = int((available_bytes - rest) / tables * config.num_rows)
    # A smaller table has more rows for each key.
    while rows >= 2 and sum(_tables_bytes(replace(config, rows=rows, num_embeddings_per_feature=1))) > available_bytes:
        rows = int(0.99 * rows)
    advice = f"It fits with --rows {rows}." if rows >= 2 else "Use a smaller --batch_size or --num_iterations."
    what = f"a table of {config.num_rows} rows"
    raise DoesNotFit(_too_large(what, config, need=(tables, rest), available=available_bytes) + advice)


def scaled_to_fit(config: CollectionConfig, ranks: Sequence[int], *, world_size: int, available_bytes: int) -> float:
    """The scale that was given, or else the largest of 1, 1/2, 1/4, ... with which all tables fit.

    Args:
      ranks: the ranks of this machine.

    Raises:
      DoesNotFit: the given scale is too large, or no scale is small enough.
    """
    scale = config.scale or 1.0
    while True:
        tables, rest = _collection_bytes(replace(config, scale=scale), ranks, world_size)
        if tables + rest <= available_bytes:
            return scale
        if config.scale is not None or scale < _SMALLEST or rest > available_bytes:
            advice = "Use a smaller --batch_size or more machines."
            if rest < available_bytes:
                advice = "Use a smaller --scale, or leave it out: then the largest that fits is taken."
            raise DoesNotFit(
                _too_large("these tables", config, need=(tables, rest), available=available_bytes) + advice
            )
        scale /= 2


def step_bytes(config: CollectionConfig, world_size: int) -> int:
    """Bytes that a step of `collection` needs on a rank besides weights and state."""
    ids = math.ceil(sum(config.multi_hot_sizes) * config.batch_size / world_size)
    vectors = _VECTORS + 2 * (world_size > 1)  # what is sent is copied once more
    return ids * (4 * config.embedding_dim * vectors + _ID_BYTES)


def _tables_bytes(config: TablesConfig) -> tuple[int, int]:
    """(the larger table with its state, everything else)."""
    step = Step(config.batch_size, optimizer=config.optimizer)
    tables = max(
        cost_of(config.plan(dynamic=dynamic), [config.table(dynamic=dynamic)], step)[0].table_bytes
        for dynamic in (False, True)
    )
    a_sample = 4 * config.embedding_dim * _VECTORS_OF_TABLES + _ID_BYTES + 2 * _KEY_BYTES * config.num_iterations
    return tables, PROCESS_BYTES + config.batch_size * a_sample


def _collection_bytes(config: CollectionConfig, ranks: Sequence[int], world_size: int) -> tuple[int, int]:
    """The same, on the ranks of a machine."""
    costs = cost_of(config.plan(world_size), config.tables, config.step)
    tables = sum(costs[rank].table_bytes for rank in ranks)
    # Each rank draws the ids of the global batch.
    each = PROCESS_BYTES + 2 * _KEY_BYTES * sum(config.multi_hot_sizes) * config.batch_size
    return tables, len(ranks) * (each + step_bytes(config, world_size))


def _too_large(what: str, config: TablesConfig | CollectionConfig, *, need: tuple[int, int], available: int) -> str:
    tables, rest = need
    return (
        f"{what} and batches of {config.batch_size} do not fit: they need {tables + rest} bytes ({gib(tables + rest)}, "
        f"{gib(tables)} of them tables with the state of {config.optimizer_type}), and {available} bytes "
        f"({gib(available)}) are available. "
    )
