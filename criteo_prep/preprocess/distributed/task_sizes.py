"""How much one task does. The bytes of a dataset do not depend on it; the memory of a task does."""

from dataclasses import dataclass


@dataclass(frozen=True)
class TaskSizes:
    """Sizes of tasks.

    Attributes:
      split_bytes: text in a split; a compressed file is one split in any case.
      part_rows: rows in a part file, of 131 bytes each, which are in memory while the part is made.
      task_rows: rows that a later task reads, 4 bytes each of one column.
      bucket_rows: rows whose values are counted in one bucket of a column; the bucket has at most about as many
        distinct values, of 50 bytes each while they are merged.
    """

    split_bytes: int = 64 << 20
    part_rows: int = 1 << 19
    task_rows: int = 1 << 22
    bucket_rows: int = 1 << 23
