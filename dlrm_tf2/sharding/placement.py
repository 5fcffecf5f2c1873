"""How the columns of tables are cut, and which rank gets which piece: numbers in, ranks out.

A *piece* is a number of columns of a table. The published strategies look at the bytes of the pieces alone; `balance`
looks at three loads together: bytes, elements fetched, elements sent.

Source of basic, memory_balanced, memory_optimized and of the rule that cuts columns: the planner of NVIDIA's
distributed-embeddings (commit 4cb42d4).
"""

import heapq
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple

import numpy as np

from criteo_prep.compiled import compiled
from dlrm_tf2.sharding.tables import Loads

# `balance` makes no piece with fewer columns or fewer elements. Where that does not help, it makes narrower pieces.
NARROWEST, _SMALLEST = 4, 4096
_NARROWEST_AT_LAST = 2
# `balance` is content with this imbalance. Above it, it takes twice the shards for so much less imbalance.
_GOOD, _PRICE_OF_DOUBLING = 1.1, 0.01
_POOR = 1.15  # an imbalance that calls for another way of placing
# `balance` makes one plan for each limit: a piece with a load above limit * (mean load of a rank) is cut further.
_LIMITS = (2.0, 1.0, 0.5, 0.25, 0.125, 0.0625)


def cut_columns(num_rows: int, width: int, *, threshold: float, max_pieces: int) -> list[int]:
    """Cuts a table by columns into the smallest power of two of pieces that have at most `threshold` elements each.

    Args:
      max_pieces: the most pieces, usually the number of ranks; a piece has at least one column in any case.

    Returns:
      The widths of the pieces, as equal as possible, wider ones first.
    """
    pieces = 1
    while num_rows * width / pieces > threshold:
        pieces *= 2
    return split_evenly(width, min(pieces, max_pieces, width))


