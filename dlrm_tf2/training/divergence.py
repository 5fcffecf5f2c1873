"""The table that a diverged model names: found by reading the tables, only after a step reported that one is broken."""

import numpy as np

from dlrm_tf2.embedding.layer import DistributedEmbedding
from dlrm_tf2.runtime import activity

_BLOCK_BYTES = 8 << 20


def first_broken_table(embedding: DistributedEmbedding) -> str | None:
    """Name of this rank's first table with a weight or state that is not finite; None if all numbers are finite."""
    order = {table.name: number for number, table in enumerate(embedding.tables)}
    for shard in sorted(embedding.plan.of_rank(embedding.rank), key=lambda shard: order[shard.table]):
        rows_at_once = max(1, _BLOCK_BYTES // (4 * shard.num_columns))
        if table := embedding.dynamic_tables.get(shard.table):  # the other rows hold nothing
            rows = table.stored().rows
            blocks = [rows[start : start + rows_at_once] for start in range(0, len(rows), rows_at_once)]
            if not all(np.isfinite(table.read(block, slot)).all() for slot in embedding.slots for block in blocks):
                return shard.table
            continue
        for slot in embedding.slots:
            for start in range(*shard.rows, rows_at_once):
                activity.report_progress()
                stop = min(start + rows_at_once, shard.rows[1])
                if not np.isfinite(embedding.read_rows(shard, slot, start=start, stop=stop)).all():
                    return shard.table
    return None
