"""The memory that encoding the categorical columns takes: how many columns may be in work at a time."""

from dataclasses import dataclass

import numpy as np

from criteo_prep.preprocess.columns.rank_bitmap import BITMAP_BYTES
from criteo_prep.preprocess.columns.vocabulary import WINDOW_IDS
from criteo_prep.sizes import shown_bytes

# The interpreter with its libraries and numba's code; measured 0.25 GB.
_BASE_BYTES = 300 << 20
# Blocks of text and of columns on their way, and a small column's hash table while it grows; of each worker.
_WORKER_BYTES = 120 << 20
# The largest column of Criteo's 1 TB logs has 292,775,614 distinct values (T0); more are counted if memory allows.
MOST_DISTINCT = 300_000_000


class PreflightError(ValueError):
    """What is asked for does not fit this machine."""


@dataclass(frozen=True)
class MemoryPlan:
    """How many columns with many distinct values may be in work at a time.

    Args:
      limit_bytes: memory that this process may use.
      workers: threads.
    """

    limit_bytes: int
    workers: int

    @property
    def base_bytes(self) -> int:
        return _BASE_BYTES + self.workers * _WORKER_BYTES

    def large_columns(self, num_rows: int) -> int:
        """1 at least."""
        each = large_column_bytes(min(num_rows, MOST_DISTINCT))
        return int(np.clip((self.limit_bytes - self.base_bytes) // each, 1, self.workers))

    @property
    def most_distinct(self) -> int:
        """The distinct values that one column may have under the limit; see large_column_bytes."""
        there = self.limit_bytes - self.base_bytes - large_column_bytes(0)
        return max(0, min(there // 8, WINDOW_IDS) if there < 8 * WINDOW_IDS else (there - 4 * WINDOW_IDS) // 4)

    def check_distinct(self, column: str, num_distinct: int, at_a_time: int) -> None:
        """Raises PreflightError where a column has more distinct values than memory allows to count."""
        needed, there = large_column_bytes(num_distinct), (self.limit_bytes - self.base_bytes) // at_a_time
        if needed > there:
            raise PreflightError(
                f"{column}: {num_distinct:,} distinct values need {gigabytes(needed * at_a_time + self.base_bytes)} of "
                f"memory to be counted, more than the limit of {gigabytes(self.limit_bytes)}. Give a --memory_limit of "
                "that much; what is done so far is kept."
            )


def large_column_bytes(num_distinct: int) -> int:
    """Memory of one column that is counted by a bitmap: the bitmap, a count each, a window of the vocabulary."""
    return BITMAP_BYTES + 4 * num_distinct + 4 * min(num_distinct, WINDOW_IDS) + (96 << 20)


def gigabytes(size: int) -> str:
    return shown_bytes(size)
