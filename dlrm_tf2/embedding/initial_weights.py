"""Initial weights of embedding tables: random, and a function of seed, table, row and column alone.

So a weight is the same wherever the plan puts it and however the table is cut, and a table of any size is filled block
by block. The numbers come from a counter: element i of a table is the i-th output of the SplitMix64 generator.

Source: range of NVIDIA's and Facebook's DLRM, uniform in +-sqrt(1 / rows). SplitMix64: Steele, Lea and Flood, "Fast
Splittable Pseudorandom Number Generators" (2014).
"""

from zlib import crc32

import numba
import numpy as np

from dlrm_tf2.sharding.tables import TableConfig

_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_MIX_1, _MIX_2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


def initial_rows(table: TableConfig, seed: int, *, start: int, stop: int, columns: tuple[int, int]) -> np.ndarray:
    """The initial weights of rows [start, stop) and columns [columns[0], columns[1]) of a table.

    Args:
      seed: from 0 to 2**63 - 1.

    Returns:
      float32 [stop - start, columns[1] - columns[0]], uniform in +-sqrt(1 / table.num_rows).
    """
    out = np.empty((stop - start, columns[1] - columns[0]), np.float32)
    key = _mixed((np.uint64(seed) << np.uint64(1)) ^ np.uint64(crc32(table.name.encode()) << 32))
    bound = np.float32(table.num_rows**-0.5)
    _fill(out, key, np.uint64(start), np.uint64(columns[0]), np.uint64(table.embedding_dim), bound)
    return out


@numba.njit("uint64(uint64)")
def _mixed(z):
    z = (z ^ (z >> np.uint64(30))) * _MIX_1
    z = (z ^ (z >> np.uint64(27))) * _MIX_2
    return z ^ (z >> np.uint64(31))


@numba.njit("void(float32[:, ::1], uint64, uint64, uint64, uint64, float32)", nogil=True)
def _fill(out, key, first_row, first_column, table_width, bound):
    for row in range(out.shape[0]):
        first = (first_row + np.uint64(row)) * table_width + first_column
        for column in range(out.shape[1]):
            bits = _mixed(key + (first + np.uint64(column)) * _GAMMA)
            # 24 bits are what a float32 in [0, 2) holds exactly.
            out[row, column] = (np.float32(bits >> np.uint64(40)) * np.float32(2**-23) - np.float32(1)) * bound
