"""IdExchange: the ids of a rank's samples go to the ranks that hold their tables."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from dlrm_tf2.embedding.collectives import Collectives
from dlrm_tf2.embedding.ids import IdBatch
from dlrm_tf2.embedding.result_layout import ResultLayout
from dlrm_tf2.embedding.row_exchange import RowRequests


class ExchangedIds(NamedTuple):
    """The ids of a global batch after their exchange. Its tensors depend on no weight.

    Attributes:
      global_ids: the features that this rank looks up for all samples.
      local_ids: the features in DistributedEmbedding.sample_features, for the samples of this rank.
      requests: one for each RowExchange.
    """

    global_ids: IdBatch
    local_ids: IdBatch
    requests: Sequence[RowRequests]


class IdExchange:
    """Turns the ids of this rank's samples into the ids of the global batch for this rank's tables.

    Args:
      collectives: the exchange between the ranks.
      layout: the columns of the result.
      features: the features of the batches, in this order.
      features_of_ranks: for each rank, the features whose ids it gets, in this order.
    """

    def __init__(
        self,
        collectives: Collectives,
        layout: ResultLayout,
        *,
        features: Sequence[str],
        features_of_ranks: Sequence[Sequence[str]],
    ):
        self._collectives, self._features_of_ranks = collectives, features_of_ranks
        columns = layout.fixed_columns(features)
        # For each rank, the columns of IdBatch.fixed that it gets.
        self._columns = [
            np.array([c for name in wanted if name in columns for c in range(*columns[name].indices(2**31))], np.int32)
            for wanted in features_of_ranks
        ]
        self._hotness = layout.hotness
        self._sent = [feature for feature in features if any(feature in wanted for wanted in features_of_ranks)]

    def __call__(self, batch: IdBatch, global_batch: tf.Tensor) -> IdBatch:
        """The ids for this rank's tables, of all samples."""
        columns = self._columns
        fixed = tf.zeros([global_batch, 0], batch.fixed.dtype)
        if any(len(of_rank) for of_rank in columns):
            by_rank = [tf.reshape(tf.gather(batch.fixed, of_rank, axis=1), [-1]) for of_rank in columns]
            splits = batch.num_samples * tf.constant([len(of_rank) for of_rank in columns])
            received = self._collectives.all_to_all(tf.concat(by_rank, axis=0), splits=splits, name="ids")
            fixed = tf.reshape(received, [global_batch, len(columns[self._collectives.rank])])
        ragged, weights = {}, {}
        for feature in self._sent:
            # A rank that does not get the feature takes part all the same, and receives nothing.
            is_wanted = feature in self._features_of_ranks[self._collectives.rank]
            if self._hotness[feature] is None:
                values, lengths = batch.ragged[feature]
                received = self._to_owners(feature, values, "ids"), self._to_owners(feature, lengths, "row_lengths")
                if is_wanted:
                    ragged[feature] = received
            if feature in batch.weights:
                received = self._to_owners(feature, batch.weights[feature], "weights")
                if is_wanted:
                    weights[feature] = received
        return IdBatch(fixed, ragged, weights)

    def _to_owners(self, feature: str, values: tf.Tensor, name: str) -> tf.Tensor:
        """Sends the values to every rank that gets this feature; returns the values of all ranks, if this is one."""
        owners = np.array([feature in wanted for wanted in self._features_of_ranks], np.int32)
        splits = tf.size(values) * owners
        copies = tf.tile(values, [int(owners.sum())])
        return self._collectives.all_to_all(copies, splits=splits, name=f"{name}.{feature}")
