"""Initial weights of embedding tables: random, and a function of seed, table, row and column alone.

So a weight does not depend on the plan, and a table of any size is filled block by block. Element i of a table is made
of the bits at place i of a SplitMix64 stream, whose key is made of the seed and the table's name.

Source: NVIDIA's and Facebook's DLRM have the same range, uniform in +-sqrt(1 / rows).
"""

from zlib import crc32

import numpy as np

from criteo_prep.compiled import compiled
from criteo_prep.splitmix64 import GAMMA, mix64
from dlrm_tf2.sharding.tables import TableConfig


def initial_rows(table: TableConfig, seed: int, *, start: int, stop: int, columns: tuple[int, int]) -> np.ndarray:
    """The initial weights of rows [start, stop) and columns [columns[0], columns[1]) of a table.

    Args:
      seed: from 0 to 2**63 - 1.

    Returns:
      float32 [stop - start, columns[1] - columns[0]], uniform in +-sqrt(1 / table.num_rows).
    """
    out = np.empty((stop - start, columns[1] - columns[0]), np.float32)
    key = np.uint64(mix64((np.uint64(seed) << np.uint64(1)) ^ np.uint64(crc32(table.name.encode()) << 32)))
    bound = np.float32(table.num_rows**-0.5)
    _fill(out, key, np.uint64(start), np.uint64(columns[0]), np.uint64(table.embedding_dim), bound)
    return out


@compiled
def _fill(out, key, first_row, first_column, table_width, bound):
    """Fills out[i, j] with the weight of row first_row + i and column first_column + j."""
    for row in range(out.shape[0]):
        first = (first_row + np.uint64(row)) * table_width + first_column
        for column in range(out.shape[1]):
            bits = mix64(key + (first + np.uint64(column)) * GAMMA)
            # 24 bits are what a float32 in [0, 2) holds exactly.
            out[row, column] = (np.float32(bits >> np.uint64(40)) * np.float32(2**-23) - np.float32(1)) * bound
