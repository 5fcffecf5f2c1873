"""IdInput: the ids that a rank is given, and their way to the ranks that hold their rows."""

from collections.abc import Collection, Mapping, Sequence

import tensorflow as tf

from dlrm_tf2.embedding.bags import BagReader
from dlrm_tf2.embedding.collectives import Collectives
from dlrm_tf2.embedding.dynamic.key_exchange import KeyExchange
from dlrm_tf2.embedding.id_exchange import ExchangedIds, IdExchange
from dlrm_tf2.embedding.ids import RankIds, pack_ids, signature_of
from dlrm_tf2.embedding.routes import Routes
from dlrm_tf2.embedding.row_exchange import RowExchange


class IdInput:
    """The ids of one rank.

    Args:
      collectives: the exchange between the ranks.
      routes: the routes of all features.
      row_exchanges: they request rows by ids and keys.
      weighted: features whose ids have weights.
      dtype: type of the factors of rows.

    Attributes:
      global_features: features whose ids this rank is given for the global batch.
      sample_features: features whose ids this rank is given for its own samples.
    """

    def __init__(
        self,
        collectives: Collectives,
        routes: Routes,
        *,
        row_exchanges: Sequence[RowExchange | KeyExchange],
        weighted: Collection[str],
        dtype: tf.DType,
    ):
        self._collectives, self._layout, self._weighted, self._dtype = collectives, routes.layout, weighted, dtype
        self._row_exchanges, self._id_exchange = row_exchanges, None
        self.global_features = () if routes.data_parallel_input else routes.pooled_by_ranks[collectives.rank]
        self.sample_features = routes.sample_features
        self._bags = BagReader(self._layout, self.sample_features, dtype)
        if routes.data_parallel_input and any(routes.pooled_by_ranks):
            self._id_exchange = IdExchange(
                collectives, self._layout, features=self.sample_features, features_of_ranks=routes.pooled_by_ranks
            )

    def pack(
        self,
        global_ids: Mapping[str, object] | None,
        local_ids: Mapping[str, object] | None,
        *,
        global_batch: int | None,
        global_weights: Mapping[str, object] | None,
        local_weights: Mapping[str, object] | None,
    ) -> RankIds:
        """As DistributedEmbedding.ids."""
        if self._collectives.world_size == 1 and not global_ids:  # its samples are all samples
            global_ids, global_weights = local_ids, local_weights
        packed = pack_ids(
            global_ids or {},
            global_weights or {},
            features=self.global_features,
            layout=self._layout,
            weighted=self._weighted,
            num_samples=global_batch,
        )
        of_samples = pack_ids(
            local_ids or {},
            local_weights or {},
            features=self.sample_features,
            layout=self._layout,
            weighted=self._weighted,
            num_samples=self._collectives.own_samples(packed.num_samples),
        )
        return RankIds(packed, of_samples)

    @property
    def signature(self) -> RankIds:
        """The tf.TensorSpecs of ids, without weights."""
        return RankIds(*(signature_of(names, self._layout) for names in (self.global_features, self.sample_features)))

    @property
    def is_exchanged(self) -> bool:
        """Whether ids travel between the ranks."""
        return bool(self._id_exchange or self._row_exchanges)

    def exchange(self, ids: RankIds) -> ExchangedIds:
        """Brings the ids to the ranks that hold their rows. Differentiable by their weights."""
        global_ids, local_ids = ids
        if self._id_exchange:
            global_ids = self._id_exchange(local_ids, global_ids.num_samples)
        requests = []
        for exchange in self._row_exchanges:
            bags = {feature: self._bags(local_ids, feature) for feature in exchange.features}
            requests.append(exchange.request(bags, local_ids.num_samples, self._dtype))
        return ExchangedIds(global_ids, local_ids, requests)
