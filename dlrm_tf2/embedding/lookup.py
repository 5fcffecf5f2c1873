"""SlabLookup: ids -> pooled vectors, for all pieces of one slab.

One gather serves all pieces and writes the vectors of a sample side by side, the form in which the exchange and the
interaction want them.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import tensorflow as tf

from dlrm_tf2.embedding.ids import IdBatch, bags_in, bags_of
from dlrm_tf2.embedding.result_columns import Layout, Piece
from dlrm_tf2.embedding.slab import Slab


@dataclass(frozen=True)
class Pooled:
    """What SlabLookup did with a batch: enough to bring a gradient back to the rows.

    Attributes:
      rows: int64 [n], the rows of the slab that were read.
      bags: int32 [n], which of the samples * pieces vectors each went into; None: row i is vector i.
      factors: float [n] with which factor; None for 1.
    """

    rows: tf.Tensor
    bags: tf.Tensor | None = None
    factors: tf.Tensor | None = None

    def by_row(self, gradient: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The rows of the slab, and their gradients [n, width], from [samples, pieces, width], of the vectors."""
        by_bag = tf.reshape(gradient, [-1, gradient.shape[-1]])
        by_row = by_bag if self.bags is None else tf.gather(by_bag, self.bags)
        return self.rows, by_row if self.factors is None else by_row * self.factors[:, tf.newaxis]


class SlabLookup:
    """Ids -> pooled vectors of some pieces, all in one slab.

    Args:
      slab: where the pieces' shards are.
      pieces: in the order that the vectors of a sample are to have.
      layout: of the features.
      features: the order of the features in the batches to come.
      weighted: features whose ids have weights.
    """

    def __init__(
        self, slab: Slab, pieces: Sequence[Piece], *, layout: Layout, features: Sequence[str], weighted: Collection[str]
    ):
        self._slab, self._pieces, self._layout = slab, tuple(pieces), layout
        self._columns = layout.fixed_columns(features)
        self._num_columns = sum(column.stop - column.start for column in self._columns.values())
        # The row in the slab of a piece's id i is i + offset.
        self._offsets = [slab.first_rows[piece.shard] - piece.shard.rows[0] for piece in pieces]
        self._one_id_each = all(self._has_one_id(piece, weighted) for piece in pieces)

    def __call__(self, batch: IdBatch) -> tuple[tf.Tensor, Pooled]:
        """The vectors [samples, pieces, width] in the type of the weights, and how they came about."""
        with self._slab.device():
            return self._looked_up(batch)

    def _looked_up(self, batch: IdBatch) -> tuple[tf.Tensor, Pooled]:
        if self._one_id_each:
            columns = [self._columns[piece.feature].start + (piece.position or 0) for piece in self._pieces]
            in_order = columns == list(range(self._num_columns))
            ids = batch.fixed if in_order else tf.gather(batch.fixed, columns, axis=1)
            rows = tf.cast(ids, tf.int64) + tf.constant(self._offsets, tf.int64)
            return self._slab.gather(rows), Pooled(tf.reshape(rows, [-1]))
        parts = [self._part(batch, number) for number in range(len(self._pieces))]
        rows, bags = (tf.concat([part[i] for part in parts], axis=0) for i in range(2))
        factors = None
        if any(part[2] is not None for part in parts):
            dtype = self._slab.variable.dtype
            factors = tf.concat([tf.ones(tf.shape(r), dtype) if f is None else f for r, _, f in parts], axis=0)
        vectors = self._slab.gather(rows)
        if factors is not None:
            vectors *= factors[:, tf.newaxis]
        shape = tf.shape(batch.fixed)[0], len(self._pieces), self._slab.width
        pooled = tf.math.unsorted_segment_sum(vectors, bags, shape[0] * shape[1])
        return tf.reshape(pooled, shape), Pooled(rows, bags, factors)

    def _has_one_id(self, piece: Piece, weighted: Collection[str]) -> bool:
        """Whether every sample has exactly one id for this piece, and it lies in its shard."""
        table = self._layout.table_of[piece.feature]
        one = piece.position is not None or self._layout.hotness[piece.feature] == 1
        return one and piece.feature not in weighted and piece.shard.rows == (0, table.num_rows)

    def _part(self, batch: IdBatch, number: int) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor | None]:
        """(rows of the slab, bags, factors) of the ids that are for this piece."""
        piece = self._pieces[number]
        bags = bags_of(
            batch, piece.feature, layout=self._layout, columns=self._columns, dtype=self._slab.variable.dtype
        )
        ids, samples, factors = bags_in(piece, bags, self._layout)
        return ids + self._offsets[number], samples * len(self._pieces) + number, factors
