"""Tables on their way into a plan: cut by rows, where that is to be, and their columns dealt out to the ranks.

Pure Python, no TensorFlow, no communication.
"""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from dlrm_tf2.sharding import placement
from dlrm_tf2.sharding.tables import (
    FLOAT_BYTES,
    TableConfig,
    fetched_per_sample,
    share_of_ids,
    state_bytes,
    vectors_per_sample,
)

_FEWEST_ROWS = 1 << 16  # `balanced` makes no block of fewer rows


@dataclass(frozen=True)
class Block:
    """Rows of a table, all of them when not given, that are to be placed; on `rank` if that is decided."""

    table: TableConfig
    rows: tuple[int, int] | None = None
    rank: int | None = None

    @property
    def span(self) -> tuple[int, int]:
        return self.rows or (0, self.table.num_rows)

    @property
    def num_rows(self) -> int:
        return self.span[1] - self.span[0]

    def loads(self, hotness: Mapping[str, float], optimizer: str) -> tuple[float, float, float]:
        """Bytes of weights and state; elements fetched and elements sent, per sample."""
        table, width = self.table, self.table.embedding_dim
        state = state_bytes(optimizer, self.num_rows, width)
        fetched = fetched_per_sample(table, hotness) * share_of_ids(table, self.span)
        sent = vectors_per_sample(table, hotness)
        return self.num_rows * width * FLOAT_BYTES + state, fetched * width, sent * width

    def all_on_its_rank(self) -> dict[int, int]:
        """Rank -> columns, if the rank is decided."""
        return {} if self.rank is None else {self.rank: self.table.embedding_dim}


def cut_by_rows(
    table: TableConfig, world_size: int, *, row_slice_threshold: int | None, much: float, narrowest: int
) -> list[Block]:
    """The table as one block, or cut by rows.

    Args:
      row_slice_threshold: from so many elements on, over all ranks.
      much: else, into blocks that cuts by columns can bring down to so many bytes,
      narrowest: where pieces have so many columns at least.
    """
    if world_size > 1 and row_slice_threshold and table.num_elements >= row_slice_threshold:
        spans = _spans(table.num_rows, world_size)
        return [Block(table, span, rank) for rank, span in enumerate(spans) if span[0] < span[1]]
    smallest = table.num_bytes / max(1, table.embedding_dim // narrowest)
    parts = min(math.ceil(smallest / much), world_size, table.num_rows // _FEWEST_ROWS)
    if parts <= 1:
        return [Block(table)]
    return [Block(table, span) for span in _spans(table.num_rows, parts)]


def _spans(num_rows: int, parts: int) -> list[tuple[int, int]]:
    stops = list(itertools.accumulate(placement.evenly(num_rows, parts)))
    return list(zip([0, *stops], stops, strict=False))


def dealt_balanced(
    blocks: Sequence[Block], placed: np.ndarray, *, threshold: int | None, loads: Callable[[Block], Sequence[float]]
) -> list[dict[int, int]]:
    """For each block, rank -> its number of columns.

    Args:
      placed: [world_size, 3], what the ranks have already.
      threshold: column_slice_threshold.
      loads: block -> its three loads.
    """
    for block in blocks:
        if block.rank is not None:
            placed[block.rank] += loads(block)
    free = [block for block in blocks if block.rank is None]
    divisible = [
        placement.Divisible(
            f"{block.table.name}:{block.span[0]}",
            loads(block),
            num_rows=block.num_rows,
            width=block.table.embedding_dim,
            widths=tuple(_widths(block, threshold, len(placed))) if threshold else None,
        )
        for block in free
    ]
    found = iter(placement.balance(divisible, len(placed), placed))
    return [next(found) if block.rank is None else block.all_on_its_rank() for block in blocks]


def dealt_published(
    blocks: Sequence[Block], world_size: int, *, strategy: str, threshold: int | None
) -> list[dict[int, int]]:
    """For each block, rank -> its number of columns."""
    free = [number for number, block in enumerate(blocks) if block.rank is None]
    if threshold is None:
        threshold = placement.threshold_for([blocks[number].table.num_elements for number in free], world_size)
    pieces = [(number, width) for number in free for width in _widths(blocks[number], threshold, world_size)]
    sizes = [blocks[number].table.num_rows * width for number, width in pieces]
    ranks = placement.PUBLISHED[strategy](sizes, [number for number, _ in pieces], world_size)
    result = [block.all_on_its_rank() for block in blocks]
    for (number, width), rank in zip(pieces, ranks, strict=True):
        result[number][rank] = result[number].get(rank, 0) + width
    return result


def _widths(block: Block, threshold: float, world_size: int) -> list[int]:
    return placement.columns_cut(block.num_rows, block.table.embedding_dim, threshold=threshold, most=world_size)
