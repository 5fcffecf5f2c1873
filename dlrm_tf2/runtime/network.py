"""The speed of the network between the hosts of a job, measured once by a small exchange."""

import time

import tensorflow as tf

from dlrm_tf2.runtime.comm import Comm

_HOST_BYTES = 4 << 20  # that a host sends in an exchange: 34 ms at 1 Gbit/s
_EXCHANGES = 4  # the fastest counts: the first also opens connections


def gbit_of_hosts(comm: Comm) -> float | None:
    """The gigabits a second that each host sends to other hosts while all hosts send. All ranks call it.

    Launchers number the ranks host by host, and here each host has as many ranks as the others.

    Returns:
      The same number on all ranks, of the slowest host; None where all ranks are on one host, or where hosts have
      different numbers of ranks.
    """
    local_sizes = comm.allgather_object(comm.local_size, name="local_sizes")
    if len(set(local_sizes)) > 1 or comm.local_size == comm.size:
        return None
    first = comm.rank - comm.local_rank
    others = [rank for rank in range(comm.size) if not first <= rank < first + comm.local_size]
    each = max(1, _HOST_BYTES // (comm.local_size * len(others)))
    splits = tf.constant([each if rank in others else 0 for rank in range(comm.size)], tf.int32)
    rows = tf.zeros([each * len(others)], tf.uint8)
    seconds = []
    for number in range(_EXCHANGES):
        comm.allgather_object(None, name="network_begins")
        start = time.perf_counter()
        comm.alltoall(rows, splits, f"network_{number}")
        seconds.append(max(comm.allgather_object(time.perf_counter() - start, name="network_ends")))
    return 8e-9 * each * len(others) * comm.local_size / min(seconds)
