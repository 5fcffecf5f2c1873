"""RowExchange: rows of tables for this rank's own samples. Ids go out, rows come back and are pooled here.

Serves two kinds of features: those whose table is cut by rows (every id goes to the one rank that has its row), and
*deduplicated* ones, whose rows are requested once however often an id occurs: then only different rows travel, and
their gradients are summed before they travel back. Ranks that share a host request these rows in common.
"""

from collections.abc import Collection, Mapping

import tensorflow as tf

from dlrm_tf2.embedding.bags import Bags, SlabRows, bags_in, joined_factors
from dlrm_tf2.embedding.collectives import Collectives
from dlrm_tf2.embedding.host_ranks import HostRanks
from dlrm_tf2.embedding.relay import Relay
from dlrm_tf2.embedding.result_layout import Piece, ResultLayout
from dlrm_tf2.embedding.routes import Fetch
from dlrm_tf2.embedding.row_fetch import RowFetch, RowRequests
from dlrm_tf2.sharding.plan import ShardingPlan
from dlrm_tf2.sharding.slabs import by_slab, first_rows


class RowExchange:
    """Fetches rows from slabs of one kind for some features.

    Args:
      collectives: the exchange between the ranks.
      plan: which rank holds what.
      layout: the columns of the result.
      fetch: the features to serve, the kind of slab to fetch from, and whether each row is requested once.
      weighted: features whose ids have weights.

    Attributes:
      kind: the kind of slab.
      pieces: the pieces that the result of `fetch` holds; of the shards that cut a table by rows only one is here.
      features: the features of the pieces.
      fetch: brings the rows that were requested, and pools them.
    """

    def __init__(
        self,
        collectives: Collectives,
        plan: ShardingPlan,
        *,
        layout: ResultLayout,
        fetch: Fetch,
        weighted: Collection[str],
    ):
        self._collectives, self._layout, self._once = collectives, layout, fetch.once
        self.kind = fetch.kind
        self._name = f"rows_{fetch.kind.name}{'_unique' if fetch.once else ''}"
        relay = Relay(collectives, self._name) if fetch.once and HostRanks(collectives).in_common else None
        self._relay = relay
        self._pieces_of_owners: list[list[Piece]] = []
        self._first_rows = []
        dynamic = {table.name for table in layout.table_of.values() if table.is_dynamic}
        for rank in relay.owners if relay else range(collectives.world_size):
            shards = by_slab(plan.of_rank(rank), plan).get(fetch.kind, ())
            self._first_rows.append(first_rows(shards, dynamic))
            self._pieces_of_owners.append(layout.pieces(shards, fetch.features))
        by_start = {piece.start: piece for pieces in self._pieces_of_owners for piece in pieces}
        self.pieces = list(by_start.values())
        self.features = tuple(dict.fromkeys(piece.feature for piece in self.pieces))
        self.fetch = RowFetch(
            collectives,
            self._name,
            width=self.kind.width,
            num_pieces=len(self.pieces),
            has_weights=any(feature in weighted for feature in self.features),
            relay=relay,
        )
        self._number = {start: number for number, start in enumerate(by_start)}

    def request(self, bags: Mapping[str, Bags], num_samples: tf.Tensor, dtype: tf.DType) -> RowRequests:
        """Requests rows from all ranks; every rank learns which rows it is to serve.

        Args:
          bags: feature -> the ids of this rank's samples, for all of `features`.
          num_samples: samples of this rank.
          dtype: type of the factors.
        """
        parts, relayed = list[SlabRows](), ()
        requested, row_of_id, counts = [], [], []
        for pieces, first in zip(self._pieces_of_owners, self._first_rows, strict=True):
            of_owner = [self._part(piece, bags[piece.feature], first[piece.shard]) for piece in pieces]
            rows = tf.concat([tf.zeros([0], tf.int64), *(part.rows for part in of_owner)], axis=0)
            place = tf.range(tf.size(rows))
            if self._once:
                rows, place = tf.unique(rows)
            row_of_id.append(place + sum(counts, tf.constant(0)))
            counts.append(tf.size(rows))
            requested.append(rows)
            parts += of_owner
        rows, num_requested, factors = tf.concat(requested, axis=0), tf.stack(counts), joined_factors(parts, dtype)
        if self._relay:
            rows, num_requested, *relayed = self._relay.request(rows, num_requested)
        served, num_served = self._collectives.all_to_all_counted(rows, splits=num_requested, name=f"{self._name}.ids")
        return RowRequests(
            num_requested,
            num_served,
            served_rows=served,
            row_of_id=tf.concat(row_of_id, axis=0),
            vector_of_id=tf.concat([part.vectors for part in parts], axis=0),
            factors=() if factors is None else (factors,),
            num_samples=num_samples,
            relayed=relayed,
        )

    def _part(self, piece: Piece, bags: Bags, first_row: int) -> SlabRows:
        """The ids of a feature that lie in the piece's shard, as rows of the slab of the rank that holds it."""
        ids, samples, factors = bags_in(piece, bags, self._layout)
        vectors = samples * len(self.pieces) + self._number[piece.start]
        return SlabRows(ids - piece.shard.rows[0] + first_row, vectors, factors)
