"""ExchangeColumns: how pieces that several ranks make become the columns of the result. numpy, no TensorFlow.

An example: tables `a` and `c` of width 2 on rank 0, `b` on rank 1; samples 0 and 1 on rank 0, sample 2 on rank 1;
a0 is the vector of a for sample 0. Each rank has looked up its tables for all samples:

                rank 0                rank 1
    sample 0    a0  c0                b0
    sample 1    a1  c1                b1
    sample 2    a2  c2                b2

One alltoall sends each vector to the rank of its sample:

    sends       a0 c0 a1 c1 | a2 c2   b0 b1 | b2      (| between what is for rank 0 and what is for rank 1)
    receives    a0 c0 a1 c1 | b0 b1   a2 c2 | b2      (| between what is from rank 0 and what is from rank 1)

One gather brings the received vectors into the order of the result:

    sample 0    a0  b0  c0            sample 2    a2  b2  c2
    sample 1    a1  b1  c1

In numbers, with a grain of 2 columns: grains_of = [2, 1, 0], targets = [[0, 2], [1], []], and for the grains 0, 1, 2 of
the result source = [0, 1, 0], column = [0, 0, 1].
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from dlrm_tf2.embedding.result_layout import Piece


class Run(NamedTuple):
    """Columns, or grains, of one source that are next to each other in the result too.

    Attributes:
      source: number of the source.
      column: the first of them in the source.
      target: the first of them in the result.
      count: how many they are.
    """

    source: int
    column: int
    target: int
    count: int

    def times(self, grain: int) -> "Run":
        """A run of grains as a run of columns."""
        return Run(self.source, self.column * grain, target=self.target * grain, count=self.count * grain)


@dataclass(frozen=True)
class ExchangeColumns:
    """Where each column of the result comes from.

    Everything moves in *grains* of `grain` columns, the greatest common divisor of all widths: for tables of equal
    width a grain is a whole vector. A *source* is one rank; the last source is this rank again, with the pieces that it
    makes for its own samples only.

    Attributes:
      grain: columns of a grain.
      leading: grains of the result before the vectors, undefined, for the caller to write.
      num_grains: grains of the result, for one sample, the leading ones included.
      grains_of: int32 [sources], how many grains each source makes for one sample.
      targets: for each source, int32 [grains_of[source]]: the grain of the result that each of its grains goes to.
      source, column, target: int32 [sum(grains_of)]: all grains of all sources, as (source, number in the source, grain
        of the result). The first `num_grains` are one for each grain of the result, in order; the others are added to
        grains that have one already: tables cut by rows. A leading grain gets a copy of any grain.
    """

    grain: int
    leading: int
    num_grains: int
    grains_of: np.ndarray
    targets: tuple[np.ndarray, ...]
    source: np.ndarray
    column: np.ndarray
    target: np.ndarray

    @classmethod
    def of(
        cls,
        pieces_of_ranks: Sequence[Sequence[Piece]],
        *,
        own: Sequence[Piece],
        width: int,
        leading_columns: int = 0,
    ) -> "ExchangeColumns":
        """The columns of an exchange.

        Args:
          pieces_of_ranks: for each rank, the pieces that it makes for the global batch.
          own: the pieces that this rank makes for its own samples.
          width: columns of the vectors; the pieces must cover all of them.
          leading_columns: columns wanted before the vectors. There are none where they are not whole grains.
        """
        spans = [[(piece.start, piece.width) for piece in pieces] for pieces in (*pieces_of_ranks, own)]
        grain = math.gcd(width, *(number for pieces in spans for span in pieces for number in span))
        leading = 0 if leading_columns % grain else leading_columns // grain
        targets = tuple(
            np.array([t for start, size in pieces for t in range(start // grain, (start + size) // grain)], np.int32)
            + np.int32(leading)
            for pieces in spans
        )
        grains_of = np.array([len(grains) for grains in targets], np.int32)
        nowhere = np.zeros(leading, np.int32)
        source = np.concatenate([nowhere, np.repeat(np.arange(len(spans)), grains_of)])
        column = np.concatenate([nowhere, *(np.arange(count) for count in grains_of)])
        target = np.concatenate([np.arange(leading), *targets])
        _, first = np.unique(target, return_index=True)
        assert len(first) == leading + width // grain, "the pieces cover the result"
        order = np.concatenate([first, np.setdiff1d(np.arange(len(target)), first)])
        in_order = (part[order].astype(np.int32) for part in (source, column, target))
        return cls(grain, leading, leading + width // grain, grains_of, targets, *in_order)

    @property
    def runs(self) -> tuple[list[Run], list[Run]]:
        """The same as runs of columns, without the leading ones: (runs that are copied, runs that are added)."""
        grains = np.stack([self.source, self.column, self.target], axis=1)
        copied, added = _runs(grains[self.leading : self.num_grains]), _runs(grains[self.num_grains :])
        return [run.times(self.grain) for run in copied], [run.times(self.grain) for run in added]

    @property
    def has_sums(self) -> bool:
        """Whether several grains are added to one grain of the result."""
        return len(self.target) > self.num_grains

    @property
    def is_identity(self) -> bool:
        """Whether the first source makes the whole result, in order."""
        return not (self.has_sums or self.source.any()) and np.array_equal(self.column, np.arange(self.num_grains))


def _runs(grains: np.ndarray) -> list[Run]:
    """(source, column, target) [n, 3] as runs of grains that are next to each other in source and result."""
    starts = np.flatnonzero(np.any(np.diff(grains, axis=0, prepend=-2) != [0, 1, 1], axis=1))
    counts = np.diff(starts, append=len(grains))
    return [Run(*map(int, grains[start]), int(count)) for start, count in zip(starts, counts, strict=True)]
