"""Which rank holds which part of which table: pure Python, no TensorFlow, no communication.

A shard is a rectangle of one table on one rank. The shards of a table tile it exactly once, except those of a
replicated table: every rank holds all of it.
"""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from dlrm_tf2.sharding import placement
from dlrm_tf2.sharding.blocks import Block, cut_by_rows, dealt_balanced, dealt_published
from dlrm_tf2.sharding.tables import FLOAT_BYTES, STATE, TableConfig

STRATEGIES = ("balanced", *placement.PUBLISHED)
_NEVER = 1 << 62  # elements, as a threshold that no table reaches
_REPLICATED_GAIN = 2  # times that `balanced` wants the exchange of a table's vectors to be dearer than its replication


class PlanError(ValueError):
    """The tables cannot be placed as asked."""


@dataclass(frozen=True)
class Shard:
    """The rectangle `rows` x `columns` (each start, stop) of a table, held by `rank`."""

    table: str
    rank: int
    rows: tuple[int, int]
    columns: tuple[int, int]

    @property
    def num_rows(self) -> int:
        return self.rows[1] - self.rows[0]

    @property
    def num_columns(self) -> int:
        return self.columns[1] - self.columns[0]

    @property
    def num_bytes(self) -> int:
        return self.num_rows * self.num_columns * FLOAT_BYTES


@dataclass(frozen=True)
class ShardingPlan:
    """Who holds what.

    Attributes:
      world_size: number of ranks.
      shards: what all ranks hold, in the order of the tables. A table is spread (its shards tile it exactly once,
        whole, by rows, by columns or both) or replicated (one shard on each rank, each of them the whole table).
      replicated: names of the replicated tables.
      on_host: those of the shards that a rank with a GPU keeps in the memory of its host; none of replicated tables.
    """

    world_size: int
    shards: tuple[Shard, ...]
    replicated: frozenset[str] = frozenset()
    on_host: frozenset[Shard] = frozenset()

    def of_rank(self, rank: int) -> tuple[Shard, ...]:
        """The shards that `rank` holds, in the order of the tables."""
        return self._by_rank.get(rank, ())

    def of_table(self, table: str) -> tuple[Shard, ...]:
        return self._by_table.get(table, ())

    def bytes_of(self, rank: int) -> int:
        """Bytes of the weights on `rank`."""
        return sum(shard.num_bytes for shard in self.of_rank(rank))

    @cached_property
    def _by_rank(self) -> dict[int, tuple[Shard, ...]]:
        return _grouped(self.shards, "rank")

    @cached_property
    def _by_table(self) -> dict[str, tuple[Shard, ...]]:
        return _grouped(self.shards, "table")


def make_plan(
    tables: Sequence[TableConfig],
    world_size: int,
    *,
    strategy: str = "balanced",
    hotness: Mapping[str, float] | None = None,
    optimizer: str = "sgd",
    batch_size: int | None = None,
    column_slice_threshold: int | None = None,
    row_slice_threshold: int | None = None,
    data_parallel_threshold: int | None = None,
) -> ShardingPlan:
    """Decides which rank holds what.

    Each table is treated in one of three ways, by its number of elements (rows * width), in this order: replicated, up
    to data_parallel_threshold; its rows over all ranks, from row_slice_threshold on; else whole, or cut by columns into
    pieces of at most column_slice_threshold, and the pieces placed by the strategy. Pieces of a table that land on one
    rank are one shard there. The result depends on the arguments alone, so every rank makes the same plan by itself. A
    rank may stay without tables when there are too few.

    Strategies, published ones first:
      basic: pieces in turn.
      memory_balanced: the largest first, dealt out forwards and backwards: even in number, about even in memory.
      memory_optimized: the largest first, each to the rank with the least memory.
      balanced: memory, elements fetched and elements sent, together. A threshold that is not given is its to choose: it
        cuts columns as balance needs it, rows only where no cut by columns makes a piece that one rank can hold, and
        replicates a table when that moves less than an exchange of its vectors does.
    With the published strategies a threshold that is not given means: do not; but columns are cut if there are fewer
    tables than ranks. For rowwise_adagrad no columns are cut: it keeps one number a row, and needs the whole row.

    Args:
      tables: the model's tables, names unique.
      world_size: number of ranks. One rank holds whole tables, whatever the thresholds.
      strategy: as above.
      hotness: feature -> ids per sample, the mean of them where they vary; 1 for a feature that is not named.
      optimizer: a key of STATE.
      batch_size: global; `balanced` replicates no table without it.

    Raises:
      PlanError: an argument is out of range, a table is named twice, or columns are to be cut for rowwise_adagrad.
    """
    thresholds = (column_slice_threshold, row_slice_threshold, data_parallel_threshold)
    _check(tables, world_size, strategy=strategy, optimizer=optimizer, thresholds=thresholds)
    balanced, hotness = strategy == "balanced", hotness or {}

    def loads(block: Block) -> tuple[float, float, float]:
        return block.loads(hotness, optimizer)

    replicated = []
    if world_size > 1 and balanced and data_parallel_threshold is None and batch_size:
        replicated = [table for table in tables if _cheaper_replicated(table, batch_size, world_size)]
    elif world_size > 1 and data_parallel_threshold:
        replicated = [table for table in tables if table.num_elements <= data_parallel_threshold]
    spread = [table for table in tables if table not in replicated]
    if optimizer == "rowwise_adagrad":
        column_slice_threshold = _NEVER
    much = math.inf
    if balanced and row_slice_threshold is None:
        much = 2 * sum(table.num_bytes for table in spread) / world_size
    narrowest = placement.NARROWEST if column_slice_threshold is None else _NEVER
    blocks = [
        b
        for table in spread
        for b in cut_by_rows(table, world_size, row_slice_threshold=row_slice_threshold, much=much, narrowest=narrowest)
    ]
    if balanced:
        # On every rank the whole of a replicated table, and the lookups of the rank's own samples.
        shared = np.sum([loads(Block(table)) for table in replicated] or [(0, 0, 0)], axis=0)
        placed = np.tile(shared * (1, 1 / world_size, 0), (world_size, 1))
        columns = dealt_balanced(blocks, placed, threshold=column_slice_threshold, loads=loads)
    else:
        columns = dealt_published(blocks, world_size, strategy=strategy, threshold=column_slice_threshold)
    shards: dict[str, list[Shard]] = {table.name: [] for table in tables}
    for block, of_ranks in zip(blocks, columns, strict=True):
        shards[block.table.name] += _shards(block, of_ranks)
    for table in replicated:
        whole = (0, table.num_rows), (0, table.embedding_dim)
        shards[table.name] = [Shard(table.name, rank, *whole) for rank in range(world_size)]
    in_order = tuple(shard for group in shards.values() for shard in group)
    return ShardingPlan(world_size, in_order, frozenset(table.name for table in replicated))


