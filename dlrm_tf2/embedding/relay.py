"""Relay: the ranks of a host request rows in common, so that each row enters the host once.

A request for a row of the rank at place p of any host goes to the rank at place p of the own host. That rank *relays*:
it requests the rows that its host wants, each once, from the ranks at its own place on all hosts. Vectors come back by
the same way, and gradients take it again and are added up by the relaying rank. What the ranks of a host have in common
crosses the network once; the price is one more exchange inside the host in each direction.
"""

from typing import NamedTuple

import tensorflow as tf

from dlrm_tf2.embedding.collectives import Collectives
from dlrm_tf2.embedding.host_ranks import HostRanks


class Relayed(NamedTuple):
    """What a rank relays in one step, and what is relayed for it.

    Attributes:
      num_asked: int32 [ranks], how many rows this rank asks each rank of its host to relay.
      num_wanted: int32 [ranks], how many rows each rank of its host asks this rank to relay.
      row_of_wanted: int32 [sum(num_wanted)], which of the rows that this rank requests each of these is.
    """

    num_asked: tf.Tensor
    num_wanted: tf.Tensor
    row_of_wanted: tf.Tensor


class Relay:
    """Relays rows for the ranks of its host, where HostRanks.in_common.

    Args:
      collectives: the exchange between the ranks.
      name: part of the names of the exchanges.
    """

    def __init__(self, collectives: Collectives, name: str):
        self._collectives, self._ranks, self._name = collectives, HostRanks(collectives), f"{name}.relay"

    @property
    def owners(self) -> list[int]:
        """All ranks in the order in which `request` takes the rows of each: by place, then by host."""
        ranks = self._ranks
        return [host * ranks.num_places + place for place in range(ranks.num_places) for host in range(ranks.num_hosts)]

    def request(self, rows: tf.Tensor, counts: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, Relayed]:
        """The rows that this rank is to request for its host.

        Args:
          rows: int64 [sum(counts)], rows of the slab of each rank in `owners`, in this order.
          counts: int32 [ranks], how many rows of each.

        Returns:
          (rows: int64 [n], each once, by rank; how many of each rank: int32 [ranks]; what is relayed).
        """
        ranks, num_hosts = self._ranks, self._ranks.num_hosts
        num_asked = ranks.to_own_host(tf.reduce_sum(tf.reshape(counts, [ranks.num_places, num_hosts]), axis=1))
        host = tf.repeat(tf.tile(tf.range(num_hosts, dtype=tf.int64), [ranks.num_places]), counts)
        wanted, num_wanted = self._collectives.all_to_all_counted(
            rows * num_hosts + host, splits=num_asked, name=f"{self._name}.ids"
        )
        different = tf.unique(wanted)
        host = tf.cast(different.y % num_hosts, tf.int32)
        by_host = tf.dynamic_partition(tf.range(tf.size(host)), host, num_hosts)
        order = tf.concat(by_host, axis=0)
        return (
            tf.gather(different.y, order) // num_hosts,
            ranks.to_own_place(tf.stack([tf.size(of_host) for of_host in by_host])),
            Relayed(num_asked, num_wanted, tf.gather(tf.math.invert_permutation(order), different.idx)),
        )

    def vectors(self, requested: tf.Tensor, relayed: Relayed) -> tf.Tensor:
        """The vectors that this rank asked for: [sum(num_asked), width].

        Args:
          requested: [n, width], the vectors of the rows that this rank requests.
        """
        wanted = tf.gather(requested, relayed.row_of_wanted)
        return self._collectives.all_to_all(wanted, splits=relayed.num_wanted, name=self._name)

    def sums(self, gradients: tf.Tensor, relayed: Relayed, num_requested: tf.Tensor) -> tf.Tensor:
        """The sums over the host of the gradients of the rows that this rank requests: [num_requested, width].

        Args:
          gradients: [sum(num_asked), width], of the vectors that this rank asked for.
          num_requested: scalar int32, the rows that it requests.
        """
        wanted = self._collectives.all_to_all(gradients, splits=relayed.num_asked, name=f"{self._name}.gradients")
        return tf.math.unsorted_segment_sum(wanted, relayed.row_of_wanted, num_requested)
