"""HostSums: the gradients of replicated rows to all ranks. Each host adds them up before they leave the host.

Ranks of a host use the same rows, so a sum for each row is less than what the ranks have. And a sum goes to another
host once, not to each rank there. Where each host has one rank, or all ranks are on one host, nothing can be saved.
"""

import tensorflow as tf

from dlrm_tf2.embedding.collectives import Collectives
from dlrm_tf2.embedding.host_ranks import HostRanks
from dlrm_tf2.embedding.slab import sum_by_row


class HostSums:
    """The exchange of gradients of replicated rows.

    Args:
      collectives: the exchange between the ranks.
    """

    def __init__(self, collectives: Collectives):
        self._collectives, self._ranks = collectives, HostRanks(collectives)

    def to_all_ranks(self, rows: tf.Tensor, gradients: tf.Tensor, name: str) -> tuple[tf.Tensor, tf.Tensor]:
        """The gradients of all ranks, the same on every rank: rows [n], maybe several times, gradients [n, width].

        Args:
          rows: integers [m], each once.
          gradients: [m, width], of these rows.
          name: part of the names of the exchanges.
        """
        ranks = self._ranks
        if not ranks.in_common:
            return self._collectives.to_all_ranks(rows, gradients, name)
        rows, gradients = sum_by_row(*self._to_summing_ranks(rows, gradients, f"{name}.to_sum"))
        to_hosts = ranks.to_own_place(tf.fill([ranks.num_hosts], tf.size(rows)))
        rows, gradients = self._copies(
            rows, gradients, copies=ranks.num_hosts, splits=to_hosts, name=f"{name}.to_hosts"
        )
        to_host = ranks.to_own_host(tf.fill([ranks.num_places], tf.size(rows)))
        return self._copies(rows, gradients, copies=ranks.num_places, splits=to_host, name=f"{name}.to_host")

    def _to_summing_ranks(self, rows: tf.Tensor, gradients: tf.Tensor, name: str) -> tuple[tf.Tensor, tf.Tensor]:
        """Each row goes to one rank of the host, the same from all ranks of the host."""
        places = tf.cast(rows % self._ranks.num_places, tf.int32)
        order = tf.argsort(places, stable=True)
        counts = tf.reduce_sum(tf.one_hot(places, self._ranks.num_places, dtype=tf.int32), axis=0)
        splits, exchange = self._ranks.to_own_host(counts), self._collectives.all_to_all
        rows = exchange(tf.gather(rows, order), splits=splits, name=f"{name}.rows")
        return rows, exchange(tf.gather(gradients, order), splits=splits, name=f"{name}.gradients")

    def _copies(
        self, rows: tf.Tensor, gradients: tf.Tensor, *, copies: int, splits: tf.Tensor, name: str
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Sends a copy to each of the ranks that `splits` names; returns what these send, the lowest rank's first."""
        exchange = self._collectives.all_to_all
        received = exchange(tf.tile(rows, [copies]), splits=splits, name=f"{name}.rows")
        return received, exchange(tf.tile(gradients, [copies, 1]), splits=splits, name=f"{name}.gradients")
