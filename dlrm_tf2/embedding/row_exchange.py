"""Rows of tables fetched for this rank's own samples: ids go out, rows come back, and are pooled where the samples are.

Serves features whose table is split by rows (every id goes to the one rank that has its row) and features whose ids
are asked for once however often they occur (*deduplicated*): then only different rows travel, and their gradients are
summed before they travel back.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import tensorflow as tf

from dlrm_tf2.embedding.exchange import all_to_all
from dlrm_tf2.embedding.ids import Bags, bags_in
from dlrm_tf2.embedding.result_columns import Layout, Piece
from dlrm_tf2.runtime.comm import Comm
from dlrm_tf2.sharding.plan import ShardingPlan
from dlrm_tf2.sharding.slabs import SlabKind, by_slab, first_rows


@dataclass(frozen=True)
class Requests:
    """What a rank asks for in one step, and what it is asked for.

    Attributes:
      splits: int32 [ranks], how many rows it asks each rank for.
      asked: int32 [ranks], how many rows each rank asks it for.
      asked_rows: int64 [sum(asked)], the rows of its slab that those are.
      fetched: int32 [n], for each id of its samples, which of the fetched rows is its vector.
      bags: int32 [n], which vector of the result that row goes into.
      factors: float [n], with which factor; None for 1.
      num_samples: of this rank.
    """

    splits: tf.Tensor
    asked: tf.Tensor
    asked_rows: tf.Tensor
    fetched: tf.Tensor
    bags: tf.Tensor
    factors: tf.Tensor | None
    num_samples: tf.Tensor

    def by_row(self, gradient: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The rows of the slab, and their gradients [n, width], which is how they come back."""
        return self.asked_rows, gradient


class RowExchange:
    """Fetches rows from slabs of one kind for some features.

    Args:
      comm: the ranks.
      plan, layout: where the tables are, and what becomes of the features.
      features: those to serve.
      kind: of the slabs to fetch from.
      once: ask for each row once.

    Attributes:
      pieces: what the result holds; those of the shards that split a table by rows are one.
      features: those of them that such slabs serve.
    """

    def __init__(
        self, comm: Comm, plan: ShardingPlan, *, layout: Layout, features: Sequence[str], kind: SlabKind, once: bool
    ):
        self._comm, self._layout, self._width, self._once = comm, layout, kind.width, once
        self._name = f"rows_{kind.name}{'_unique' if once else ''}"
        self._pieces_of_ranks: list[list[Piece]] = []
        self._first_rows = []
        for rank in range(comm.size):
            mine = by_slab(plan.of_rank(rank), plan).get(kind, ())
            self._first_rows.append(first_rows(mine))
            self._pieces_of_ranks.append(layout.pieces(mine, features))
        by_start = {piece.start: piece for pieces in self._pieces_of_ranks for piece in pieces}
        self.pieces = list(by_start.values())
        self.features = tuple(feature for feature in features if any(p.feature == feature for p in self.pieces))
        self._number = {start: number for number, start in enumerate(by_start)}

    def request(self, bags: Mapping[str, Bags], num_samples: tf.Tensor, dtype: tf.DType) -> Requests:
        """Asks the other ranks for rows: they learn which, and this rank which it is asked for.

        Args:
          bags: the ids of this rank's samples, by feature.
          dtype: of the factors.
        """
        rows, fetched, places, factors, splits = [], [], [], [], []
        weighted = any(bags[piece.feature].factors is not None for piece in self.pieces)
        for pieces, first in zip(self._pieces_of_ranks, self._first_rows, strict=True):
            parts = [self._part(piece, bags[piece.feature], first[piece.shard]) for piece in pieces]
            of_rank = tf.concat([tf.zeros([0], tf.int64), *(part[0] for part in parts)], axis=0)
            order = tf.range(tf.size(of_rank))
            if self._once:
                of_rank, order = tf.unique(of_rank)
            fetched.append(order + sum(splits, tf.constant(0)))
            splits.append(tf.size(of_rank))
            rows.append(of_rank)
            places += [part[1] for part in parts]
            if weighted:
                factors += [tf.ones(tf.shape(part[0]), dtype) if part[2] is None else part[2] for part in parts]
        splits = tf.stack(splits)
        asked = all_to_all(self._comm, splits, splits=tf.ones_like(splits), name=f"{self._name}.splits")
        return Requests(
            splits,
            asked,
            asked_rows=all_to_all(self._comm, tf.concat(rows, axis=0), splits=splits, name=f"{self._name}.ids"),
            fetched=tf.concat(fetched, axis=0),
            bags=tf.concat(places, axis=0),
            factors=tf.concat(factors, axis=0) if weighted else None,
            num_samples=num_samples,
        )

    def fetch(self, rows: tf.Tensor, requests: Requests) -> tf.Tensor:
        """The pooled vectors of this rank's samples.

        Args:
          rows: [sum(asked), width], those of this rank's slab that it is asked for.

        Returns:
          [local batch, len(pieces) * width] of the same type. Differentiable.
        """
        count = requests.num_samples * len(self.pieces)

        @tf.custom_gradient
        def fetch(rows: tf.Tensor) -> tuple[tf.Tensor, Callable]:
            fetched = all_to_all(self._comm, rows, splits=requests.asked, name=self._name)
            vectors = self._scaled(tf.gather(fetched, requests.fetched), requests)
            pooled = tf.math.unsorted_segment_sum(vectors, requests.bags, count)

            def gradient(upstream: tf.Tensor) -> tf.Tensor:
                by_bag = tf.reshape(upstream, [-1, self._width])
                by_id = self._scaled(tf.gather(by_bag, requests.bags), requests)
                by_row = tf.math.unsorted_segment_sum(by_id, requests.fetched, tf.reduce_sum(requests.splits))
                return all_to_all(
                    self._comm, tf.cast(by_row, rows.dtype), splits=requests.splits, name=f"{self._name}.gradients"
                )

            # Not by reshaping to -1: a batch may have no samples.
            result = tf.reshape(pooled, [requests.num_samples, len(self.pieces) * self._width])
            return tf.cast(result, rows.dtype), gradient

        return fetch(rows)

    def _part(self, piece: Piece, bags: Bags, first_row: int) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor | None]:
        """(rows of the owner's slab, bags, factors) of the ids of a feature that lie in the piece's shard."""
        ids, samples, factors = bags_in(piece, bags, self._layout)
        places = samples * len(self.pieces) + self._number[piece.start]
        return ids - piece.shard.rows[0] + first_row, places, factors

    def _scaled(self, vectors: tf.Tensor, requests: Requests) -> tf.Tensor:
        """Vectors times their factors, in float32 at least: they are about to be added up."""
        wide = tf.cast(vectors, tf.float32) if vectors.dtype.size < 4 else vectors
        return wide if requests.factors is None else wide * requests.factors[:, tf.newaxis]
