"""A rank that counts what it sends to other hosts, wherever its host ends."""

import numpy as np
import tensorflow as tf


class CountingComm:
    """A rank of a job on hosts of so many ranks each, played by `comm`.

    Attributes:
      sent_bytes: name of an alltoall -> bytes that this rank has sent to ranks on other hosts by it.
    """

    def __init__(self, comm, ranks_per_host=1):
        self._comm, self.rank, self.size = comm, comm.rank, comm.size
        self.local_size, self.local_rank, self.sent_bytes = ranks_per_host, comm.rank % ranks_per_host, {}

    def __getattr__(self, name):
        return getattr(self._comm, name)

    def alltoall(self, rows, splits, name):
        first = self.rank - self.local_rank
        away = [not first <= rank < first + self.local_size for rank in range(self.size)]

        def count(rows, splits):
            sent = int(splits[away].sum()) * int(np.prod(rows.shape[1:])) * rows.itemsize
            self.sent_bytes[name] = self.sent_bytes.get(name, 0) + sent
            return rows

        rows = tf.convert_to_tensor(rows)
        counted = tf.numpy_function(count, [rows, splits], rows.dtype)
        return self._comm.alltoall(tf.ensure_shape(counted, rows.shape), splits, name)