def threshold_for(sizes: Sequence[int], num_pieces: int) -> float:
    """A threshold for cut_columns that makes at least `num_pieces` pieces, if the widths of the tables allow it.

    Args:
      sizes: elements of each table.

    Source: the published planner halves the largest until there are enough.
    """
    threshold = math.inf
    heap = [-size for size in sizes]
    heapq.heapify(heap)
    while heap and len(heap) < num_pieces:
        largest = -heapq.heappop(heap)
        threshold = largest - 1
        heapq.heappush(heap, -(largest // 2))
        heapq.heappush(heap, -(largest // 2))
        if largest < 2:
            break
    return threshold


def split_evenly(whole: int, parts: int) -> list[int]:
    """`whole` as a sum of `parts` numbers that differ by 1 at most, larger ones first."""
    each, extra = divmod(whole, parts)
    return [each + (part < extra) for part in range(parts)]


def basic(sizes: Sequence[int], tables: Sequence[int], world_size: int) -> list[int]:
    """Deals the pieces to the ranks in turn, in the order of the pieces.

    Args:
      sizes: elements of each piece.
      tables: for each piece, the number of its table.

    Returns:
      The rank of each piece.
    """
    return [piece % world_size for piece in range(len(sizes))]


def memory_balanced(sizes: Sequence[int], tables: Sequence[int], world_size: int) -> list[int]:
    """Deals the largest pieces first, to the ranks forwards and then backwards. Arguments as in basic."""
    ranks = [0] * len(sizes)
    for place, piece in enumerate(_largest_first(sizes, tables)):
        turn = place % (2 * world_size)
        ranks[piece] = min(turn, 2 * world_size - 1 - turn)
    return ranks


def memory_optimized(sizes: Sequence[int], tables: Sequence[int], world_size: int) -> list[int]:
    """Takes the largest pieces first, each to the rank with the fewest bytes. Arguments as in basic."""
    # (elements, tables held, rank): of equally full ranks the one with the earlier tables is first, as published.
    loads: list[tuple[int, tuple[int, ...], int]] = [(0, (), rank) for rank in range(world_size)]
    ranks = [0] * len(sizes)
    for piece in _largest_first(sizes, tables):
        load, held, rank = heapq.heappop(loads)
        ranks[piece] = rank
        heapq.heappush(loads, (load + sizes[piece], (*held, tables[piece]), rank))
    return ranks


Strategy = Callable[[Sequence[int], Sequence[int], int], list[int]]
PUBLISHED: dict[str, Strategy] = {
    "basic": basic,
    "memory_balanced": memory_balanced,
    "memory_optimized": memory_optimized,
}


def _largest_first(sizes: Sequence[int], tables: Sequence[int]) -> list[int]:
    """Pieces by size; of equal pieces the one of the last table first, as published."""
    return sorted(range(len(sizes)), key=lambda piece: (-sizes[piece], -tables[piece], piece))


@dataclass(frozen=True)
class Divisible:
    """A table, or a block of its rows, whose columns `balance` cuts and places.

    Attributes:
      name: breaks ties, so that the order of the tables does not matter.
      loads: its loads as a whole.
      num_rows: its rows.
      width: its columns.
      widths: the widths of the pieces that it must be cut into; None where `balance` chooses them.
    """

    name: str
    loads: Loads
    num_rows: int
    width: int
    widths: tuple[int, ...] | None = None

    def cut(self, mean: np.ndarray, *, limit: float, narrowest: int, max_pieces: int) -> list[int]:
        """Widths of pieces whose loads are at most `limit` times the mean, as far as cutting can reach that."""
        if self.widths is not None:
            return list(self.widths)
        share, least = max(np.divide(self.loads, mean)), max(narrowest, _SMALLEST / self.num_rows)
        pieces = 1
        while share / pieces > limit and 2 * pieces <= max_pieces and self.width // (2 * pieces) >= least:
            pieces *= 2
        return split_evenly(self.width, pieces)


class _Piece(NamedTuple):
    """`width` columns of tables[number], and their loads as parts of the mean load of a rank, [3]."""

    name: str
    number: int
    width: int
    load: np.ndarray


def balance(tables: Sequence[Divisible], world_size: int, loads: np.ndarray) -> list[dict[int, int]]:
    """Cuts tables by columns and places the pieces so that the three loads are balanced together.

    Makes plans with coarse and with fine cuts, with the pieces of a table kept together where that does no harm and
    without, and takes the plan with the lowest price. If that plan is poor, as where a rank's share is less than a few
    columns of a large table, it makes more plans in another way: narrower pieces, each placed where the sum of the
    squares of all loads grows least. The price is the plan's imbalance (the largest of max/mean over
    the ranks of the three loads; 1.1 is good enough), and a little for each doubling of the number of shards, because
    each shard is one more lookup and needs the ids.

    Args:
      loads: [world_size, 3], the Loads that the ranks have already.

    Returns:
      For each table, rank -> how many of its columns the rank gets.
    """
    # fsum, so that the order of the tables does not matter, down to the last bit.
    totals = [math.fsum([*(table.loads[i] for table in tables), *loads[:, i]]) for i in range(3)]
    mean = np.maximum(totals, 1e-300) / world_size
    is_given = all(table.widths is not None for table in tables)
    best: list[dict[int, int]] = []
    best_price = best_imbalance = math.inf
    for by_squares in (False, True):
        narrowest = _NARROWEST_AT_LAST if by_squares else NARROWEST
        for limit in _LIMITS[:1] if is_given else _LIMITS:
            pieces = _pieces_of(tables, mean, limit=limit, narrowest=narrowest, max_pieces=world_size)
            for together in (True, False):
                way = _Way(together, by_squares)
                columns, after = _place(pieces, loads / mean, num_tables=len(tables), way=way)
                shards = sum(len(ranks) for ranks in columns) / max(len(tables), 1)
                price = max(after.max(), _GOOD) * (1 + _PRICE_OF_DOUBLING * math.log2(max(shards, 1)))
                if price < best_price - 1e-9:
                    best, best_price, best_imbalance = columns, price, after.max()
            if by_squares and best_imbalance <= _GOOD:
                break
        if best_imbalance <= _POOR:
            break
    return best


class _Way(NamedTuple):
    """How pieces are placed.

    Attributes:
      together: prefer a rank that has a piece of the same table already, while that rank stays within the mean.
      by_squares: a piece goes where the squares of the loads grow least, and not where the largest load stays smallest.
    """

    together: bool
    by_squares: bool


def _pieces_of(
    tables: Sequence[Divisible], mean: np.ndarray, *, limit: float, narrowest: int, max_pieces: int
) -> list[_Piece]:
    """The pieces of all tables, the heaviest first."""
    pieces, weights = [], []
    for number, table in enumerate(tables):
        share = np.divide(table.loads, mean)
        for width, same in groupby(table.cut(mean, limit=limit, narrowest=narrowest, max_pieces=max_pieces)):
            load = share * (width / table.width)
            alike = [_Piece(table.name, number, width=width, load=load) for _ in same]
            pieces += alike
            weights += [(-load.max(), -load.sum(), table.name)] * len(alike)
    return [pieces[i] for i in sorted(range(len(pieces)), key=weights.__getitem__)]


def _place(
    pieces: Sequence[_Piece], loads: np.ndarray, *, num_tables: int, way: _Way
) -> tuple[list[dict[int, int]], np.ndarray]:
    """Places one piece after the other.

    Args:
      pieces: in the order in which they are placed.
      loads: [world_size, 3], the loads before, as parts of the mean.

    Returns:
      For each table, rank -> how many of its columns the rank gets; and the loads after.
    """
    loads, everybody = loads.copy(), np.arange(len(loads))
    columns: list[dict[int, int]] = [{} for _ in range(num_tables)]
    for piece in pieces:
        held, rank, largest = columns[piece.number], None, 0.0
        if way.together and held:
            rank, largest = _best_rank(loads, piece.load, np.array(sorted(held)), False)
        if rank is None or largest > 1:
            rank, _ = _best_rank(loads, piece.load, everybody, way.by_squares)
        loads[rank] += piece.load
        held[rank] = held.get(rank, 0) + piece.width
    return columns, loads


@compiled
def _best_rank(loads, load, ranks, by_squares):
    """The rank where a piece makes the largest load, or the growth of the squares, smallest; of equals, the least sum.

    Args:
      loads: [world_size, 3].
      load: [3], of the piece.
      ranks: the ranks to choose from, in the order of preference.

    Returns:
      (the rank, the value that is smallest there).
    """
    best, best_value, best_sum = ranks[0], np.inf, np.inf
    for rank in ranks:
        value = total = 0.0
        for i in range(3):
            after = loads[rank, i] + load[i]
            total += after
            value = value + (loads[rank, i] + after) * load[i] if by_squares else max(value, after)
        if value < best_value or (value == best_value and total < best_sum):
            best, best_value, best_sum = rank, value, total
    return best, best_value
