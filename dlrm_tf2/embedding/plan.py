"""Which rank holds which part of which table: pure Python, no TensorFlow, no communication.

A shard is a rectangle of one table on one rank. The shards of a table tile it exactly once, except those of a
replicated table: every rank holds all of it.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from dlrm_tf2.embedding.tables import FLOAT_BYTES, TableConfig


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
    """

    world_size: int
    shards: tuple[Shard, ...]
    replicated: frozenset[str] = frozenset()

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
    tables: Sequence[TableConfig], world_size: int, hotness: Mapping[str, float] | None = None
) -> ShardingPlan:
    """Places whole tables so that weight bytes, and then the vectors each rank looks up, are balanced.

    The largest table first, each goes to the rank on which the larger of the two shares of the load (bytes of weights,
    elements looked up per sample) stays smallest. The result depends on its arguments alone, so every rank makes the
    same plan by itself. A rank may stay without tables when there are more ranks than tables.

    Args:
      tables: the model's tables, names unique.
      world_size: number of ranks.
      hotness: feature -> ids per sample, the mean of them where they vary; 1 for a feature that is not named.
    """
    hotness = hotness or {}
    assert len({table.name for table in tables}) == len(tables), "table names are unique"
    total_bytes = sum(table.num_bytes for table in tables) or 1
    total_fetched = sum(_fetched(table, hotness) for table in tables) or 1
    weight_bytes, fetched = [0] * world_size, [0] * world_size
    rank_of: dict[str, int] = {}
    for table in sorted(tables, key=lambda table: (-table.num_bytes, table.name)):

        def load_with(rank: int, table: TableConfig = table) -> tuple[float, float, int]:
            shares = (
                (weight_bytes[rank] + table.num_bytes) / total_bytes,
                (fetched[rank] + _fetched(table, hotness)) / total_fetched,
            )
            return max(shares), sum(shares), rank

        best = min(range(world_size), key=load_with)
        rank_of[table.name] = best
        weight_bytes[best] += table.num_bytes
        fetched[best] += _fetched(table, hotness)
    return ShardingPlan(
        world_size,
        tuple(
            Shard(table.name, rank_of[table.name], (0, table.num_rows), (0, table.embedding_dim)) for table in tables
        ),
    )


def samples_of_rank(global_batch: int, world_size: int, rank: int) -> tuple[int, int]:
    """The samples [start, stop) of a global batch that belong to `rank`: the first (B mod N) ranks take one more."""
    each, extra = divmod(global_batch, world_size)
    start = rank * each + min(rank, extra)
    return start, start + each + (rank < extra)


def _fetched(table: TableConfig, hotness: Mapping[str, float]) -> float:
    """Elements looked up in the table per sample."""
    return sum(hotness.get(feature, 1) for feature in table.features) * table.embedding_dim


def _grouped(shards: Sequence[Shard], attribute: str) -> dict:
    groups = defaultdict(list)
    for shard in shards:
        groups[getattr(shard, attribute)].append(shard)
    return {key: tuple(group) for key, group in groups.items()}
