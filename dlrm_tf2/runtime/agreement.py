"""Work that fails on all ranks or on none, so that no rank waits for a rank that failed. No TensorFlow."""

from collections.abc import Callable, Mapping

from dlrm_tf2.runtime.rank_names import names_of, this_host


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
    outcomes = comm.allgather_object((reason, result, this_host()), name=name)
    reasons: dict[str, list[int]] = {}
    for rank, (text, _, _) in enumerate(outcomes):
        if text is not None:
            reasons.setdefault(text, []).append(rank)
    if reasons:
        named = name_ranks and comm.size > 1
        hosts = [host for _, _, host in outcomes]
        lines = [f"{names_of(ranks, hosts)}: {text}" if named else text for text, ranks in reasons.items()]
        raise error("\n".join(lines)) from failure
    return [value for _, value, _ in outcomes]


def check_same(comm, name: str, *, values: Mapping[str, str], error: type[ValueError], advice: str) -> None:
    """Raises on all ranks if a value of one rank differs from the same value of another rank.

    Args:
      comm: the ranks (dlrm_tf2.runtime.comm).
      name: name of the exchange, the same on all ranks.
      values: what must be the same: words for the user -> value. Ranks without a value are left aside.
      error: type of the exception to raise.
      advice: what to do, the end of the message.

    Raises:
      error: names each value that differs, and the ranks with each version of the value.
    """
    found = comm.allgather_object((dict(values), this_host()), name=name)
    hosts, lines = [host for _, host in found], []
    for key in dict.fromkeys(key for values_of_rank, _ in found for key in values_of_rank):
        ranks_with: dict[str, list[int]] = {}
        for rank, (values_of_rank, _) in enumerate(found):
            if key in values_of_rank:
                ranks_with.setdefault(values_of_rank[key], []).append(rank)
        usual, *others = sorted(ranks_with, key=lambda value: -len(ranks_with[value]))
        if others:
            ranks = ranks_with[usual]
            rest = names_of(ranks, hosts) if len(ranks) == 1 else f"the {len(ranks)} other ranks"
            texts = [f"{value} on {names_of(ranks_with[value], hosts)}" for value in others]
            lines.append(f"{key}: {', '.join(texts)}; {usual} on {rest}")
    if lines:
        raise error("\n".join([*lines, advice]))
