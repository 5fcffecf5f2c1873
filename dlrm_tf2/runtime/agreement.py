"""Work that fails on all ranks or on none, so that no rank waits for a rank that failed. No TensorFlow."""

from collections.abc import Callable


def on_rank_0(comm, name: str, *, work: Callable, error: type[ValueError]):
    """Runs `work` on rank 0 and returns its result on every rank. Raises as on_all_ranks does."""
    return on_all_ranks(comm, name, work=work if comm.rank == 0 else lambda: None, error=error, name_ranks=False)[0]


def on_all_ranks(comm, name: str, *, work: Callable, error: type[ValueError], name_ranks: bool = True) -> list:
    """Runs `work` on every rank. If it fails on one rank, all ranks raise.

    Args:
      comm: the ranks (dlrm_tf2.runtime.comm).
      name: name of the exchange, the same on all ranks.
      work: function without arguments, whose result is picklable.
      error: type of the exception to raise. If `work` raises another type, the message names that type.
      name_ranks: name the ranks that failed, if the job has several ranks.

    Returns:
      The results of all ranks, in rank order.

    Raises:
      error: names the reasons, and the ranks that failed.
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