def samples_of_rank(global_batch: int, world_size: int, rank: int) -> tuple[int, int]:
    """The samples [start, stop) of a global batch that belong to `rank`: the first (B mod N) ranks take one more."""
    each, extra = divmod(global_batch, world_size)
    start = rank * each + min(rank, extra)
    return start, start + each + (rank < extra)


def check_whole_rows(plan: ShardingPlan, tables: Sequence[TableConfig]) -> None:
    """Raises PlanError if the plan splits the columns of a table, with which rowwise_adagrad cannot work."""
    for table in tables:
        if any(shard.num_columns < table.embedding_dim for shard in plan.of_table(table.name)):
            raise PlanError(
                f"table {table.name!r}: the plan splits its columns, but rowwise_adagrad keeps one number a row, for "
                "which it needs the whole row. Split the table by rows, or use adagrad."
            )


def _shards(block: Block, columns: Mapping[int, int]) -> list[Shard]:
    """The rectangles of a block, side by side in the order of the ranks."""
    shards, start = [], 0
    for rank in sorted(columns):
        stop = start + columns[rank]
        shards.append(Shard(block.table.name, rank, rows=block.span, columns=(start, stop)))
        start = stop
    assert start == block.table.embedding_dim
    return shards


def _cheaper_replicated(table: TableConfig, batch_size: int, world_size: int) -> bool:
    """Whether a step moves much less if the table is replicated.

    Then every rank sends the gradients of the rows it used to all others, at most rows * (world_size - 1); else vectors
    of all its samples travel to it and their gradients back.
    """
    exchanged = 2 * batch_size / world_size * len(table.features)
    return table.num_rows * (world_size - 1) * _REPLICATED_GAIN <= exchanged


def _check(
    tables: Sequence[TableConfig], world_size: int, *, strategy: str, optimizer: str, thresholds: Sequence[int | None]
) -> None:
    names = [table.name for table in tables]
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise PlanError(f"table {twice!r} is there twice. Give each table a name of its own.")
    if world_size < 1:
        raise PlanError(f"world_size {world_size}: there must be at least one rank.")
    if strategy not in STRATEGIES:
        raise PlanError(f"strategy {strategy!r}: it must be one of {', '.join(STRATEGIES)}.")
    if optimizer not in STATE:
        raise PlanError(f"optimizer {optimizer!r}: it must be one of {', '.join(STATE)}.")
    for name, threshold in zip(("column_slice", "row_slice", "data_parallel"), thresholds, strict=True):
        if threshold is not None and threshold < (name != "data_parallel"):
            raise PlanError(f"{name}_threshold {threshold}: it is a number of elements, and must be positive.")
    if optimizer == "rowwise_adagrad" and thresholds[0] is not None:
        raise PlanError(
            f"column_slice_threshold {thresholds[0]}: rowwise_adagrad keeps one number a row and needs the whole row. "
            "Use row_slice_threshold, or adagrad."
        )


def _grouped(shards: Sequence[Shard], attribute: str) -> dict:
    groups = defaultdict(list)
    for shard in shards:
        groups[getattr(shard, attribute)].append(shard)
    return {key: tuple(group) for key, group in groups.items()}
