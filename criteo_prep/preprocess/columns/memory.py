"""The memory that the categorical columns take: how many columns may be encoded at a time."""

from dataclasses import dataclass

import numpy as np

from criteo_prep.preprocess.columns.rank_bitmap import BITMAP_BYTES
from criteo_prep.preprocess.columns.vocabulary import WINDOW_IDS
from criteo_prep.sizes import shown_bytes

# The interpreter, its libraries and numba's code; measured 0.25 GB.
_BASE_BYTES = 300 << 20
# Of each worker: blocks of text and of columns, and a small column's hash table while it grows.
_WORKER_BYTES = 120 << 20
# The largest column of Criteo's 1 TB logs has 292,775,614 distinct values (T0); more are counted where memory allows.
MOST_DISTINCT = 300_000_000


class PreflightError(ValueError):
    """The work does not fit this machine, or its limits are not valid."""


@dataclass(frozen=True)
class MemoryPlan:
    """How many columns with many distinct values may be encoded at a time.

    Args:
      limit_bytes: memory that this process may use.
      workers: threads of this process.
    """

    limit_bytes: int
    workers: int

    @property
    def base_bytes(self) -> int:
        return _BASE_BYTES + self.workers * _WORKER_BYTES

    def large_columns(self, num_rows: int) -> int:
        """Large columns that may be encoded at a time, at least 1."""
        each = large_column_bytes(min(num_rows, MOST_DISTINCT))
        return int(np.clip((self.limit_bytes - self.base_bytes) // each, 1, self.workers))

    @property
    def most_distinct(self) -> int:
        """Distinct values that one column may have under the limit; the inverse of large_column_bytes."""
        available = self.limit_bytes - self.base_bytes - large_column_bytes(0)
        in_window = min(available // 8, WINDOW_IDS)
        return max(0, in_window if available < 8 * WINDOW_IDS else (available - 4 * WINDOW_IDS) // 4)

    def check_distinct(self, column: str, num_distinct: int, at_a_time: int) -> None:
        """Raises PreflightError where the memory limit does not allow to count that many distinct values.

        Args:
          column: name of the column, for the message.
          num_distinct: distinct values in the column.
          at_a_time: large columns that share the memory.
        """
        needed, available = large_column_bytes(num_distinct), (self.limit_bytes - self.base_bytes) // at_a_time
        if needed > available:
            raise PreflightError(
                f"{column}: {num_distinct:,} distinct values need {shown_bytes(needed * at_a_time + self.base_bytes)} "
                f"of memory to be counted, more than the limit of {shown_bytes(self.limit_bytes)}. Give a "
                "--memory_limit of that size; what is done so far is kept."
            )


def large_column_bytes(num_distinct: int) -> int:
    """Memory to count one column by a bitmap: the bitmap, a count per value, and a window of the vocabulary."""
    return BITMAP_BYTES + 4 * num_distinct + 4 * min(num_distinct, WINDOW_IDS) + (96 << 20)
