"""HostSums: the gradients of replicated rows to all ranks. Each host adds them up before they leave the host.

Ranks of a host use the same rows, so a sum for each row is less than what the ranks have. And a sum goes to another
host once, not to each rank there. Where each host has one rank, or all ranks are on one host, nothing can be saved.
"""

import tensorflow as tf

from dlrm_tf2.embedding.collectives import Collectives
from dlrm_tf2.embedding.slab import sum_by_row


class HostSums:
    """The exchange of gradients of replicated rows.

    Args:
      collectives: the exchange between the ranks. Rank r is on host r // ranks_per_host.
    """

    def __init__(self, collectives: Collectives):
        self._collectives, self._local = collectives, collectives.ranks_per_host
        self._num_hosts = collectives.world_size // self._local
        self._own_host, self._place = divmod(collectives.rank, self._local)

    def to_all_ranks(self, rows: tf.Tensor, gradients: tf.Tensor, name: str) -> tuple[tf.Tensor, tf.Tensor]:
        """The gradients of all ranks, the same on every rank: rows [n], maybe several times, gradients [n, width].

        Args:
          rows: integers [m], each once.
          gradients: [m, width], of these rows.
          name: part of the names of the exchanges.
        """
        if self._local == 1 or self._num_hosts == 1:
            return self._collectives.to_all_ranks(rows, gradients, name)
        rows, gradients = sum_by_row(*self._to_summing_ranks(rows, gradients, f"{name}.to_sum"))
        same_place = [int(rank % self._local == self._place) for rank in range(self._collectives.world_size)]
        rows, gradients = self._copies(rows, gradients, to=same_place, name=f"{name}.to_hosts")
        own_host = [int(rank // self._local == self._own_host) for rank in range(self._collectives.world_size)]
        return self._copies(rows, gradients, to=own_host, name=f"{name}.to_host")

    def _to_summing_ranks(self, rows: tf.Tensor, gradients: tf.Tensor, name: str) -> tuple[tf.Tensor, tf.Tensor]:
        """Each row goes to one rank of the host, the same from all ranks of the host."""
        places = tf.cast(rows % self._local, tf.int32)
        order = tf.argsort(places, stable=True)
        counts = tf.reduce_sum(tf.one_hot(places, self._local, dtype=tf.int32), axis=0)
        before = self._own_host * self._local
        after = self._collectives.world_size - before - self._local
        splits = tf.pad(counts, [[before, after]])
        exchange = self._collectives.all_to_all
        rows = exchange(tf.gather(rows, order), splits=splits, name=f"{name}.rows")
        return rows, exchange(tf.gather(gradients, order), splits=splits, name=f"{name}.gradients")

    def _copies(
        self, rows: tf.Tensor, gradients: tf.Tensor, *, to: list[int], name: str
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Sends the same to some ranks, for which `to` is 1; returns what they send, the lowest rank's first."""
        splits, exchange = tf.size(rows) * tf.constant(to), self._collectives.all_to_all
        received = exchange(tf.tile(rows, [sum(to)]), splits=splits, name=f"{name}.rows")
        return received, exchange(tf.tile(gradients, [sum(to), 1]), splits=splits, name=f"{name}.gradients")
