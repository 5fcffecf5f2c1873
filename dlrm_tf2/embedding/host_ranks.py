"""HostRanks: which ranks share a host; what a rank sends to them, and to the ranks at its own place on all hosts."""

import tensorflow as tf

from dlrm_tf2.embedding.collectives import Collectives


class HostRanks:
    """The ranks of a job as rows and columns: rank r is on host r // num_places, where it has place r % num_places.

    Args:
      collectives: the exchange between the ranks.

    Attributes:
      num_hosts, num_places: hosts, and ranks on each.
      in_common: whether ranks of a host can send to other hosts in common: several ranks on each of several hosts.
    """

    def __init__(self, collectives: Collectives):
        self.num_places = collectives.ranks_per_host
        self.num_hosts = collectives.world_size // self.num_places
        self.in_common = self.num_places > 1 and self.num_hosts > 1
        self._host, self._place = divmod(collectives.rank, self.num_places)

    def host_of(self, ranks: tf.Tensor) -> tf.Tensor:
        """The host of each rank."""
        return ranks // self.num_places

    def place_of(self, ranks: tf.Tensor) -> tf.Tensor:
        """The place of each rank on its host."""
        return ranks % self.num_places

    def to_own_host(self, counts: tf.Tensor) -> tf.Tensor:
        """The splits, int32 [ranks], of an exchange in which each place of the own host gets counts: int32 [places]."""
        before = self._host * self.num_places
        return tf.pad(counts, [[before, (self.num_hosts - 1 - self._host) * self.num_places]])

    def to_own_place(self, counts: tf.Tensor) -> tf.Tensor:
        """The splits, int32 [ranks], of an exchange in which the own place of each host gets counts: int32 [hosts]."""
        columns = tf.pad(counts[:, tf.newaxis], [[0, 0], [self._place, self.num_places - 1 - self._place]])
        return tf.reshape(columns, [-1])
