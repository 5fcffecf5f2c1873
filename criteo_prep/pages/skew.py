"""What the counts of ids say: the share that a threshold keeps, the share of the top ids, the exponent."""

from collections.abc import Iterable

import numpy as np
import polars as pl

_LEAST_COUNT = 10  # of an id that the exponent is computed from: rarer ids have counts that are mostly chance
_LEAST_IDS = 10
_FIT_POINTS = 50


class CountHistogram:
    """How many ids have each count.

    Args:
      frames: frames with the columns "count", how often an id occurs (0 is left out), and "num_ids".

    Attributes:
      counts: int64 [n], the different counts, descending.
      num_ids: int64 [n], how many ids have each.
    """

    def __init__(self, frames: Iterable[pl.DataFrame] = ()):
        whole = pl.DataFrame(schema={"count": pl.Int64, "num_ids": pl.Int64})
        for frame in frames:
            frame = frame.select(pl.col("count").cast(pl.Int64), pl.col("num_ids").cast(pl.Int64))
            whole = pl.concat([whole, frame]).group_by("count").agg(pl.col("num_ids").sum())
        whole = whole.filter(pl.col("count") > 0).sort("count", descending=True)
        self.counts, self.num_ids = whole["count"].to_numpy(), whole["num_ids"].to_numpy()
        self._ids = np.cumsum(self.num_ids)
        self._occurrences = np.cumsum(self.counts * self.num_ids)

    @classmethod
    def of(cls, counts: Iterable[pl.Series]) -> "CountHistogram":
        """The histogram of counts, one for each id, in pieces."""
        return cls(
            pl.DataFrame({"count": each}).group_by("count").agg(pl.len().cast(pl.Int64).alias("num_ids"))
            for each in counts
        )

    @property
    def total_ids(self) -> int:
        return int(self._ids[-1]) if len(self._ids) else 0

    @property
    def total(self) -> int:
        """Occurrences of all ids together."""
        return int(self._occurrences[-1]) if len(self._occurrences) else 0

    def kept(self, threshold: int) -> tuple[int, int]:
        """(occurrences, number) of the ids that occur `threshold` times or more."""
        stop = int(np.searchsorted(-self.counts, -max(threshold, 1), side="right"))
        return (int(self._occurrences[stop - 1]), int(self._ids[stop - 1])) if stop else (0, 0)

    def top(self, num_ids: int) -> int:
        """Occurrences of the `num_ids` most frequent ids together."""
        if num_ids >= self.total_ids:
            return self.total
        run = int(np.searchsorted(self._ids, num_ids))
        before = int(self._ids[run - 1]) if run else 0
        return int(self._occurrences[run - 1] if run else 0) + (num_ids - before) * int(self.counts[run])

    def exponent(self) -> float | None:
        """The exponent s of the power law count ~ rank^-s; None for fewer than 10 ids that occur 10 times or more.

        Least squares on log(count) over log(rank), at 50 ranks with equal ratios, the most frequent id first.
        """
        num_ids = self.kept(_LEAST_COUNT)[1]
        if num_ids < _LEAST_IDS:
            return None
        ranks = np.unique(np.round(np.geomspace(1, num_ids, _FIT_POINTS)).astype(np.int64))
        counts = self.counts[np.searchsorted(self._ids, ranks)]
        return -float(np.polyfit(np.log(ranks), np.log(counts), 1)[0])
