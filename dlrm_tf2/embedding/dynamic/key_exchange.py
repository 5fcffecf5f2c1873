"""KeyExchange: keys of dynamic tables for this rank's own samples. Keys go out, rows come back and are pooled here.

A rank sends each different key of a table once, with the number of its occurrences, to the rank that owns the key's
bucket. Ranks that share a host do this in common, see Relay. Which row a key has is decided by the owner, and only in
`lookup`: an exchange of keys may run before the update of the batch before.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from dlrm_tf2.embedding.bags import Bags, SlabRows, bags_in, joined_factors
from dlrm_tf2.embedding.collectives import Collectives
from dlrm_tf2.embedding.dynamic.table import Touch
from dlrm_tf2.embedding.dynamic.tables import DynamicTables
from dlrm_tf2.embedding.host_ranks import HostRanks
from dlrm_tf2.embedding.relay import Relay, Relayed
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
      rows: what is known of the rows; its served_rows are the keys that are served, int64 [n], the lowest rank's first.
      counts: int64 [n], how often samples have each key.
      tables: int32 [n], the number of each key's table.
    """

    rows: RowRequests
    counts: tf.Tensor
    tables: tf.Tensor


class _Hop(NamedTuple):
    """A way of keys from a rank to some ranks, of which the owner of a key decides to which one it goes.

    Attributes:
      receiver: owners of keys, int32 [n] -> the number of the rank, among these ranks, that each key goes to.
      num_receivers: how many ranks they are.
      splits: how many keys each of them gets, int32 [receivers] -> how many each rank gets, int32 [ranks].
      name: part of the name of the exchange.
    """

    receiver: Callable[[tf.Tensor], tf.Tensor]
    num_receivers: int
    splits: Callable[[tf.Tensor], tf.Tensor]
    name: str


class _Sent(NamedTuple):
    """The keys that a rank has sent on one way, and the keys that came to it.

    Attributes:
      splits: int32 [ranks], how many keys it has sent to each rank.
      row_of_key: int32 [n], for each key that was to be sent, which of the keys sent it is.
      num_received: int32 [ranks], how many keys came from each rank.
      keys: int64 [sum(num_received)].
      counts: int64 [sum(num_received)], how often samples have each key.
      tables: int32 [sum(num_received)], the number of each key's table.
    """

    splits: tf.Tensor
    row_of_key: tf.Tensor
    num_received: tf.Tensor
    keys: tf.Tensor
    counts: tf.Tensor
    tables: tf.Tensor


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
        name, ranks = f"keys_{fetch.kind.name}", HostRanks(collectives)
        self._to_relays = None
        self._to_owners = _Hop(tf.identity, collectives.world_size, splits=tf.identity, name=name)
        if ranks.in_common:
            self._to_relays = _Hop(ranks.place_of, ranks.num_places, splits=ranks.to_own_host, name=f"{name}.relay")
            self._to_owners = _Hop(ranks.host_of, ranks.num_hosts, splits=ranks.to_own_place, name=name)
        shards = by_slab(plan.shards, plan)[fetch.kind]
        self.pieces = list({piece.start: piece for piece in layout.pieces(shards, fetch.features)}.values())
        self.features = tuple(dict.fromkeys(piece.feature for piece in self.pieces))
        self.fetch = RowFetch(
            collectives,
            name,
            width=fetch.kind.width,
            num_pieces=len(self.pieces),
            has_weights=any(feature in weighted for feature in self.features),
            relay=Relay(collectives, name) if ranks.in_common else None,
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
        parts, keys, relayed = list[SlabRows](), [], ()
        for table in self._tables:
            of_table = [
                self._part(position, bags[piece.feature])
                for position, piece in enumerate(self.pieces)
                if piece.shard.table == table
            ]
            keys.append(tf.concat([part.rows for part in of_table], axis=0))
            parts += of_table
        sent = self._send(keys, [tf.ones_like(of_table) for of_table in keys], self._to_relays or self._to_owners)
        row_of_id = sent.row_of_key
        if self._to_relays:
            wanted, places = sent, self._places_of_tables(sent.tables)
            keys = [tf.gather(wanted.keys, of_table) for of_table in places]
            sent = self._send(keys, [tf.gather(wanted.counts, of_table) for of_table in places], self._to_owners)
            in_order = tf.math.invert_permutation(tf.concat(places, axis=0))
            relayed = (Relayed(wanted.splits, wanted.num_received, tf.gather(sent.row_of_key, in_order)),)
        factors = joined_factors(parts, dtype)
        rows = RowRequests(
            sent.splits,
            num_served=sent.num_received,
            served_rows=sent.keys,
            row_of_id=row_of_id,
            vector_of_id=tf.concat([part.vectors for part in parts], axis=0),
            factors=() if factors is None else (factors,),
            num_samples=num_samples,
            relayed=relayed,
        )
        return KeyRequests(rows, sent.counts, sent.tables)

    def with_rows(self, requests: KeyRequests, tables: DynamicTables, *, touch: Touch | None) -> RowRequests:
        """The requests with rows of this rank's slab in place of keys. One call of the index serves a table.

        Args:
          touch: in training; None stores no key.
        """
        keys, rows, places = requests.rows.served_rows, [], self._places_of_tables(requests.tables)
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
        for name, of_table in zip(self._tables, self._places_of_tables(requests.tables), strict=True):
            if name in tables.by_name:
                tables.by_name[name].ask_ahead(tf.gather(requests.rows.served_rows, of_table), slots)

    def _send(self, keys: Sequence[tf.Tensor], counts: Sequence[tf.Tensor], hop: _Hop) -> _Sent:
        """Sends each different key once, with the sum of its counts.

        Args:
          keys: for each table, int64 [n].
          counts: for each table, int64 [n], of these keys.
        """
        sent, receivers, rows, num_sent, num_tables = [], [], [], tf.constant(0), len(self._tables)
        for number, (table, of_table, of_keys) in enumerate(zip(self._tables, keys, counts, strict=True)):
            different = tf.unique(of_table)
            sums = tf.math.unsorted_segment_sum(of_keys, different.idx, tf.size(different.y))
            sent.append(tf.stack([different.y, sums * num_tables + number], axis=1))
            owners = self._owners[table]
            receivers.append(hop.receiver(tf.gather(owners, hash_table.bucket_of(different.y, len(owners)))))
            rows.append(different.idx + num_sent)
            num_sent += tf.size(different.y)
        by_receiver = tf.dynamic_partition(tf.range(num_sent), tf.concat(receivers, axis=0), hop.num_receivers)
        order = tf.concat(by_receiver, axis=0)
        splits = hop.splits(tf.stack([tf.size(part) for part in by_receiver]))
        received, num_received = self._collectives.all_to_all_counted(
            tf.gather(tf.concat(sent, axis=0), order), splits=splits, name=f"{hop.name}.keys"
        )
        return _Sent(
            splits,
            row_of_key=tf.gather(tf.math.invert_permutation(order), tf.concat(rows, axis=0)),
            num_received=num_received,
            keys=received[:, 0],
            counts=received[:, 1] // num_tables,
            tables=tf.cast(received[:, 1] % num_tables, tf.int32),
        )

    def _places_of_tables(self, tables: tf.Tensor) -> list[tf.Tensor]:
        """For each table, the places of its keys, int32 [n] each, where `tables` has the number of each key's table."""
        return tf.dynamic_partition(tf.range(tf.size(tables)), tables, len(self._tables))

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
