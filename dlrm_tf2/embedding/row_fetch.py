"""RowFetch: rows travel to the ranks that requested them and are pooled there; their gradients travel back."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import tensorflow as tf

from dlrm_tf2.embedding.collectives import Collectives
from dlrm_tf2.embedding.relay import Relay, Relayed


class RowRequests(NamedTuple):
    """The rows that a rank requests in one step, and the rows that others request from it.

    Attributes:
      num_requested: int32 [ranks], how many rows this rank requests from each rank.
      num_served: int32 [ranks], how many rows each rank requests from this rank.
      served_rows: int64 [sum(num_served)], these rows, as rows of this rank's slab.
      row_of_id: int32 [n], for each id of this rank's samples, which of the vectors that arrive is its own.
      vector_of_id: int32 [n], the number of the pooled vector that this row is added to.
      factors: one float [n], the factor of this row; empty where all factors are 1.
      num_samples: scalar int32, the samples of this rank.
      relayed: one Relayed where ranks request rows in common. Then what arrives is what this rank asked others for, and
        not what it requests.
    """

    num_requested: tf.Tensor
    num_served: tf.Tensor
    served_rows: tf.Tensor
    row_of_id: tf.Tensor
    vector_of_id: tf.Tensor
    factors: Sequence[tf.Tensor]
    num_samples: tf.Tensor
    relayed: Sequence[Relayed] = ()


class RowFetch:
    """Fetches rows of slabs of one kind.

    Args:
      collectives: the exchange between the ranks.
      name: part of the names of the collectives.
      width: numbers in a row.
      num_pieces: pooled vectors of a sample.
      has_weights: whether the factors depend on the ids' weights, so that their gradient is wanted.
      relay: for rows that the ranks of a host request in common; None where each rank requests for itself.
    """

    def __init__(
        self,
        collectives: Collectives,
        name: str,
        *,
        width: int,
        num_pieces: int,
        has_weights: bool,
        relay: Relay | None = None,
    ):
        self._collectives, self._name, self._relay = collectives, name, relay
        self._width, self._num_pieces, self._has_weights = width, num_pieces, has_weights

    def __call__(self, rows: tf.Tensor, requests: RowRequests) -> tf.Tensor:
        """The pooled vectors of this rank's samples.

        Args:
          rows: [sum(num_served), width], the vectors of requests.served_rows.

        Returns:
          [local batch, num_pieces * width] of the same type. Differentiable by the rows and the ids' weights.
        """
        num_vectors = requests.num_samples * self._num_pieces
        weights = requests.factors if self._has_weights else ()

        @tf.custom_gradient
        def fetch(rows: tf.Tensor, *weights: tf.Tensor) -> tuple[tf.Tensor, Callable]:
            vectors = tf.gather(self._fetched(rows, requests), requests.row_of_id)
            pooled = tf.math.unsorted_segment_sum(_scaled(vectors, requests), requests.vector_of_id, num_vectors)
            kept = [vectors] if weights else []

            def gradient(upstream: tf.Tensor) -> list[tf.Tensor]:
                by_vector = tf.gather(tf.reshape(upstream, [-1, self._width]), requests.vector_of_id)
                by_id = _scaled(by_vector, requests)
                by_weight = [tf.reduce_sum(_wide(of_ids) * _wide(by_vector), axis=1) for of_ids in kept]
                return [self._returned(by_id, requests, rows.dtype), *by_weight]

            # Not by reshaping to -1: a batch may have no samples.
            result = tf.reshape(pooled, [requests.num_samples, self._num_pieces * self._width])
            return tf.cast(result, rows.dtype), gradient

        return fetch(rows, *weights)

    def _fetched(self, rows: tf.Tensor, requests: RowRequests) -> tf.Tensor:
        """The vectors that arrive at this rank."""
        vectors = self._collectives.all_to_all(rows, splits=requests.num_served, name=self._name)
        if self._relay:
            vectors = self._relay.vectors(vectors, *requests.relayed)
        return vectors

    def _returned(self, by_id: tf.Tensor, requests: RowRequests, dtype: tf.DType) -> tf.Tensor:
        """The gradients of the rows that this rank serves, from gradients by id. They leave the host as dtype."""
        relayed, num_requested = requests.relayed, tf.reduce_sum(requests.num_requested)
        num_rows = tf.reduce_sum(relayed[0].num_asked) if self._relay else num_requested
        by_row = tf.math.unsorted_segment_sum(by_id, requests.row_of_id, num_rows)
        if self._relay:
            by_row = self._relay.sums(by_row, *relayed, num_requested)
        return self._collectives.all_to_all(
            tf.cast(by_row, dtype), splits=requests.num_requested, name=f"{self._name}.gradients"
        )


def _scaled(vectors: tf.Tensor, requests: RowRequests) -> tf.Tensor:
    """Vectors times their factors, in float32 at least: they are about to be added up."""
    wide = _wide(vectors)
    for factors in requests.factors:
        wide *= factors[:, tf.newaxis]
    return wide


def _wide(vectors: tf.Tensor) -> tf.Tensor:
    return tf.cast(vectors, tf.float32) if vectors.dtype.size < 4 else vectors
