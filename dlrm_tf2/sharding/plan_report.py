"""A plan as text: its tables, what each rank holds and does, and how even that is."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from dlrm_tf2.sharding.cost import Imbalance, RankCost, Step, cost_of
from dlrm_tf2.sharding.plan import ShardingPlan
from dlrm_tf2.sharding.tables import WEIGHT_BYTES, Table, fetched_per_sample

_GIB = 2**30


def plan_text(
    plan: ShardingPlan,
    tables: Sequence[Table],
    *,
    step: Step,
    activation_bytes: Sequence[float],
    offloading_bytes: float | None = None,
) -> str:
    """The plan as several lines of text.

    Args:
      tables: the tables that the plan was made for.
      step: the training step whose cost is shown.
      activation_bytes: for each rank, the bytes that a step needs besides weights and optimizer state.
      offloading_bytes: bytes of weights that a GPU has room for; None for no limit.
    """
    costs = cost_of(plan, tables, step)
    num_bytes = _weight_bytes(plan, tables)
    lines = [f"tables: {len(tables)}, {num_bytes / _GIB:.3f} GiB ({num_bytes} bytes), {len(plan.shards)} shards"]
    lines += _aligned(_table_rows(plan, tables, step.hotness))
    if offloading_bytes is not None:
        host = plan.num_bytes(plan.on_host)
        lines.append(
            f"in host memory, for a GPU with room for {offloading_bytes / _GIB:.2f} GiB of tables: "
            f"{len(plan.on_host)} shards, {host / _GIB:.2f} GiB"
        )
    lines += _aligned(_rank_rows(plan, costs, activation_bytes))
    lines.append(Imbalance.of(costs).line())
    return "\n".join(lines)


def _table_rows(plan: ShardingPlan, tables: Sequence[Table], hotness: Mapping[str, float]) -> list[list[str]]:
    """One row for all tables that have the same shape and the same number of ids."""
    alike: dict[tuple[int, int, float, bool], list[Table]] = defaultdict(list)
    for table in tables:
        ids = fetched_per_sample(table, hotness)
        alike[table.num_rows, table.embedding_dim, ids, table.is_dynamic].append(table)
    rows = [["tables", "rows", "width", "ids/sample", "GiB", "where"]]
    for (num_rows, width, ids, _), group in alike.items():
        name = group[0].name if len(group) == 1 else f"{len(group)} tables"
        where = Counter(_where(plan, table, len(group) == 1) for table in group)
        text = ", ".join(f"{count} {way}" if len(group) > 1 else way for way, count in where.items())
        gib = _weight_bytes(plan, group) / _GIB
        rows.append([name, f"{num_rows}", f"{width}", f"{ids:g}", f"{gib:.3f}", text])
    return rows


def _weight_bytes(plan: ShardingPlan, tables: Sequence[Table]) -> int:
    """Bytes of one copy of some tables."""
    return WEIGHT_BYTES[plan.table_dtype] * sum(table.num_elements for table in tables)


def _where(plan: ShardingPlan, table: Table, with_ranks: bool) -> str:
    if table.name in plan.replicated:
        return "replicated"
    shards = plan.of_table(table.name)
    ways = [f"by {way}" for way in ("rows", "columns") if len({getattr(shard, way) for shard in shards}) > 1]
    text = "dynamic" if table.is_dynamic else " and ".join(ways) or "whole"
    ranks = sorted({shard.rank for shard in shards})
    return f"{text} on {'rank' if len(ranks) == 1 else 'ranks'} {_spans(ranks)}" if with_ranks else text


def _spans(numbers: Sequence[int]) -> str:
    """Ascending numbers with each run as first-last: 0-3,7."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and runs[-1][-1] == number - 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ",".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def _rank_rows(plan: ShardingPlan, costs: Sequence[RankCost], activation_bytes: Sequence[float]) -> list[list[str]]:
    index_title = ["index bytes"] if any(cost.index_bytes for cost in costs) else []
    rows = [
        [
            "rank",
            "shards",
            "weight bytes",
            "state bytes",
            *index_title,
            "activation bytes",
            "all GiB",
            "elements fetched",
            "alltoall bytes",
        ]
    ]
    for rank, (cost, activations) in enumerate(zip(costs, activation_bytes, strict=True)):
        rows.append(
            [
                f"{rank}",
                f"{len(plan.of_rank(rank))}",
                f"{cost.weight_bytes}",
                f"{cost.state_bytes}",
                *([f"{cost.index_bytes}"] if index_title else []),
                f"{activations:.0f}",
                f"{(cost.table_bytes + activations) / _GIB:.2f}",
                f"{cost.fetched:.0f}",
                f"{cost.sent_bytes:.0f}",
            ]
        )
    return rows


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of cells as lines, with words aligned to the left and numbers to the right."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    words = [not column[-1].replace(".", "").isdigit() for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if word else cell.rjust(width)
            for cell, width, word in zip(row, widths, words, strict=True)
        ).rstrip()
        for row in rows
    ]
