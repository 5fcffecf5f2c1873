"""RankLookups: what one rank looks up in its tables, and the exchange that makes the layer's result of it."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import NamedTuple

import tensorflow as tf

from dlrm_tf2.embedding.collectives import Collectives
from dlrm_tf2.embedding.dynamic.batch_keys import BatchKeys
from dlrm_tf2.embedding.dynamic.key_exchange import KeyExchange, KeyRequests
from dlrm_tf2.embedding.dynamic.table import Touch
from dlrm_tf2.embedding.dynamic.tables import DynamicTables
from dlrm_tf2.embedding.exchange_columns import ExchangeColumns
from dlrm_tf2.embedding.id_exchange import ExchangedIds
from dlrm_tf2.embedding.lookup import Fetched, Lookup, SlabLookup, SlabVectors
from dlrm_tf2.embedding.native_rows import (
    InputFeatures,
    NativeLookup,
    NativeRows,
    PooledVectors,
    VectorForm,
    ordered,
)
from dlrm_tf2.embedding.result_layout import Piece
from dlrm_tf2.embedding.routes import Routes
from dlrm_tf2.embedding.row_exchange import RowExchange
from dlrm_tf2.embedding.row_fetch import RowRequests
from dlrm_tf2.embedding.slab import WEIGHTS, Slab
from dlrm_tf2.embedding.vector_exchange import VectorExchange
from dlrm_tf2.sharding.slabs import SlabKind


class LookupSettings(NamedTuple):
    """The settings of the lookups of a layer.

    Attributes:
      weighted: features whose ids have weights.
      form: the type of the vectors, and how many columns the result is to have before them.
      dynamic: the dynamic tables of this rank.
    """

    weighted: Collection[str]
    form: VectorForm
    dynamic: DynamicTables


class RankLookups:
    """The lookups of one rank.

    Args:
      collectives: the exchange between the ranks.
      slabs: the slabs of this rank.
      rows: the native ops on the slabs; None for TensorFlow's ops.
      routes: the routes of all features.
      row_exchanges: they fetch rows from other ranks.
      settings: what else the layer was asked for.

    Attributes:
      leading_columns: columns that the result has before the vectors: as asked, or 0 where there is no room without a
        copy.
    """

    def __init__(
        self,
        collectives: Collectives,
        slabs: Mapping[SlabKind, Slab],
        *,
        rows: NativeRows | None,
        routes: Routes,
        row_exchanges: Sequence[RowExchange | KeyExchange],
        settings: LookupSettings,
    ):
        self._collectives, self._slabs, self._rows, self._routes = collectives, slabs, rows, routes
        self._row_exchanges, self._weighted, self._dtype = row_exchanges, settings.weighted, settings.form.dtype
        self._dynamic = settings.dynamic
        rank, alone = collectives.rank, collectives.world_size == 1
        asked, self.leading_columns = settings.form.leading_columns, 0
        if rows and alone and not routes.replicated:  # the lookup makes the whole result
            self.leading_columns = asked
        self._features = routes.pooled_by_ranks[rank]
        self._batch_keys = BatchKeys(self._dynamic, self._features, layout=routes.layout)
        pooled, replicated = routes.pooled_pieces(rank), routes.replicated_pieces(rank)
        self._pooled = self._lookups(pooled, self._features)
        self._replicated = self._lookups(replicated, routes.sample_features)

        in_order = ordered if rows else lambda pieces: list(chain(*pieces.values()))
        of_ranks = [in_order(routes.pooled_pieces(rank)) for rank in range(collectives.world_size)]
        own = [*in_order(replicated), *chain(*(exchange.pieces for exchange in row_exchanges))]
        width = routes.layout.width
        columns = ExchangeColumns.of(of_ranks, own=own, width=width)
        if not alone or not columns.is_identity:
            columns = ExchangeColumns.of(of_ranks, own=own, width=width, leading_columns=asked)
            self.leading_columns = columns.leading * columns.grain
        on_cpu = not tf.config.get_visible_devices("GPU")
        self._exchange = VectorExchange(collectives, columns, native=rows is not None and on_cpu)

    def __call__(self, ids: ExchangedIds, touch: Touch | None) -> Lookup:
        """Looks up the vectors that this rank makes, for itself and for the other ranks.

        Args:
          touch: what keys of dynamic tables are stored with, in training.
        """
        global_ids, local_ids, requests = ids
        global_ids = self._batch_keys(global_ids, touch)
        pooled = [self._for_wire(lookup(global_ids)) for lookup in self._pooled]
        # A loss must depend on something, so that this rank takes part in the exchanges of gradients: by vectors, and
        # with data-parallel input by weights, also by weights that went to other ranks only.
        no_weights = [weights for feature, weights in global_ids.weights.items() if feature not in self._features]
        if not pooled or no_weights:
            pooled.append(_no_vectors([global_ids.num_samples, 0, 1], self._dtype, made_of=no_weights))
        return Lookup(
            pooled,
            replicated=[self._for_wire(lookup(local_ids)) for lookup in self._replicated],
            fetched=[
                self._serve(exchange, of_exchange, touch=touch)
                for exchange, of_exchange in zip(self._row_exchanges, requests, strict=True)
            ],
        )

    def ask_ahead(self, ids: ExchangedIds) -> None:
        """Asks for the rows of dynamic tables that a later lookup reads, where they are in a file."""
        slots = list(dict.fromkeys(slot for slab in self._slabs.values() for slot in (WEIGHTS, *slab.slots)))
        self._batch_keys.ask_ahead(ids.global_ids, slots)
        for exchange, requests in zip(self._row_exchanges, ids.requests, strict=True):
            if isinstance(exchange, KeyExchange):
                exchange.ask_ahead(requests, self._dynamic, slots=slots)

    def exchange(self, lookup: Lookup) -> tf.Tensor:
        """The vectors of this rank's samples: [local batch, leading_columns + width]. Differentiable."""
        pooled = tf.concat([_flat(part.vectors) for part in lookup.pooled], axis=1)
        own = [_flat(part.vectors) for part in lookup.replicated]
        for exchange, (served, requests) in zip(self._row_exchanges, lookup.fetched, strict=True):
            own.append(exchange.fetch(served.vectors, requests))
        nothing = tf.zeros([self._collectives.own_samples(tf.shape(pooled)[0]), 0], pooled.dtype)
        return self._exchange(pooled, tf.concat([nothing, *own], axis=1))

    def _lookups(
        self, pieces: Mapping[SlabKind, list[Piece]], features: Sequence[str]
    ) -> list[SlabLookup] | list[NativeLookup]:
        """The lookups of some pieces in batches that hold the features."""
        layout = self._routes.layout
        if self._rows and pieces:
            form = VectorForm(self._dtype, self.leading_columns)
            inputs = InputFeatures(features, layout, self._weighted)
            return [NativeLookup(self._rows, pieces, layout=layout, inputs=inputs, form=form)]
        return [
            SlabLookup(self._slabs[kind], of_slab, layout=layout, features=features, weighted=self._weighted)
            for kind, of_slab in pieces.items()
        ]

    def _serve(
        self, exchange: RowExchange | KeyExchange, requests: RowRequests | KeyRequests, *, touch: Touch | None
    ) -> Fetched:
        """Looks up the rows that other ranks request."""
        if isinstance(exchange, KeyExchange):
            requests = exchange.with_rows(requests, self._dynamic, touch=touch)
        if exchange.kind not in self._slabs:
            return Fetched(_no_vectors([0, exchange.kind.width], self._dtype), requests)
        slab = self._slabs[exchange.kind]
        served = SlabVectors(slab, slab.gather(requests.served_rows), rows=requests.served_rows)
        return Fetched(self._for_wire(served), requests)

    def _for_wire(self, part: SlabVectors | PooledVectors) -> SlabVectors | PooledVectors:
        return replace(part, vectors=tf.cast(part.vectors, self._dtype))


def _no_vectors(shape: Sequence[tf.Tensor | int], dtype: tf.DType, *, made_of: Sequence[tf.Tensor] = ()) -> SlabVectors:
    """Vectors of no slab, without elements; made of tensors that have none either."""
    nothing = tf.concat([tf.zeros([0], dtype), *(tf.cast(tensor, dtype) for tensor in made_of)], axis=0)
    return SlabVectors(None, tf.reshape(nothing, shape), rows=tf.zeros([0], tf.int64))


def _flat(vectors: tf.Tensor) -> tf.Tensor:
    """[samples, pieces, width] -> [samples, pieces * width]; [samples, columns] stays."""
    if vectors.shape.rank == 2:
        return vectors
    return tf.reshape(vectors, [tf.shape(vectors)[0], vectors.shape[1] * vectors.shape[2]])
