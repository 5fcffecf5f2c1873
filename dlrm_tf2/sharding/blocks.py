"""Tables on their way into a plan: cut into blocks by rows, and the columns of each block dealt out to the ranks."""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from dlrm_tf2.sharding import placement
from dlrm_tf2.sharding.dynamic_tables import DynamicTableConfig, bucket_rows
from dlrm_tf2.sharding.plan_rules import NEVER, PlanRules
from dlrm_tf2.sharding.tables import Loads, Table

_FEWEST_ROWS = 1 << 16  # `balanced` makes no block of fewer rows

Columns = dict[int, int]  # rank -> how many columns of a block it gets


@dataclass(frozen=True)
class Block:
    """Rows [rows[0], rows[1]) of a table, which the plan places together.

    Attributes:
      rank: the rank that gets all of the block, where that is decided.
    """

    table: Table
    rows: tuple[int, int]
    rank: int | None = None

    @property
    def num_rows(self) -> int:
        return self.rows[1] - self.rows[0]


def cut_by_rows(tables: Sequence[Table], rules: PlanRules) -> list[Block]:
    """Each table as one block, or as several where its rows are to be on several ranks.

    A dynamic table has on each rank the rows of the buckets that the rank owns.

    A table of row_slice_threshold elements or more has its rows on all ranks. `balanced` without that threshold cuts a
    table by rows only if no cut by columns makes a piece that is within a rank's share of the bytes.
    """
    largest = math.inf  # elements of a piece that a rank can hold
    if rules.balanced and rules.row_slice_threshold is None:
        largest = sum(table.num_elements for table in tables) / rules.world_size
    return [block for table in tables for block in _cut_table(table, rules, largest)]


def _cut_table(table: Table, rules: PlanRules, largest: float) -> list[Block]:
    world_size = rules.world_size
    if isinstance(table, DynamicTableConfig):
        return [Block(table, rows, rank) for rank, rows in bucket_rows(table, world_size).items()]
    if world_size > 1 and rules.row_slice_threshold and table.num_elements >= rules.row_slice_threshold:
        spans = enumerate(_even_spans(table.num_rows, world_size))
        return [Block(table, rows, rank) for rank, rows in spans if rows[0] < rows[1]]
    # Only where the strategy chooses the cuts by columns can they make pieces as narrow as NARROWEST.
    narrowest = placement.NARROWEST if rules.column_threshold is None else NEVER
    smallest_piece = table.num_elements / max(1, table.embedding_dim // narrowest)
    parts = min(math.ceil(smallest_piece / largest), world_size, table.num_rows // _FEWEST_ROWS)
    return [Block(table, rows) for rows in _even_spans(table.num_rows, max(parts, 1))]


def _even_spans(num_rows: int, parts: int) -> list[tuple[int, int]]:
    stops = list(itertools.accumulate(placement.split_evenly(num_rows, parts)))
    return list(zip([0, *stops], stops, strict=False))


def deal_columns(blocks: Sequence[Block], replicated: Sequence[Table], rules: PlanRules) -> list[Columns]:
    """The columns of each block that each rank gets, by the strategy of the rules.

    Args:
      blocks: what to place.
      replicated: the tables that every rank holds besides.
    """
    undecided = [block for block in blocks if block.rank is None]
    if rules.balanced:
        dealt = _deal_balanced(undecided, _loads_so_far(blocks, replicated, rules), rules)
    else:
        dealt = _deal_published(undecided, rules)
    of_undecided: Iterator[Columns] = iter(dealt)
    return [next(of_undecided) if block.rank is None else {block.rank: block.table.embedding_dim} for block in blocks]


def _loads_so_far(blocks: Sequence[Block], replicated: Sequence[Table], rules: PlanRules) -> np.ndarray:
    """[world_size, 3]: the Loads of replicated tables and of the blocks whose rank is decided."""
    # Every rank has the whole of a replicated table, and looks up the rank's own samples in it.
    whole = [rules.loads(table, (0, table.num_rows)) for table in replicated]
    shared = np.sum(whole or [Loads(0, 0, 0)], axis=0)
    loads = np.tile(shared * (1, 1 / rules.world_size, 0), (rules.world_size, 1))
    for block in blocks:
        if block.rank is not None:
            loads[block.rank] += rules.loads(block.table, block.rows)
    return loads


def _deal_balanced(blocks: Sequence[Block], loads: np.ndarray, rules: PlanRules) -> list[Columns]:
    threshold = rules.column_threshold
    divisible = [
        placement.Divisible(
            f"{block.table.name}:{block.rows[0]}",
            rules.loads(block.table, block.rows),
            num_rows=block.num_rows,
            width=block.table.embedding_dim,
            widths=None if threshold is None else tuple(_widths(block, threshold, rules.world_size)),
        )
        for block in blocks
    ]
    return placement.balance(divisible, rules.world_size, loads)


def _deal_published(blocks: Sequence[Block], rules: PlanRules) -> list[Columns]:
    threshold: float | None = rules.column_threshold
    if threshold is None:
        threshold = placement.threshold_for([block.table.num_elements for block in blocks], rules.world_size)
    pieces = [
        (number, width) for number, block in enumerate(blocks) for width in _widths(block, threshold, rules.world_size)
    ]
    sizes = [blocks[number].num_rows * width for number, width in pieces]
    ranks = placement.PUBLISHED[rules.strategy](sizes, [number for number, _ in pieces], rules.world_size)
    columns: list[Columns] = [{} for _ in blocks]
    for (number, width), rank in zip(pieces, ranks, strict=True):
        columns[number][rank] = columns[number].get(rank, 0) + width
    return columns


def _widths(block: Block, threshold: float, world_size: int) -> list[int]:
    return placement.cut_columns(block.num_rows, block.table.embedding_dim, threshold=threshold, max_pieces=world_size)
