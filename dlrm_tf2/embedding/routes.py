"""Which way each feature's vectors take from the tables to the samples. No TensorFlow, no communication.

- *own*: its table is replicated, and every rank looks up the ids of its own samples in its own copy.
- *pooled*: the ranks that hold its table look up the ids of all samples and send vectors.
- *fetched*: the ranks that have the samples ask for rows, and pool them themselves. For tables cut by rows, whose ids
  then go to one rank each, and for features whose ids are deduplicated; with data-parallel input only.
"""

from collections.abc import Collection
from typing import NamedTuple

from dlrm_tf2.embedding.result_columns import Layout, Piece
from dlrm_tf2.sharding.plan import ShardingPlan
from dlrm_tf2.sharding.slabs import SlabKind, by_slab


class Fetching(NamedTuple):
    """Features whose rows are fetched from slabs of one kind, for each id or `once` for all samples of a rank."""

    features: tuple[str, ...]
    kind: SlabKind
    once: bool


class Routes:
    """The same on every rank.

    Args:
      plan: where the tables are.
      layout: of the result.
      data_parallel_input: every rank has all features of its own samples.
      deduplicated: features to fetch each row of once.

    Attributes:
      own: the features that go this way, in the order of the layout.
      pooled_by_ranks: for each rank, the features that it looks up for all samples.
      fetchings: what is fetched.
    """

    def __init__(self, plan: ShardingPlan, layout: Layout, *, data_parallel_input: bool, deduplicated: Collection[str]):
        self._plan, self._layout = plan, layout
        table_of = {feature: table.name for feature, table in layout.table_of.items()}
        self.own = tuple(feature for feature, table in table_of.items() if table in plan.replicated)
        by_rows = {table for table in table_of.values() if len({shard.rows for shard in plan.of_table(table)}) > 1}
        fetched = [
            feature
            for feature, table in table_of.items()
            if data_parallel_input and feature not in self.own and (table in by_rows or feature in deduplicated)
        ]
        self._pooled = frozenset(table_of) - {*self.own, *fetched}
        self.pooled_by_ranks = [
            tuple(f for f in table_of if any(p.feature == f for pieces in of_rank.values() for p in pieces))
            for of_rank in map(self.pooled_pieces, range(plan.world_size))
        ]
        self.fetchings = []
        for once in (False, True):
            features = tuple(feature for feature in fetched if (feature in deduplicated) == once)
            tables = {table_of[feature] for feature in features}
            for kind in by_slab((shard for shard in plan.shards if shard.table in tables), plan):
                self.fetchings.append(Fetching(features, kind, once))

    def pooled_pieces(self, rank: int) -> dict[SlabKind, list[Piece]]:
        """What a rank looks up for all samples, slab by slab."""
        return self._pieces(rank, self._pooled)

    def own_pieces(self, rank: int) -> dict[SlabKind, list[Piece]]:
        """What a rank looks up in its copies of replicated tables."""
        return self._pieces(rank, self.own)

    def _pieces(self, rank: int, features: Collection[str]) -> dict[SlabKind, list[Piece]]:
        slabs = by_slab(self._plan.of_rank(rank), self._plan)
        pieces = {kind: self._layout.pieces(shards, features) for kind, shards in slabs.items()}
        return {kind: found for kind, found in pieces.items() if found}
