"""The tables of one rank, and the lookup in them.

All shards of a rank that have the same width lie in one variable, one below the other: a *slab*. One gather serves all
of them and writes the vectors of a sample side by side, the form in which the exchange and the interaction want them.
"""

from collections.abc import Iterator, Sequence
from zlib import crc32

import numpy as np
import tensorflow as tf

from dlrm_tf2.embedding.plan import Shard

# Initial weights are drawn in blocks of rows, so that they depend on seed, table, row and column, not on the plan.
_INIT_ROWS = 16384


class Slab:
    """Shards of equal width in one float32 variable [sum of their rows, width].

    Args:
      shards: the rectangles, in the order of the ids' columns; whole in columns.
      table_rows: table name -> rows of the whole table, for the range of its initial weights.
      seed: seed of the initial weights, the same on every rank; None leaves the memory as it is.

    The variable is filled block by block; there is never a second copy of it.
    """

    def __init__(self, shards: Sequence[Shard], table_rows: dict[str, int], seed: int | None):
        assert shards and len({shard.num_columns for shard in shards}) == 1, "a slab has one width"
        self.shards = tuple(shards)
        self.width = shards[0].num_columns
        starts = np.cumsum([0, *(shard.num_rows for shard in shards)])
        self._first_row = dict(zip(self.shards, starts.tolist(), strict=False))
        # The row in the slab of a shard's id i is i + offset.
        self.offsets = tf.constant([start - shard.rows[0] for shard, start in self._first_row.items()], tf.int64)
        # Empty leaves the memory untouched until the blocks below write it.
        empty = tf.raw_ops.Empty(shape=[int(starts[-1]), self.width], dtype=tf.float32, init=False)
        self.variable = tf.Variable(empty, trainable=False, name="slab")
        del empty  # the variable must own its memory alone, or the first write copies it
        for shard in self.shards if seed is not None else ():
            for start, values in _initial_blocks(shard, table_rows[shard.table], seed):
                self.write_rows(shard, start, values)

    def gather(self, ids: tf.Tensor) -> tf.Tensor:
        """Vectors [batch, shards, width] of ids [batch, shards] (integers; column k belongs to shard k)."""
        return tf.gather(self.variable, self.slab_rows(ids))

    def slab_rows(self, ids: tf.Tensor) -> tf.Tensor:
        """The rows of the variable, int64 [batch, shards], that ids [batch, shards] mean."""
        return tf.cast(ids, tf.int64) + self.offsets

    def read_rows(self, shard: Shard, start: int, stop: int) -> np.ndarray:
        """Rows [start, stop) of the shard's table, which lie in the shard: float32 [stop - start, width]."""
        first = self._slab_row(shard, start)
        return tf.gather(self.variable, tf.range(first, first + stop - start, dtype=tf.int64)).numpy()

    def write_rows(self, shard: Shard, start: int, values: tf.Tensor | np.ndarray) -> None:
        """Overwrites rows from `start` on (counted in the shard's table) with values [n, width]."""
        first = self._slab_row(shard, start)
        # variable[a:b].assign(...) would do the same after reading, and so copying, the whole variable.
        tf.raw_ops.ResourceStridedSliceAssign(
            ref=self.variable.handle,
            begin=tf.constant([first, 0], tf.int64),
            end=tf.constant([first + len(values), self.width], tf.int64),
            strides=tf.constant([1, 1], tf.int64),
            value=values,
        )

    def _slab_row(self, shard: Shard, row: int) -> int:
        assert shard.rows[0] <= row <= shard.rows[1]
        return self._first_row[shard] + row - shard.rows[0]


def _initial_blocks(shard: Shard, table_rows: int, seed: int) -> Iterator[tuple[int, tf.Tensor]]:
    """Yields (first row, values) of a shard's initial weights: uniform in +-sqrt(1 / rows of the table).

    Source: NVIDIA's DLRM, as Facebook's, draws tables from this range.
    """
    bound = (1.0 / table_rows) ** 0.5
    table_seed = crc32(shard.table.encode()) << 20  # blocks of a table are below 2**20
    for block in range(shard.rows[0] // _INIT_ROWS, -(-shard.rows[1] // _INIT_ROWS)):
        start, stop = max(shard.rows[0], block * _INIT_ROWS), min(shard.rows[1], (block + 1) * _INIT_ROWS)
        values = tf.random.stateless_uniform(
            [_INIT_ROWS, shard.columns[1]], [seed, table_seed + block], minval=-bound, maxval=bound, alg="philox"
        )
        offset = block * _INIT_ROWS
        yield start, values[start - offset : stop - offset, shard.columns[0] :]
