"""How tables are cut, and which rank gets which piece: numbers in, ranks out. No TensorFlow, no communication.

A *piece* is a number of columns of a table. The published strategies look at the bytes of the pieces alone; `balance`
looks at three loads together: bytes, elements fetched, elements sent.

Source of basic, memory_balanced, memory_optimized and of the rule that cuts columns: what the planner of NVIDIA's
distributed-embeddings does (commit 4cb42d4).
"""

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# `balance` makes no piece with fewer columns or fewer elements.
NARROWEST, _SMALLEST = 4, 4096
# `balance` looks for no better imbalance than this one, and above it takes twice the shards for so much less of it.
_GOOD, _PRICE_OF_DOUBLING = 1.1, 0.01
# The loads of a piece, in parts of the mean load of a rank, above which `balance` cuts it further: the plans it tries.
_LIMITS = (2.0, 1.0, 0.5, 0.25, 0.125, 0.0625)


def columns_cut(num_rows: int, width: int, *, threshold: float, most: int) -> list[int]:
    """Widths of the pieces of a table: the smallest power of two of them that are `threshold` elements or fewer.

    Args:
      most: pieces at most, the number of ranks; there are never more than columns either.

    Returns:
      The widths, as equal as can be, wider ones first.
    """
    pieces = 1
    while num_rows * width / pieces > threshold:
        pieces *= 2
    return evenly(width, min(pieces, most, width))


