"""KeyExchange: keys of dynamic tables for this rank's own samples. Keys go out, rows come back and are pooled here.

A rank sends each different key of a table once, with the number of its occurrences, to the rank that owns the key's
bucket. Which row a key has is decided there, and only in `lookup`: an exchange of keys may run before the update of the
batch before.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from dlrm_tf2.embedding.bags import Bags, SlabRows, bags_in, joined_factors
from dlrm_tf2.embedding.collectives import Collectives
from dlrm_tf2.embedding.dynamic.table import Touch
from dlrm_tf2.embedding.dynamic.tables import DynamicTables
from dlrm_tf2.embedding.result_layout import ResultLayout
from dlrm_tf2.embedding.routes import Fetch
from dlrm_tf2.embedding.row_fetch import RowFetch, RowRequests
from dlrm_tf2.ops import hash_table
from dlrm_tf2.ops.repeat import repeat_each
from dlrm_tf2.sharding.dynamic_tables import DynamicTableConfig
from dlrm_tf2.sharding.plan import ShardingPlan
from dlrm_tf2.sharding.slabs import by_slab


class KeyRequests(NamedTuple):
    """The keys whose rows a rank requests in one step, and the keys that others request from it.

    Attributes:
      rows: what is known of the rows; its served_rows are the keys that are served: int64 [n], ordered by the rank that
        requests them, then by table.
      counts: int64 [n], how often the requesting rank has each key.
      num_of_tables: int32 [ranks, tables], how many keys of each table each rank requests from this rank.
    """

    rows: RowRequests
    counts: tf.Tensor
    num_of_tables: tf.Tensor


class KeyExchange:
    """Fetches rows of dynamic tables from slabs of one kind.

    Args:
      collectives: the exchange between the ranks.
      plan: which rank holds what.
      layout: the columns of the result.
      fetch: the features to serve, and the kind of slab to fetch from.
      weighted: features whose ids have weights.

    Attributes:
      kind: the kind of slab.
      pieces: the pieces that the result of `fetch` holds; of the shards of a table only one is here.
      features: the features of the pieces.
      fetch: brings the rows that were requested, and pools them.
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
        self._collectives, self._layout, self.kind = collectives, layout, fetch.kind
        self._name = f"keys_{fetch.kind.name}"
        shards = by_slab(plan.shards, plan)[fetch.kind]
        self.pieces = list({piece.start: piece for piece in layout.pieces(shards, fetch.features)}.values())
        self.features = tuple(dict.fromkeys(piece.feature for piece in self.pieces))
        self.fetch = RowFetch(
            collectives,
            self._name,
            width=fetch.kind.width,
            num_pieces=len(self.pieces),
            has_weights=any(feature in weighted for feature in self.features),
        )
        self._tables = {table.name: table for table in (layout.table_of[feature] for feature in self.features)}
        self._owners = {name: _owners(table, plan) for name, table in self._tables.items()}

    def request(self, bags: Mapping[str, Bags], num_samples: tf.Tensor, dtype: tf.DType) -> KeyRequests:
        """Requests the rows of keys from their owners; every rank learns which keys it is to serve.

        Args:
          bags: feature -> the keys of this rank's samples, for all of `features`.
          num_samples: samples of this rank.
          dtype: type of the factors.
        """
        parts, keys, counts, places, receivers = [], [], [], [], []
        for number, table in enumerate(self._tables):
            of_table = [
                self._part(position, bags[piece.feature])
                for position, piece in enumerate(self.pieces)
                if piece.shard.table == table
            ]
            different = tf.unique_with_counts(tf.concat([part.rows for part in of_table], axis=0))
            owners = self._owners[table]
            owner = tf.gather(owners, hash_table.bucket_of(different.y, len(owners)))
            places.append(different.idx + sum(map(tf.size, keys), tf.constant(0)))
            keys.append(different.y)
            counts.append(tf.cast(different.count, tf.int64))
            receivers.append(owner * len(self._tables) + number)
            parts += of_table
        receiver = tf.concat(receivers, axis=0)  # rank, then table
        num_tables, ranks = len(self._tables), self._collectives.world_size
        by_receiver = tf.dynamic_partition(tf.range(tf.size(receiver)), receiver, ranks * num_tables)
        order, num_of_tables = tf.concat(by_receiver, axis=0), tf.stack([tf.size(part) for part in by_receiver])
        splits, factors = tf.fill([ranks], num_tables), joined_factors(parts, dtype)
        num_requested = tf.reduce_sum(tf.reshape(num_of_tables, [ranks, num_tables]), axis=1)
        num_served = self._collectives.all_to_all(num_of_tables, splits=splits, name=f"{self._name}.splits")
        num_served = tf.reshape(num_served, [ranks, num_tables])
        sent = tf.stack([tf.concat(keys, axis=0), tf.concat(counts, axis=0)], axis=1)
        served = self._collectives.all_to_all(tf.gather(sent, order), splits=num_requested, name=f"{self._name}.keys")
        rows = RowRequests(
            num_requested,
            num_served=tf.reduce_sum(num_served, axis=1),
            served_rows=served[:, 0],
            row_of_id=tf.gather(tf.math.invert_permutation(order), tf.concat(places, axis=0)),
            vector_of_id=tf.concat([part.vectors for part in parts], axis=0),
            factors=() if factors is None else (factors,),
            num_samples=num_samples,
        )
        return KeyRequests(rows, served[:, 1], num_served)

    def with_rows(self, requests: KeyRequests, tables: DynamicTables, *, touch: Touch | None) -> RowRequests:
        """The requests with rows of this rank's slab in place of keys. One call of the index serves a table.

        Args:
          touch: in training; None stores no key.
        """
        keys, rows, places = requests.rows.served_rows, [], self._places_of_tables(requests)
        for name, of_table in zip(self._tables, places, strict=True):
            found = tf.zeros([0], tf.int64)
            if name in tables.by_name:  # else this rank owns none of its buckets, and nobody asked
                counts = tf.gather(requests.counts, of_table)
                found = tables.by_name[name].rows_of(repeat_each(tf.gather(keys, of_table), counts), touch)
                found = tf.gather(found, tf.cumsum(counts, exclusive=True))
            rows.append(found)
        return requests.rows._replace(served_rows=tf.dynamic_stitch(places, rows))

    def ask_ahead(self, requests: KeyRequests, tables: DynamicTables, *, slots: Sequence[str]) -> None:
        """Asks for the rows of later requests, see DynamicTable.ask_ahead."""
        for name, of_table in zip(self._tables, self._places_of_tables(requests), strict=True):
            if name in tables.by_name:
                tables.by_name[name].ask_ahead(tf.gather(requests.rows.served_rows, of_table), slots)

    def _places_of_tables(self, requests: KeyRequests) -> list[tf.Tensor]:
        """For each table, the places of its keys among the keys that are served: int32 [n] each."""
        num_tables = len(self._tables)
        numbers = tf.tile(tf.range(num_tables), [self._collectives.world_size])
        table_of_key = tf.repeat(numbers, tf.reshape(requests.num_of_tables, [-1]))
        return tf.dynamic_partition(tf.range(tf.size(requests.rows.served_rows)), table_of_key, num_tables)

    def _part(self, position: int, bags: Bags) -> SlabRows:
        """The keys of the piece at a position."""
        keys, samples, factors = bags_in(self.pieces[position], bags, self._layout)
        return SlabRows(keys, samples * len(self.pieces) + position, factors)


def _owners(table: DynamicTableConfig, plan: ShardingPlan) -> np.ndarray:
    """The rank that owns each bucket of a dynamic table: int32 [buckets]."""
    each = table.buckets.rows_per_bucket
    owners = np.empty(table.buckets.num_buckets, np.int32)
    for shard in plan.of_table(table.name):
        owners[shard.rows[0] // each : shard.rows[1] // each] = shard.rank
    return owners
