"""How ranks are named in messages: `rank 3`, and `rank 3 on host1` in a job on several hosts. No TensorFlow."""

import socket
from collections.abc import Iterable, Sequence


def this_host() -> str:
    """The name of the host of this process."""
    return socket.gethostname()


def names_of(ranks: Iterable[int], hosts: Sequence[str]) -> str:
    """Names ranks, such as `rank 1, 3`, or `rank 1, 3 on host0 and rank 4 on host1`.

    Args:
      ranks: the ranks to name.
      hosts: the host of each rank of the job.
    """
    on_several, of_host = len(set(hosts)) > 1, {}
    for rank in ranks:
        of_host.setdefault(hosts[rank] if on_several else "", []).append(str(rank))
    return " and ".join(
        f"rank {', '.join(theirs)}" + (f" on {host}" if host else "") for host, theirs in of_host.items()
    )
