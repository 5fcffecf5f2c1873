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

    The first rows of each table are in memory, the other rows in a file without a name. The system keeps the
    pages that are in use in the memory that is free. Rows have the same numbers, and so the same bits, with any tiers.

    Attributes:
      memory_bytes: bytes of a rank that are in memory; of all of the rank's dynamic tables together.
      folder: folder for the file, on a local disk.
    """

    memory_bytes: int
    folder: str

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
          ValueError: memory_bytes is negative, or the folder cannot be written.
        """
        if self.memory_bytes < 0:
            raise ValueError(f"tiers: memory_bytes {self.memory_bytes}; it must be 0 or more.")
        if not os.path.isdir(self.folder) or not os.access(self.folder, os.W_OK | os.X_OK):
            raise ValueError(f"{self.folder}: is not a folder that can be written. Name a folder on a local disk.")
        num_bytes = 0
        for shards in shards_of_slabs.values():
            if any(tables[shard.table].is_dynamic for shard in shards):
                for shard in shards:
                    num_bytes += shard.num_rows * shard.num_columns * WEIGHT_BYTES[table_dtype]
                    num_bytes += state_bytes(optimizer.name, shard.num_rows, shard.num_columns) if optimizer else 0
        return TierSizes(min(1.0, self.memory_bytes / max(1, num_bytes)), self.folder)
