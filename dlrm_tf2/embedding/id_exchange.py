"""IdExchange: the ids of a rank's samples go to the ranks that hold their tables."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from dlrm_tf2.embedding.collectives import Collectives
from dlrm_tf2.embedding.dynamic.key_exchange import KeyRequests
from dlrm_tf2.embedding.ids import IdBatch
from dlrm_tf2.embedding.result_layout import ResultLayout
from dlrm_tf2.embedding.row_fetch import RowRequests


class ExchangedIds(NamedTuple):
    """The ids of a global batch after their exchange. Its tensors depend on no weight.

    Attributes:
      global_ids: the features that this rank looks up for all samples.
      local_ids: the features in DistributedEmbedding.sample_features, for the samples of this rank.
      requests: one for each RowExchange, then one for each KeyExchange.
    """

    global_ids: IdBatch
    local_ids: IdBatch
    requests: Sequence[RowRequests | KeyRequests]


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
        ragged = {}
        for feature in self._sent:
            if self._hotness[feature] is None:
                # A rank that does not get the feature takes part all the same, and receives nothing.
                values, lengths = batch.ragged[feature]
                received = self._to_owners(feature, values, "ids"), self._to_owners(feature, lengths, "row_lengths")
                if feature in self._features_of_ranks[self._collectives.rank]:
                    ragged[feature] = received
        return IdBatch(fixed, ragged, self._exchanged_weights(batch))

    def _exchanged_weights(self, batch: IdBatch) -> dict[str, tf.Tensor]:
        """The weights of the ids; none of a feature that this rank does not get. Differentiable.

        It is one function of all weights, so that in a backward pass all ranks make the same exchanges in one order.
        """
        features = [feature for feature in self._sent if feature in batch.weights]
        if not features:
            return {}

        @tf.custom_gradient
        def exchange(*weights: tf.Tensor) -> tuple[list[tf.Tensor], Callable]:
            named = list(zip(features, weights, strict=True))

            def gradient(*upstream: tf.Tensor) -> list[tf.Tensor]:
                pairs = zip(named, upstream, strict=True)
                return [self._from_owners(*one, gradient=tf.convert_to_tensor(part)) for one, part in pairs]

            return [self._to_owners(*one, "weights") for one in named], gradient

        return dict(zip(features, exchange(*(batch.weights[feature] for feature in features)), strict=True))

    def _to_owners(self, feature: str, values: tf.Tensor, name: str) -> tf.Tensor:
        """Sends the values to every rank that gets this feature; returns the values of all ranks, if this is one."""
        owners = self._owners(feature)
        splits = tf.size(values) * owners
        copies = tf.tile(values, [int(owners.sum())])
        return self._collectives.all_to_all(copies, splits=splits, name=f"{name}.{feature}")

    def _from_owners(self, feature: str, values: tf.Tensor, *, gradient: tf.Tensor) -> tf.Tensor:
        """The way back of `_to_owners`: the gradient of `values`, summed over the ranks that got them."""
        owners, all_to_all = self._owners(feature), self._collectives.all_to_all
        counts = all_to_all(tf.size(values) * owners, splits=tf.ones_like(owners), name=f"weight_counts.{feature}")
        returned = all_to_all(gradient, splits=counts, name=f"weight_gradients.{feature}")
        return tf.reduce_sum(tf.reshape(returned, [int(owners.sum()), tf.size(values)]), axis=0)

    def _owners(self, feature: str) -> np.ndarray:
        """int32 [ranks]: 1 for a rank that gets the feature, else 0."""
        return np.array([feature in wanted for wanted in self._features_of_ranks], np.int32)
