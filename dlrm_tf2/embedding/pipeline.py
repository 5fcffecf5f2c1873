"""Pipeline: the ids of the next batch travel while a batch is computed, and rows in files are asked for.

One graph holds the computing of a batch and the exchange of the next batch's ids. No operation of one needs a result of
the other, so TensorFlow and Horovod run both at the same time. A batch gets the same bits as without a pipeline: the
exchange of ids reads no table, and asking for rows moves none. The last batch of a pass is followed by a batch without
samples, on all ranks alike.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

import tensorflow as tf

from dlrm_tf2.embedding.id_exchange import ExchangedIds
from dlrm_tf2.embedding.ids import RankIds
from dlrm_tf2.embedding.layer import DistributedEmbedding

Batch = TypeVar("Batch")


class Pipeline:
    """Compiles the computing of a batch once, and runs it for batch after batch. All ranks must make the same calls.

    Args:
      embedding: the tables.
      compute: (ids, *inputs) -> a tensor; `ids` are for DistributedEmbedding.lookup.
      inputs: the tf.TensorSpecs of the inputs.
      ahead: exchange ids ahead, and ask for rows. Without effect where the ranks exchange no ids and no rows are in
        files.
    """

    def __init__(
        self,
        embedding: DistributedEmbedding,
        compute: Callable[..., tf.Tensor],
        *,
        inputs: Sequence[tf.TensorSpec],
        ahead: bool,
    ):
        self._embedding, self._compute, self._exchange = embedding, compute, None
        self._waiting: tuple[RankIds, ExchangedIds] | None = None  # the ids of a batch, before and after their exchange
        ids = embedding.signature
        if not ahead or not (embedding.exchanges_ids or embedding.has_tiers):
            self._compiled = tf.function(compute, input_signature=[ids, *inputs])
            return
        self._exchange = tf.function(embedding.exchange_ids, input_signature=[ids])
        exchanged = self._exchange.get_concrete_function().structured_outputs
        exchanged = tf.nest.map_structure(lambda tensor: tf.TensorSpec(tensor.shape, tensor.dtype), exchanged)
        self._compiled = tf.function(self._compute_and_exchange, input_signature=[exchanged, ids, *inputs])
        self._no_ids = tf.nest.map_structure(lambda spec: tf.zeros([0, *spec.shape[1:]], spec.dtype), ids)

    def with_next(self, batches: Iterable[Batch]) -> Iterator[tuple[Batch, Batch | None]]:
        """Each batch with the batch after it, which is None for the last one, and for all where no ids go ahead."""
        if self._exchange is None:
            return ((batch, None) for batch in batches)
        return itertools.pairwise(itertools.chain(batches, [None]))

    def __call__(self, ids: RankIds, next_ids: RankIds | None, *inputs: object) -> tf.Tensor:
        """The result of `compute` for a batch.

        Args:
          ids: the ids of the batch. If an earlier call had the same object as next_ids, their exchange is done.
          next_ids: the ids of the batch that is computed next, on all ranks or on none; None exchanges nothing ahead.
          inputs: the other inputs.
        """
        if self._exchange is None:
            return self._compiled(ids, *inputs)
        waiting, self._waiting = self._waiting, None
        exchanged = waiting[1] if waiting and waiting[0] is ids else self._exchange(ids)
        result, next_exchanged = self._compiled(exchanged, self._no_ids if next_ids is None else next_ids, *inputs)
        if next_ids is not None:
            self._waiting = next_ids, next_exchanged
        return result

    def _compute_and_exchange(
        self, ids: ExchangedIds, next_ids: RankIds, *inputs: tf.Tensor
    ) -> tuple[tf.Tensor, ExchangedIds]:
        next_exchanged = self._embedding.exchange_ids(next_ids)  # traced first, as ExchangeTimer needs it
        result = self._compute(ids, *inputs)
        if self._embedding.has_tiers:  # traced last, so that it comes after the lookup, whose new keys it then finds
            self._embedding.ask_ahead(next_exchanged)
        return result, next_exchanged
