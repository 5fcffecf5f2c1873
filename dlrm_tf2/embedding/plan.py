"""Which rank holds which part of which table: pure Python, no TensorFlow, no communication.

A shard is a rectangle of one table on one rank. The shards of a table tile it exactly once.
"""

from collections.abc import Sequence
from dataclasses import dataclass

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
    """All shards of all tables, in the order of the tables."""

    world_size: int
    shards: tuple[Shard, ...]

    def of_rank(self, rank: int) -> tuple[Shard, ...]:
        """The shards that `rank` holds, in the order of the tables."""
        return tuple(shard for shard in self.shards if shard.rank == rank)

    def of_table(self, table: str) -> tuple[Shard, ...]:
        return tuple(shard for shard in self.shards if shard.table == table)

    def bytes_of(self, rank: int) -> int:
        """Bytes of the weights on `rank`."""
        return sum(shard.num_bytes for shard in self.of_rank(rank))


def make_plan(tables: Sequence[TableConfig], world_size: int) -> ShardingPlan:
    """Places whole tables so that weight bytes, and then the vectors each rank looks up, are balanced.

    The largest table first, each goes to the rank on which the larger of the two shares of the load (bytes of weights,
    elements looked up per sample) stays smallest. The result depends on its arguments alone, so every rank makes the
    same plan by itself. A rank may stay without tables when there are more ranks than tables.

    Args:
      tables: the model's tables, names unique.
      world_size: number of ranks.
    """
    assert len({table.name for table in tables}) == len(tables), "table names are unique"
    total_bytes = sum(table.num_bytes for table in tables) or 1
    total_fetched = sum(_fetched(table) for table in tables) or 1
    weight_bytes, fetched = [0] * world_size, [0] * world_size
    rank_of: dict[str, int] = {}
    for table in sorted(tables, key=lambda table: (-table.num_bytes, table.name)):

        def load_with(rank: int, table: TableConfig = table) -> tuple[float, float, int]:
            shares = (
                (weight_bytes[rank] + table.num_bytes) / total_bytes,
                (fetched[rank] + _fetched(table)) / total_fetched,
            )
            return max(shares), sum(shares), rank

        best = min(range(world_size), key=load_with)
        rank_of[table.name] = best
        weight_bytes[best] += table.num_bytes
        fetched[best] += _fetched(table)
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


def _fetched(table: TableConfig) -> int:
    """Elements looked up in the table per sample."""
    return len(table.features) * table.embedding_dim
