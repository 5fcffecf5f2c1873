"""Work that fails on all ranks or on none, be it done by all of them or by rank 0: nobody waits for one that failed.

No TensorFlow.
"""

from collections.abc import Callable


def on_rank_0(comm, name: str, *, work: Callable, error: type[ValueError]):
    """Runs `work` on rank 0 and gives its result to every rank. Raises as on_all_ranks does."""
    return on_all_ranks(comm, name, work=work if comm.rank == 0 else lambda: None, error=error, name_ranks=False)[0]


def on_all_ranks(comm, name: str, *, work: Callable, error: type[ValueError], name_ranks: bool = True) -> list:
    """Runs `work` on every rank; if it fails on one, all raise.

    Args:
      comm: the ranks (dlrm_tf2.runtime.comm).
      name: of the exchange, the same on all ranks.
      work: no arguments; its result must be picklable.
      error: what is raised. Where `work` raised it, its message says all; other exceptions go by their type as well.
      name_ranks: say which ranks failed, where there are several.

    Returns:
      The results of all ranks, in rank order.

    Raises:
      error: with the reasons, and the ranks that failed.
    """
    result = failure = reason = None
    try:
        result = work()
    except Exception as raised:
        failure, reason = raised, str(raised) if isinstance(raised, error) else f"{type(raised).__name__}: {raised}"
    outcomes = comm.allgather_object((reason, result), name=name)
    reasons: dict[str, list[int]] = {}
    for rank, (text, _) in enumerate(outcomes):
        if text is not None:
            reasons.setdefault(text, []).append(rank)
    if reasons:
        named = name_ranks and comm.size > 1
        lines = [f"rank {', '.join(map(str, ranks))}: {text}" if named else text for text, ranks in reasons.items()]
        raise error("\n".join(lines)) from failure
    return [value for _, value in outcomes]
