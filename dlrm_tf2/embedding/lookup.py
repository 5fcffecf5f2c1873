"""SlabLookup: ids -> pooled vectors, for all pieces of one slab; and the records of what a step has looked up.

One gather serves all pieces and writes the vectors of a sample side by side, the form in which the exchange and the
interaction want them.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import tensorflow as tf

from dlrm_tf2.embedding.bags import BagReader, SlabRows, bags_in, joined_factors
from dlrm_tf2.embedding.ids import IdBatch
from dlrm_tf2.embedding.native_rows import PooledVectors
from dlrm_tf2.embedding.result_layout import Piece, ResultLayout
from dlrm_tf2.embedding.row_fetch import RowRequests
from dlrm_tf2.embedding.slab import Slab


@dataclass(frozen=True)
class SlabVectors:
    """Vectors that come from the rows of one slab, and how a gradient gets back to these rows.

    Attributes:
      slab: the slab; None if this rank has none, and then there are no rows.
      vectors: [..., width], the vectors.
      rows: int64 [n], the rows of the slab that were read.
      vector_of_row: int32 [n], the number of the vector that each row was added to; None where row i is vector i.
      factors: float [n], the factor of each row; None for 1.
    """

    slab: Slab | None
    vectors: tf.Tensor
    rows: tf.Tensor
    vector_of_row: tf.Tensor | None = None
    factors: tf.Tensor | None = None

    def row_gradients(self, gradient: tf.Tensor) -> tf.Tensor:
        """The gradients [n, width] of `rows`.

        Args:
          gradient: the gradient of `vectors`, of the same shape.
        """
        by_vector = tf.reshape(gradient, [-1, gradient.shape[-1]])
        by_row = by_vector if self.vector_of_row is None else tf.gather(by_vector, self.vector_of_row)
        return by_row if self.factors is None else by_row * self.factors[:, tf.newaxis]


class Fetched(NamedTuple):
    """Rows that this rank serves for one RowExchange, and what the exchange needs to bring them to the samples."""

    served: SlabVectors
    requests: RowRequests


@dataclass(frozen=True)
class Lookup:
    """What DistributedEmbedding.lookup returns: vectors of this rank's tables, by their route (embedding/routes.py).

    Attributes:
      pooled: vectors [global batch, pieces, width] for the samples of all ranks, by slab; from the native lookup
        [global batch, columns], of all slabs.
      replicated: the same for the local batch, from replicated tables.
      fetched: one for each RowExchange.
    """

    pooled: list[SlabVectors | PooledVectors]
    replicated: list[SlabVectors | PooledVectors]
    fetched: list[Fetched]

    @property
    def parts(self) -> list[SlabVectors | PooledVectors]:
        """All of them, in one fixed order."""
        return [*self.pooled, *self.replicated, *(served for served, _ in self.fetched)]

    @property
    def vectors(self) -> list[tf.Tensor]:
        """The tensors that the loss is differentiated by. Their number and shapes depend on the plan."""
        return [part.vectors for part in self.parts]


class SlabLookup:
    """Looks up some pieces, all in one slab.

    Args:
      slab: the slab that holds the shards of the pieces.
      pieces: the pieces, in the order that the vectors of a sample are to have.
      layout: the columns of the result.
      features: the features of the batches, in this order.
      weighted: features whose ids have weights.
    """

    def __init__(
        self,
        slab: Slab,
        pieces: Sequence[Piece],
        *,
        layout: ResultLayout,
        features: Sequence[str],
        weighted: Collection[str],
    ):
        self._slab, self._pieces, self._layout = slab, tuple(pieces), layout
        self._bags = BagReader(layout, features, slab.compute_dtype)
        # Id i of a piece is row i + offset of the slab.
        self._offsets = [slab.first_rows[piece.shard] - piece.shard.rows[0] for piece in pieces]
        # Where every piece has exactly one id a sample: the columns of IdBatch.fixed, if not all of them in order.
        self._id_columns = None
        self._one_id_each = all(self._has_one_id(piece, weighted) for piece in pieces)
        if self._one_id_each:
            of_feature = self._bags.columns
            columns = [of_feature[piece.feature].start + (piece.position or 0) for piece in pieces]
            num_columns = sum(column.stop - column.start for column in of_feature.values())
            self._id_columns = None if columns == list(range(num_columns)) else columns

    def __call__(self, batch: IdBatch) -> SlabVectors:
        """The vectors [samples, pieces, width], in the slab's compute_dtype."""
        with self._slab.device():
            return self._single_rows(batch) if self._one_id_each else self._pooled_rows(batch)

    def _single_rows(self, batch: IdBatch) -> SlabVectors:
        ids = batch.fixed if self._id_columns is None else tf.gather(batch.fixed, self._id_columns, axis=1)
        rows = tf.cast(ids, tf.int64) + tf.constant(self._offsets, tf.int64)
        return SlabVectors(self._slab, self._slab.gather(rows), rows=tf.reshape(rows, [-1]))

    def _pooled_rows(self, batch: IdBatch) -> SlabVectors:
        parts = [self._part(batch, number) for number in range(len(self._pieces))]
        rows = tf.concat([part.rows for part in parts], axis=0)
        vector_of_row = tf.concat([part.vectors for part in parts], axis=0)
        factors = joined_factors(parts, self._slab.compute_dtype)
        vectors = self._slab.gather(rows)
        if factors is not None:
            vectors *= factors[:, tf.newaxis]
        shape = batch.num_samples, len(self._pieces), self._slab.width
        pooled = tf.math.unsorted_segment_sum(vectors, vector_of_row, shape[0] * shape[1])
        return SlabVectors(
            self._slab, tf.reshape(pooled, shape), rows=rows, vector_of_row=vector_of_row, factors=factors
        )

    def _part(self, batch: IdBatch, number: int) -> SlabRows:
        """The rows of the slab that are for piece `number`."""
        piece = self._pieces[number]
        bags = bags_in(piece, self._bags(batch, piece.feature), self._layout)
        return SlabRows(bags.ids + self._offsets[number], bags.samples * len(self._pieces) + number, bags.factors)

    def _has_one_id(self, piece: Piece, weighted: Collection[str]) -> bool:
        """Whether every sample has exactly one id for this piece, and this id lies in its shard."""
        num_rows = self._layout.table_of[piece.feature].num_rows
        one = piece.position is not None or self._layout.hotness[piece.feature] == 1
        return one and piece.feature not in weighted and piece.shard.rows == (0, num_rows)
