"""How the ranks on a machine share its processors."""

from criteo_prep.machine import Processors


def threads_of_rank(processors: Processors, local_size: int) -> int:
    """Threads for one of `local_size` ranks on this machine, at least 1."""
    shared = processors.machine if processors.quota is None else min(processors.machine, int(processors.quota))
    return max(1, min(processors.bound, shared // local_size))


def idle_processors(processors: Processors, local_size: int) -> int:
    """Processors without a rank, because the launcher binds each of `local_size` ranks to other processors."""
    return max(0, processors.machine - processors.bound * local_size) if local_size > 1 else 0
