"""The route that each feature's vectors take from the tables to the samples. No TensorFlow, no communication.

- *replicated*: every rank has the feature's table, and looks up the ids of the rank's own samples.
- *pooled*: the ranks that hold the table look up the ids of all samples, pool the vectors and send them.
- *fetched*: the ranks that have the samples request rows, and pool the rows themselves. With data-parallel input: for
  tables cut by rows, whose ids then go to one rank each, and for features whose ids are deduplicated. With any input:
  for dynamic tables on several ranks.
"""

from collections.abc import Collection
from typing import NamedTuple

from dlrm_tf2.embedding.result_layout import Piece, ResultLayout
from dlrm_tf2.sharding.plan import ShardingPlan
from dlrm_tf2.sharding.slabs import SlabKind, by_slab


class Fetch(NamedTuple):
    """Features whose rows are fetched from slabs of one kind.

    Attributes:
      once: a rank requests each row once for all of its samples, and not once for each id.
      by_key: the tables are dynamic.
    """

    features: tuple[str, ...]
    kind: SlabKind
    once: bool
    by_key: bool = False


class Routes:
    """The routes of all features, the same on every rank.

    Args:
      plan: which rank holds what.
      layout: the columns of the result.
      data_parallel_input: every rank has all features of its own samples.
      deduplicated: features whose rows are fetched once.

    Attributes:
      layout, data_parallel_input: as given.
      replicated: the features that take this route, in the order of the layout.
      dynamic: the features of dynamic tables.
      sample_features: the features whose ids a rank has for its own samples.
      pooled_by_ranks: for each rank, the features that it looks up for all samples.
      fetches: the features that are fetched, grouped by slab.
    """

    def __init__(
        self, plan: ShardingPlan, layout: ResultLayout, *, data_parallel_input: bool, deduplicated: Collection[str]
    ):
        self._plan, self.layout, self.data_parallel_input = plan, layout, data_parallel_input
        table_of = {feature: table.name for feature, table in layout.table_of.items()}
        self.replicated = tuple(feature for feature, table in table_of.items() if table in plan.replicated)
        self.dynamic = tuple(feature for feature, table in layout.table_of.items() if table.is_dynamic)
        by_key = self.dynamic if plan.world_size > 1 else ()
        self.sample_features = tuple(
            feature for feature in table_of if data_parallel_input or feature in (*self.replicated, *by_key)
        )
        cut_by_rows = {table for table in table_of.values() if len({shard.rows for shard in plan.of_table(table)}) > 1}
        fetched = [
            feature
            for feature, table in table_of.items()
            if data_parallel_input
            and feature not in (*self.replicated, *self.dynamic)
            and (table in cut_by_rows or feature in deduplicated)
        ]
        self._pooled = frozenset(table_of) - {*self.replicated, *fetched, *by_key}
        self.pooled_by_ranks = []
        for rank in range(plan.world_size):
            looked_up = {piece.feature for pieces in self.pooled_pieces(rank).values() for piece in pieces}
            self.pooled_by_ranks.append(tuple(feature for feature in table_of if feature in looked_up))
        self.fetches = []
        for once in (False, True):
            features = tuple(feature for feature in fetched if (feature in deduplicated) == once)
            self.fetches += [Fetch(features, kind, once) for kind in self._kinds_of(features)]
        self.fetches += [Fetch(by_key, kind, once=True, by_key=True) for kind in self._kinds_of(by_key)]

    def pooled_pieces(self, rank: int) -> dict[SlabKind, list[Piece]]:
        """The pieces that a rank looks up for all samples, slab by slab."""
        return self._pieces(rank, self._pooled)

    def replicated_pieces(self, rank: int) -> dict[SlabKind, list[Piece]]:
        """The pieces that a rank looks up in its copies of replicated tables, slab by slab."""
        return self._pieces(rank, self.replicated)

    def _kinds_of(self, features: Collection[str]) -> list[SlabKind]:
        """The kinds of the slabs that the features look up in, on any rank."""
        tables = {self.layout.table_of[feature].name for feature in features}
        return list(by_slab((shard for shard in self._plan.shards if shard.table in tables), self._plan))

    def _pieces(self, rank: int, features: Collection[str]) -> dict[SlabKind, list[Piece]]:
        slabs = by_slab(self._plan.of_rank(rank), self._plan)
        pieces = {kind: self.layout.pieces(shards, features) for kind, shards in slabs.items()}
        return {kind: of_slab for kind, of_slab in pieces.items() if of_slab}
