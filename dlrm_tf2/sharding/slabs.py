"""Which shards of a rank share one variable, a *slab*, and where in the slab the rows of each shard are."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from dlrm_tf2.sharding.plan import Shard, ShardingPlan


class SlabKind(NamedTuple):
    """What the shards of one slab have in common.

    Attributes:
      width: columns of each shard.
      replicated: whether the tables are replicated.
      on_host: whether a rank with a GPU keeps the shards in the memory of its host.
    """

    width: int
    replicated: bool
    on_host: bool

    @property
    def name(self) -> str:
        """Part of the names of the collectives that serve such slabs."""
        return f"{self.width}_on_host" if self.on_host else f"{self.width}"


def by_slab(shards: Iterable[Shard], plan: ShardingPlan) -> dict[SlabKind, tuple[Shard, ...]]:
    """Groups shards of one rank by the slab that they lie in; slabs and shards keep the order of the shards."""
    groups: dict[SlabKind, list[Shard]] = defaultdict(list)
    for shard in shards:
        kind = SlabKind(shard.num_columns, shard.table in plan.replicated, shard in plan.on_host)
        groups[kind].append(shard)
    return {kind: tuple(group) for kind, group in groups.items()}


def first_rows(
    shards: Sequence[Shard], dynamic: Collection[str], *, in_memory: Mapping[Shard, int] | None = None
) -> dict[Shard, int]:
    """For each shard of a slab, the row of the slab at which the shard begins, in ascending order.

    Dynamic tables come last: how many of their rows are in memory is the rank's own affair, and where the rows of
    static tables are, other ranks know too.

    Args:
      dynamic: names of the dynamic tables.
      in_memory: shard -> its rows in the slab, where these are not all of its rows.
    """
    rows, start = {}, 0
    for shard in sorted(shards, key=lambda shard: shard.table in dynamic):
        rows[shard] = start
        start += (in_memory or {}).get(shard, shard.num_rows)
    return rows
