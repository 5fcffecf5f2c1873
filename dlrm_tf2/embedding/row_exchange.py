"""RowExchange: rows of tables for this rank's own samples. Ids go out, rows come back and are pooled here.

Serves two kinds of features: those whose table is cut by rows (every id goes to the one rank that has its row), and
*deduplicated* ones, whose rows are requested once however often an id occurs: then only different rows travel, and
their gradients are summed before they travel back.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple

import tensorflow as tf

from dlrm_tf2.embedding.bags import Bags, SlabRows, bags_in, joined_factors
from dlrm_tf2.embedding.collectives import Collectives
from dlrm_tf2.embedding.result_layout import Piece, ResultLayout
from dlrm_tf2.embedding.routes import Fetch
from dlrm_tf2.sharding.plan import ShardingPlan
from dlrm_tf2.sharding.slabs import by_slab, first_rows


class RowRequests(NamedTuple):
    """The rows that a rank requests in one step, and the rows that others request from it.

    Attributes:
      num_requested: int32 [ranks], how many rows this rank requests from each rank.
      num_served: int32 [ranks], how many rows each rank requests from this rank.
      served_rows: int64 [sum(num_served)], these rows, as rows of this rank's slab.
      row_of_id: int32 [n], for each id of this rank's samples, which of the requested rows is its vector.
      vector_of_id: int32 [n], the number of the pooled vector that this row is added to.
      factors: one float [n], the factor of this row; empty where all factors are 1.
      num_samples: scalar int32, the samples of this rank.
    """

    num_requested: tf.Tensor
    num_served: tf.Tensor
    served_rows: tf.Tensor
    row_of_id: tf.Tensor
    vector_of_id: tf.Tensor
    factors: Sequence[tf.Tensor]
    num_samples: tf.Tensor


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
        self.kind, self._width = fetch.kind, fetch.kind.width
        self._name = f"rows_{fetch.kind.name}{'_unique' if fetch.once else ''}"
        self._pieces_of_ranks: list[list[Piece]] = []
        self._first_rows = []
        for rank in range(collectives.world_size):
            shards = by_slab(plan.of_rank(rank), plan).get(fetch.kind, ())
            self._first_rows.append(first_rows(shards))
            self._pieces_of_ranks.append(layout.pieces(shards, fetch.features))
        by_start = {piece.start: piece for pieces in self._pieces_of_ranks for piece in pieces}
        self.pieces = list(by_start.values())
        self.features = tuple(dict.fromkeys(piece.feature for piece in self.pieces))
        self._has_weights = any(feature in weighted for feature in self.features)
        self._number = {start: number for number, start in enumerate(by_start)}

    def request(self, bags: Mapping[str, Bags], num_samples: tf.Tensor, dtype: tf.DType) -> RowRequests:
        """Requests rows from all ranks; every rank learns which rows it is to serve.

        Args:
          bags: feature -> the ids of this rank's samples, for all of `features`.
          num_samples: samples of this rank.
          dtype: type of the factors.
        """
        name, parts = self._name, list[SlabRows]()
        requested, row_of_id, num_requested = [], [], []
        for pieces, first in zip(self._pieces_of_ranks, self._first_rows, strict=True):
            of_rank = [self._part(piece, bags[piece.feature], first[piece.shard]) for piece in pieces]
            rows = tf.concat([tf.zeros([0], tf.int64), *(part.rows for part in of_rank)], axis=0)
            place = tf.range(tf.size(rows))
            if self._once:
                rows, place = tf.unique(rows)
            row_of_id.append(place + sum(num_requested, tf.constant(0)))
            num_requested.append(tf.size(rows))
            requested.append(rows)
            parts += of_rank
        num_requested, factors = tf.stack(num_requested), joined_factors(parts, dtype)
        return RowRequests(
            num_requested,
            num_served=self._collectives.all_to_all(
                num_requested, splits=tf.ones_like(num_requested), name=f"{name}.splits"
            ),
            served_rows=self._collectives.all_to_all(
                tf.concat(requested, axis=0), splits=num_requested, name=f"{name}.ids"
            ),
            row_of_id=tf.concat(row_of_id, axis=0),
            vector_of_id=tf.concat([part.vectors for part in parts], axis=0),
            factors=() if factors is None else (factors,),
            num_samples=num_samples,
        )

    def fetch(self, rows: tf.Tensor, requests: RowRequests) -> tf.Tensor:
        """The pooled vectors of this rank's samples.

        Args:
          rows: [sum(num_served), width], the vectors of requests.served_rows.

        Returns:
          [local batch, len(pieces) * width] of the same type. Differentiable by the rows and the ids' weights.
        """
        name, num_vectors = self._name, requests.num_samples * len(self.pieces)
        weights = requests.factors if self._has_weights else ()

        @tf.custom_gradient
        def fetch(rows: tf.Tensor, *weights: tf.Tensor) -> tuple[tf.Tensor, Callable]:
            fetched = self._collectives.all_to_all(rows, splits=requests.num_served, name=name)
            vectors = tf.gather(fetched, requests.row_of_id)
            pooled = tf.math.unsorted_segment_sum(self._scaled(vectors, requests), requests.vector_of_id, num_vectors)
            kept = [vectors] if weights else []

            def gradient(upstream: tf.Tensor) -> list[tf.Tensor]:
                by_vector = tf.gather(tf.reshape(upstream, [-1, self._width]), requests.vector_of_id)
                by_id = self._scaled(by_vector, requests)
                num_rows = tf.reduce_sum(requests.num_requested)
                by_row = tf.math.unsorted_segment_sum(by_id, requests.row_of_id, num_rows)
                by_row = self._collectives.all_to_all(
                    tf.cast(by_row, rows.dtype), splits=requests.num_requested, name=f"{name}.gradients"
                )
                by_weight = [tf.reduce_sum(_wide(of_ids) * _wide(by_vector), axis=1) for of_ids in kept]
                return [by_row, *by_weight]

            # Not by reshaping to -1: a batch may have no samples.
            result = tf.reshape(pooled, [requests.num_samples, len(self.pieces) * self._width])
            return tf.cast(result, rows.dtype), gradient

        return fetch(rows, *weights)

    def _part(self, piece: Piece, bags: Bags, first_row: int) -> SlabRows:
        """The ids of a feature that lie in the piece's shard, as rows of the slab of the rank that holds it."""
        ids, samples, factors = bags_in(piece, bags, self._layout)
        vectors = samples * len(self.pieces) + self._number[piece.start]
        return SlabRows(ids - piece.shard.rows[0] + first_row, vectors, factors)

    def _scaled(self, vectors: tf.Tensor, requests: RowRequests) -> tf.Tensor:
        """Vectors times their factors, in float32 at least: they are about to be added up."""
        wide = _wide(vectors)
        for factors in requests.factors:
            wide *= factors[:, tf.newaxis]
        return wide


def _wide(vectors: tf.Tensor) -> tf.Tensor:
    return tf.cast(vectors, tf.float32) if vectors.dtype.size < 4 else vectors