def threshold_for(sizes: Sequence[int], num_pieces: int) -> float:
    """A threshold that cuts tables of these sizes (elements) into at least `num_pieces`, if their widths allow it.

    Source: the published planner halves the largest until there are enough.
    """
    sizes, threshold = [-size for size in sizes], math.inf
    heapq.heapify(sizes)
    while sizes and len(sizes) < num_pieces:
        largest = -heapq.heappop(sizes)
        threshold = largest - 1
        heapq.heappush(sizes, -(largest // 2))
        heapq.heappush(sizes, -(largest // 2))
        if largest < 2:
            break
    return threshold


def evenly(whole: int, parts: int) -> list[int]:
    """`whole` as a sum of `parts` numbers that differ by 1 at most, larger ones first."""
    each, extra = divmod(whole, parts)
    return [each + (part < extra) for part in range(parts)]


def basic(sizes: Sequence[int], tables: Sequence[int], world_size: int) -> list[int]:
    """Pieces in turn, in their order.

    Args:
      sizes: bytes of each piece.
      tables: number of the table of each piece.

    Returns:
      The rank of each piece.
    """
    return [piece % world_size for piece in range(len(sizes))]


def memory_balanced(sizes: Sequence[int], tables: Sequence[int], world_size: int) -> list[int]:
    """The largest first, dealt out to the ranks forwards and then backwards. Arguments as in basic."""
    ranks = [0] * len(sizes)
    for place, piece in enumerate(_largest_first(sizes, tables)):
        turn = place % (2 * world_size)
        ranks[piece] = min(turn, 2 * world_size - 1 - turn)
    return ranks


def memory_optimized(sizes: Sequence[int], tables: Sequence[int], world_size: int) -> list[int]:
    """The largest first, each to the rank with the fewest bytes. Arguments as in basic."""
    # Bytes, tables held, rank: of equal bytes the rank with the earlier tables comes first, as published.
    loads = [(0, (), rank) for rank in range(world_size)]
    ranks = [0] * len(sizes)
    for piece in _largest_first(sizes, tables):
        load, held, rank = heapq.heappop(loads)
        ranks[piece] = rank
        heapq.heappush(loads, (load + sizes[piece], (*held, tables[piece]), rank))
    return ranks


PUBLISHED = {"basic": basic, "memory_balanced": memory_balanced, "memory_optimized": memory_optimized}


def _largest_first(sizes: Sequence[int], tables: Sequence[int]) -> list[int]:
    """Pieces by size; of equal ones the last table first, as published."""
    return sorted(range(len(sizes)), key=lambda piece: (-sizes[piece], -tables[piece], piece))


@dataclass(frozen=True)
class Divisible:
    """A table for `balance`.

    Attributes:
      name: breaks ties, so that the order of the tables does not matter.
      loads: bytes, elements fetched per sample and elements sent per sample, of the whole of it.
      num_rows, width: of it.
      widths: the pieces it must be cut into; None for as many as `balance` wants.
    """

    name: str
    loads: tuple[float, float, float]
    num_rows: int
    width: int
    widths: tuple[int, ...] | None = None

    def cut(self, mean: np.ndarray, limit: float, most: int) -> list[int]:
        """Widths of the pieces, no load of which is above `limit` times the mean, as far as cutting can help."""
        if self.widths is not None:
            return list(self.widths)
        share, narrowest = max(np.divide(self.loads, mean)), max(NARROWEST, _SMALLEST / self.num_rows)
        pieces = 1
        while share / pieces > limit and 2 * pieces <= most and self.width // (2 * pieces) >= narrowest:
            pieces *= 2
        return evenly(self.width, pieces)


def balance(tables: Sequence[Divisible], world_size: int, placed: np.ndarray) -> list[dict[int, int]]:
    """Cuts tables by columns and places the pieces so that the three loads are balanced together.

    Tries coarse and fine cuts, with the pieces of a table kept together where that does no harm and not, and takes the
    plan with the smallest price: its imbalance (the largest of max/mean over the ranks of the three loads; nothing is
    gained below 1.1), and a little for each doubling of the shards, each of which is a lookup and needs the ids.

    Args:
      placed: [world_size, 3], loads that the ranks have already.

    Returns:
      For each table, rank -> its number of columns.
    """
    # fsum, so that the order of the tables does not even matter to the last bit.
    totals = [math.fsum([*(table.loads[i] for table in tables), *placed[:, i]]) for i in range(3)]
    mean = np.maximum(totals, 1e-300) / world_size
    best, best_price = [], math.inf
    for limit in _LIMITS:
        widths = [table.cut(mean, limit, world_size) for table in tables]
        for together in (True, False):
            columns, loads = _placed(tables, widths, loads=placed / mean, mean=mean, together=together)
            shards = sum(len(ranks) for ranks in columns) / max(len(tables), 1)
            price = max(loads.max(), _GOOD) * (1 + _PRICE_OF_DOUBLING * math.log2(max(shards, 1)))
            if price < best_price - 1e-9:
                best, best_price = columns, price
        if all(table.widths is not None for table in tables):
            break
    return best


def _placed(
    tables: Sequence[Divisible], widths: list[list[int]], *, loads: np.ndarray, mean: np.ndarray, together: bool
) -> tuple[list[dict[int, int]], np.ndarray]:
    """The heaviest piece first, each goes where the largest of the three loads stays smallest.

    Args:
      loads: [world_size, 3], before, in parts of the mean.
      together: a rank that has a piece of the table already is preferred, while it stays within the mean.

    Returns:
      For each table, rank -> its number of columns; and the loads after.
    """
    pieces = []
    for number, table in enumerate(tables):
        share = np.divide(table.loads, mean)
        for width in widths[number]:
            load = share * (width / table.width)
            pieces.append((-load.max(), -load.sum(), table.name, number, width, load))
    pieces.sort(key=lambda piece: piece[:3])
    loads = loads.copy()
    columns: list[dict[int, int]] = [{} for _ in tables]
    for *_, number, width, load in pieces:
        after = loads + load
        worst = after.max(axis=1)
        mine = columns[number]
        rank = min(mine, key=lambda held: (worst[held], held)) if together and mine else None
        if rank is None or worst[rank] > 1:
            least = np.flatnonzero(worst == worst.min())
            rank = int(least[after[least].sum(axis=1).argmin()])
        loads[rank] = after[rank]
        mine[rank] = mine.get(rank, 0) + width
    return columns, loads
