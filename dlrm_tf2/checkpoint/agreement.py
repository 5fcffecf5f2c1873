"""Work that every rank does, or rank 0 alone, and that fails on all ranks if it fails on one. No TensorFlow."""

from collections.abc import Callable

from dlrm_tf2.checkpoint.files import CheckpointError


def on_rank_0(comm, name: str, work: Callable):
    """Runs `work` on rank 0 and gives its result to every rank. Raises as on_all_ranks does."""
    return on_all_ranks(comm, name, work if comm.rank == 0 else lambda: None, name_ranks=False)[0]


def on_all_ranks(comm, name: str, work: Callable, name_ranks: bool = True) -> list:
    """Runs `work` on every rank; if it fails on one, all raise, so that none waits for the others.

    Args:
      comm: the ranks (dlrm_tf2.comm).
      name: of the exchange, the same on all ranks.
      name_ranks: say which ranks failed, where there are several.

    Returns:
      The results of all ranks, in rank order.

    Raises:
      CheckpointError: with the reason, and the ranks that failed.
    """
    result = failure = reason = None
    try:
        result = work()
    except Exception as error:
        failure, reason = error, str(error)
        if not isinstance(error, CheckpointError):
            reason = f"{type(error).__name__}: {error}"
    outcomes = comm.allgather_object((reason, result), name=name)
    reasons: dict[str, list[int]] = {}
    for rank, (text, _) in enumerate(outcomes):
        if text is not None:
            reasons.setdefault(text, []).append(rank)
    if reasons:
        named = name_ranks and comm.size > 1
        lines = [f"rank {', '.join(map(str, ranks))}: {text}" if named else text for text, ranks in reasons.items()]
        raise CheckpointError("\n".join(lines)) from failure
    return [value for _, value in outcomes]
