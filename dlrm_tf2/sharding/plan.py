"""Which rank holds which part of which table.

A shard is a rectangle of one table on one rank. The shards of a table cover it exactly once. A replicated table is the
exception: every rank holds all of it.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from dlrm_tf2.sharding.blocks import Block, Columns, cut_by_rows, deal_columns
from dlrm_tf2.sharding.dynamic_tables import DynamicTableConfig, bucket_rows
from dlrm_tf2.sharding.optimizer_state import DEFAULT_OPTIMIZER
from dlrm_tf2.sharding.plan_rules import DEFAULT_STRATEGY, STRATEGIES, PlanError, PlanRules
from dlrm_tf2.sharding.tables import DEFAULT_TABLE_DTYPE, WEIGHT_BYTES, Table

__all__ = ["STRATEGIES", "PlanError", "Shard", "ShardingPlan", "check_whole_rows", "make_plan", "samples_of_rank"]

# `balanced` replicates a table if exchanging its vectors moves at least so many times what replication moves.
_REPLICATED_GAIN = 2


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
    def num_elements(self) -> int:
        return self.num_rows * self.num_columns


@dataclass(frozen=True)
class ShardingPlan:
    """Which rank holds what.

    Attributes:
      world_size: number of ranks.
      shards: the shards of all ranks, in the order of the tables. A table is spread (its shards cover it exactly once:
        whole, by rows, by columns or both) or replicated (one shard on each rank, each of them the whole table).
      replicated: names of the replicated tables.
      on_host: the shards that a rank with a GPU keeps in the memory of its host; no replicated table is among them.
      table_dtype: type of the weights, a key of WEIGHT_BYTES. It decides nothing but bytes.
    """

    world_size: int
    shards: tuple[Shard, ...]
    replicated: frozenset[str] = frozenset()
    on_host: frozenset[Shard] = frozenset()
    table_dtype: str = DEFAULT_TABLE_DTYPE

    def of_rank(self, rank: int) -> tuple[Shard, ...]:
        """The shards that `rank` holds, in the order of the tables."""
        return self._by_rank.get(rank, ())

    def of_table(self, table: str) -> tuple[Shard, ...]:
        """The shards of a table."""
        return self._by_table.get(table, ())

    def bytes_of(self, rank: int) -> int:
        """Bytes of the weights on `rank`."""
        return self.num_bytes(self.of_rank(rank))

    def num_bytes(self, shards: Iterable[Shard]) -> int:
        """Bytes of the weights of some shards."""
        return WEIGHT_BYTES[self.table_dtype] * sum(shard.num_elements for shard in shards)

    @cached_property
    def _by_rank(self) -> dict[int, tuple[Shard, ...]]:
        groups = defaultdict(list)
        for shard in self.shards:
            groups[shard.rank].append(shard)
        return {rank: tuple(group) for rank, group in groups.items()}

    @cached_property
    def _by_table(self) -> dict[str, tuple[Shard, ...]]:
        groups = defaultdict(list)
        for shard in self.shards:
            groups[shard.table].append(shard)
        return {table: tuple(group) for table, group in groups.items()}


def make_plan(
    tables: Sequence[Table],
    world_size: int,
    *,
    strategy: str = DEFAULT_STRATEGY,
    hotness: Mapping[str, float] | None = None,
    optimizer: str = DEFAULT_OPTIMIZER,
    batch_size: int | None = None,
    column_slice_threshold: int | None = None,
    row_slice_threshold: int | None = None,
    data_parallel_threshold: int | None = None,
    table_dtype: str = DEFAULT_TABLE_DTYPE,
) -> ShardingPlan:
    """Decides which rank holds what, in three steps: which tables are replicated, cuts by rows, cuts by columns.

    The number of elements of a table (rows * width) decides, in this order: up to data_parallel_threshold the table is
    replicated; from row_slice_threshold on its rows are spread over all ranks; else it is whole, or cut by columns into
    pieces of at most column_slice_threshold, which the strategy places. Pieces of a table that land on one rank are one
    shard there. A dynamic table, of any size, is spread over all ranks by its buckets. The result depends on the
    arguments alone, so every rank makes the same plan by itself. A rank has no shard if there are too few.

    The strategies, published ones first:
      basic: pieces in turn.
      memory_balanced: the largest first, dealt out forwards and backwards: even in number, about even in memory.
      memory_optimized: the largest first, each to the rank with the least memory.
      balanced: memory, elements fetched and elements sent, together. It chooses each threshold that is not given: it
        cuts columns as balance needs it, cuts rows only where no cut by columns makes a piece that one rank can hold,
        and replicates a table when that moves less than an exchange of its vectors does.
    With the published strategies, a threshold that is not given means never; but columns are cut if there are fewer
    tables than ranks. For rowwise_adagrad no columns are cut: it keeps one number a row, and needs the whole row.

    Args:
      tables: the model's tables, names unique.
      world_size: number of ranks. One rank holds whole tables, with any thresholds.
      strategy: one of STRATEGIES.
      hotness: feature -> ids per sample, the mean where their number varies; 1 for a feature that is not in it.
      optimizer: the optimizer's name, a key of OPTIMIZERS.
      batch_size: global batch size; without it `balanced` replicates no table.
      column_slice_threshold, row_slice_threshold, data_parallel_threshold: in elements, see above.
      table_dtype: type of the weights, a key of WEIGHT_BYTES.

    Raises:
      PlanError: an argument is out of range, two tables have one name, or columns are to be cut for rowwise_adagrad.
    """
    rules = PlanRules(
        world_size,
        strategy,
        hotness=hotness or {},
        optimizer=optimizer,
        batch_size=batch_size,
        column_slice_threshold=column_slice_threshold,
        row_slice_threshold=row_slice_threshold,
        data_parallel_threshold=data_parallel_threshold,
        table_dtype=table_dtype,
    )
    rules.check(tables)
    replicated = [table for table in tables if _is_replicated(table, rules)]
    names = frozenset(table.name for table in replicated)
    blocks = cut_by_rows([table for table in tables if table.name not in names], rules)
    columns = deal_columns(blocks, replicated, rules)

    shards: dict[str, list[Shard]] = {table.name: [] for table in tables}
    for block, of_ranks in zip(blocks, columns, strict=True):
        shards[block.table.name] += _shards_of(block, of_ranks)
    for table in replicated:
        shards[table.name] = [_whole(table, rank) for rank in range(world_size)]
    all_shards = tuple(shard for group in shards.values() for shard in group)
    return ShardingPlan(world_size, all_shards, names, table_dtype=table_dtype)


def samples_of_rank(global_batch: int, world_size: int, rank: int) -> tuple[int, int]:
    """The samples [start, stop) of a global batch that belong to `rank`: the first (B mod N) ranks have one more."""
    each, extra = divmod(global_batch, world_size)
    start = rank * each + min(rank, extra)
    return start, start + each + (rank < extra)


def check_tables(plan: ShardingPlan, tables: Iterable[Table], world_size: int) -> None:
    """Raises ValueError if the plan is for another number of ranks or for other tables."""
    if plan.world_size != world_size:
        raise ValueError(f"the plan is for {plan.world_size} ranks, but this job has {world_size}. Make another plan.")
    for table in tables:
        copies = world_size if table.name in plan.replicated else 1
        elements = sum(shard.num_rows * shard.num_columns for shard in plan.of_table(table.name))
        if elements != copies * table.num_elements:
            raise ValueError(
                f"table {table.name!r}: it has {table.num_elements} elements, but its shards in the plan have "
                f"{elements // copies}. Make the plan for the same tables."
            )
        if isinstance(table, DynamicTableConfig):
            shards, columns = plan.of_table(table.name), (0, table.embedding_dim)
            of_ranks = bucket_rows(table, world_size).items()
            expected = [Shard(table.name, rank, rows=rows, columns=columns) for rank, rows in of_ranks]
            elsewhere = table.name in plan.replicated or plan.on_host.intersection(shards)
            if elsewhere or list(shards) != expected:
                raise ValueError(
                    f"table {table.name!r}: it is dynamic, and each rank must hold the rows of the buckets that the "
                    "rank owns, without offloading. Make the plan with make_plan."
                )


def check_whole_rows(plan: ShardingPlan, tables: Iterable[Table]) -> None:
    """Raises PlanError if the plan splits the columns of a table, with which rowwise_adagrad cannot work."""
    for table in tables:
        if any(shard.num_columns < table.embedding_dim for shard in plan.of_table(table.name)):
            raise PlanError(
                f"table {table.name!r}: the plan splits its columns, but rowwise_adagrad keeps one number a row, for "
                "which it needs the whole row. Split the table by rows, or use adagrad."
            )


def _is_replicated(table: Table, rules: PlanRules) -> bool:
    if rules.world_size == 1 or table.is_dynamic:
        return False
    if rules.data_parallel_threshold is not None:
        return table.num_elements <= rules.data_parallel_threshold
    return bool(rules.balanced and rules.batch_size) and _is_cheaper_replicated(table, rules)


def _is_cheaper_replicated(table: Table, rules: PlanRules) -> bool:
    """Whether a step moves much less if the table is replicated.

    Replicated, every rank sends the gradients of the rows that it used to all others, at most rows * (world_size - 1).
    Spread, the vectors of all samples of a rank travel to it, and their gradients travel back.
    """
    exchanged = 2 * (rules.batch_size or 0) / rules.world_size * len(table.features)
    return table.num_rows * (rules.world_size - 1) * _REPLICATED_GAIN <= exchanged


def _whole(table: Table, rank: int) -> Shard:
    return Shard(table.name, rank, rows=(0, table.num_rows), columns=(0, table.embedding_dim))


def _shards_of(block: Block, columns: Columns) -> list[Shard]:
    """The rectangles of a block, side by side in the order of the ranks."""
    shards, start = [], 0
    for rank in sorted(columns):
        stop = start + columns[rank]
        shards.append(Shard(block.table.name, rank, rows=block.rows, columns=(start, stop)))
        start = stop
    assert start == block.table.embedding_dim
    return shards
