"""The tables of one rank, and the lookup in them.

All shards of a rank that have the same width lie in one variable, one below the other: a *slab*. One gather serves all
of them and writes the vectors of a sample side by side, the form in which the exchange and the interaction want them.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf

from dlrm_tf2.embedding.initial import initial_rows
from dlrm_tf2.embedding.plan import Shard
from dlrm_tf2.embedding.tables import FLOAT_BYTES, TableConfig
from dlrm_tf2.memory import use_huge_pages

_BLOCK_BYTES = 8 << 20  # of initial weights made at a time


class Slab:
    """Shards of equal width in one float32 variable [sum of their rows, width].

    Args:
      shards: the rectangles, in the order of the ids' columns.
      tables: name -> table, of all shards.
      seed: seed of the initial weights, the same on every rank; None leaves the memory as it is.

    The variable is filled block by block; there is never a second copy of it.
    """

    def __init__(self, shards: Sequence[Shard], tables: Mapping[str, TableConfig], seed: int | None):
        assert shards and len({shard.num_columns for shard in shards}) == 1, "a slab has one width"
        self.shards = tuple(shards)
        self.width = shards[0].num_columns
        starts = np.cumsum([0, *(shard.num_rows for shard in shards)])
        self._first_row = dict(zip(self.shards, starts.tolist(), strict=False))
        # The row in the slab of a shard's id i is i + offset.
        self.offsets = tf.constant([start - shard.rows[0] for shard, start in self._first_row.items()], tf.int64)
        # Empty leaves the memory untouched until the blocks below write it.
        empty = tf.raw_ops.Empty(shape=[int(starts[-1]), self.width], dtype=tf.float32, init=False)
        if empty.device.endswith("CPU:0"):
            use_huge_pages(memoryview(empty))
        self.variable = tf.Variable(empty, trainable=False, name="slab")
        del empty  # the variable must own its memory alone, or the first write copies it
        if seed is not None:
            for shard in self.shards:
                self._initialize(shard, tables[shard.table], seed)

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

    def write_rows(self, shard: Shard, start: int, values: np.ndarray) -> None:
        """Overwrites rows from `start` on (counted in the shard's table) with values [n, width]."""
        first = self._slab_row(shard, start)
        rows = tf.range(first, first + len(values), dtype=tf.int64)
        # As fast as a copy. variable[a:b].assign(...) would first read, and so copy, the whole variable.
        tf.raw_ops.ResourceScatterUpdate(resource=self.variable.handle, indices=rows, updates=values)

    def _initialize(self, shard: Shard, table: TableConfig, seed: int) -> None:
        rows_at_once = max(1, _BLOCK_BYTES // (FLOAT_BYTES * self.width))
        for start in range(*shard.rows, rows_at_once):
            stop = min(start + rows_at_once, shard.rows[1])
            self.write_rows(shard, start, initial_rows(table, seed, start, stop, shard.columns))

    def _slab_row(self, shard: Shard, row: int) -> int:
        assert shard.rows[0] <= row <= shard.rows[1]
        return self._first_row[shard] + row - shard.rows[0]
