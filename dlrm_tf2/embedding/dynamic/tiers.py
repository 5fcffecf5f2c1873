"""Tiers: dynamic tables that are larger than memory."""

import os
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from dlrm_tf2.ops.tiered_memory import TierSizes
from dlrm_tf2.optim import Optimizer
from dlrm_tf2.sharding.plan import Shard
from dlrm_tf2.sharding.slabs import SlabKind
from dlrm_tf2.sharding.tables import WEIGHT_BYTES, Table, state_bytes


class Tiers(NamedTuple):
    """Where the weights and the optimizer state of dynamic tables are.

    A split table has its first rows in memory and the other rows in a file without a name. A table with a cache has all
    rows in the file, and moves the rows that batches name into memory; rows that come seldom leave for them. The system
    keeps the pages of the file that are in use in the memory that is free. Rows have the same bits with any tiers.

    Attributes:
      memory_bytes: bytes of a rank that are in memory; of all of the rank's dynamic tables together.
      folder: folder for the file, on a local disk.
      caching: whether tables have a cache.
    """

    memory_bytes: int
    folder: str
    caching: bool = False

    def sizes(
        self,
        shards_of_slabs: Mapping[SlabKind, Sequence[Shard]],
        tables: Mapping[str, Table],
        *,
        optimizer: Optimizer | None,
        table_dtype: str,
    ) -> TierSizes:
        """The same share of each slab with dynamic tables.

        Raises:
          ValueError: memory_bytes is negative, the folder cannot be written, or a table with 16-bit weights is to have
            a cache.
        """
        if self.memory_bytes < 0:
            raise ValueError(f"tiers: memory_bytes {self.memory_bytes}; it must be 0 or more.")
        if not os.path.isdir(self.folder) or not os.access(self.folder, os.W_OK | os.X_OK):
            raise ValueError(f"{self.folder}: is not a folder that can be written. Name a folder on a local disk.")
        if self.caching and table_dtype != "float32":
            raise ValueError(
                f"tiers: caching with {table_dtype} tables; the rounding of their weights depends on the place of a "
                "row, which a cache changes. Use float32 tables, or leave caching out."
            )
        num_bytes = 0
        for shards in shards_of_slabs.values():
            if any(tables[shard.table].is_dynamic for shard in shards):
                for shard in shards:
                    num_bytes += shard.num_rows * shard.num_columns * WEIGHT_BYTES[table_dtype]
                    num_bytes += state_bytes(optimizer.name, shard.num_rows, shard.num_columns) if optimizer else 0
        share = min(1.0, self.memory_bytes / max(1, num_bytes))
        return TierSizes(share, self.folder, caching=self.caching and share < 1)
