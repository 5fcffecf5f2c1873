"""The speed of the network between the hosts of a job, measured once by a small exchange."""

import time

import tensorflow as tf

from dlrm_tf2.runtime.comm import Comm

_HOST_BYTES = 4 << 20  # that a host sends in an exchange: 34 ms at 1 Gbit/s
_EXCHANGES = 4  # the fastest counts: the first also opens connections


def ranks_per_host(comm: Comm) -> int | None:
    """The ranks of each host, the same on all ranks. All ranks call it.

    Returns:
      None where hosts have different numbers of ranks, or ranks are not numbered host by host.
    """
    places = comm.allgather_object((comm.local_size, comm.local_rank), name="places")
    size = comm.local_size
    return size if all(place == (size, rank % size) for rank, place in enumerate(places)) else None


def gbit_of_hosts(comm: Comm) -> float | None:
    """The gigabits a second that each host sends to other hosts while all hosts send. All ranks call it.

    Returns:
      The same number on all ranks, of the slowest host; None where all ranks are on one host, or ranks_per_host has
      no number.
    """
    if ranks_per_host(comm) in (None, comm.size):
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
