"""How often each id or key occurs in each split, exactly, with bounded memory.

The ids of a feature are counted in parts: part k of n has the ids whose hash is k modulo n. The number of parts is
doubled while the first part is counted, until a part fits; each part then reads the feature once more.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import polars as pl

VALUE = "value"
MOST_IDS = 1 << 24  # different ids that are in memory at a time: about a gigabyte while polars adds them up

# split -> the ids of a feature, int64, in pieces
Read = Callable[[str], Iterator[np.ndarray]]


def counted_parts(read: Read, splits: Sequence[str], *, most_ids: int = MOST_IDS) -> Iterator[pl.DataFrame]:
    """Yields the counts of all ids: every id stands in one row of one part.

    Args:
      read: reads a split of the feature.
      splits: the splits to count.
      most_ids: ids in memory at a time, which decides the number of parts.

    Returns:
      Frames with the columns "value" (int64) and, for each split, how often the id occurs in it (int64).
    """
    num_parts, part = 1, 0
    while part < num_parts:
        counts = _empty(splits)
        for pieces in _gathered(read, splits):
            counts = _sum([counts, *(_in_part(piece, part, num_parts) for piece in pieces)], splits)
            while part == 0 and len(counts) > most_ids:
                num_parts *= 2
                counts = _in_part(counts, part, num_parts)
        yield counts
        part += 1


def _gathered(read: Read, splits: Sequence[str]) -> Iterator[list[pl.DataFrame]]:
    """The counted pieces of all splits, several at a time: adding up is worth its time for many ids only."""
    gathered: list[pl.DataFrame] = []
    for split in splits:
        for ids in read(split):
            counted = pl.DataFrame({VALUE: ids}).group_by(VALUE).agg(pl.len().cast(pl.Int64).alias(split))
            gathered.append(counted.select(VALUE, *(_column(name, split) for name in splits)))
            if sum(map(len, gathered)) > 1 << 22 or len(gathered) == 64:
                yield gathered
                gathered = []
    if gathered:
        yield gathered


def _column(name: str, split: str) -> pl.Expr:
    return pl.col(name) if name == split else pl.lit(0, pl.Int64).alias(name)


def _in_part(counts: pl.DataFrame, part: int, num_parts: int) -> pl.DataFrame:
    return counts if num_parts == 1 else counts.filter(pl.col(VALUE).hash(seed=1) % num_parts == part)


def _sum(frames: list[pl.DataFrame], splits: Sequence[str]) -> pl.DataFrame:
    return pl.concat(frames).group_by(VALUE).agg(pl.col(*splits).sum())


def _empty(splits: Sequence[str]) -> pl.DataFrame:
    return pl.DataFrame(schema={VALUE: pl.Int64, **dict.fromkeys(splits, pl.Int64)})
