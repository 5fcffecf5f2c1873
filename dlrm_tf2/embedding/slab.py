"""Slab: the shards of one rank that have the same width, in one variable, one below the other.

Replicated shards lie in a slab of their own, and so do the shards that a GPU leaves in the memory of its host, where
their lookups and updates then run.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import tensorflow as tf

from dlrm_tf2.embedding.initial_weights import initial_rows
from dlrm_tf2.optim import Optimizer
from dlrm_tf2.runtime import activity
from dlrm_tf2.runtime.memory import use_huge_pages
from dlrm_tf2.sharding.plan import Shard
from dlrm_tf2.sharding.slabs import first_rows
from dlrm_tf2.sharding.tables import FLOAT_BYTES, TableConfig

WEIGHTS = "weights"
_HOST = "/CPU:0"
_BLOCK_BYTES = 8 << 20  # of initial weights made at a time


class Slab:
    """Shards of equal width in one variable [sum of their rows, width], and one more for each slot of the optimizer.

    Args:
      shards: the rectangles; their rows lie in the slab in this order.
      tables: name -> table, of all shards.
      seed: seed of the initial weights, the same on every rank; None leaves the memory as it is.
      optimizer: which slots to keep; None for none, where nothing is trained.
      dtype: of the weights.
      on_host: keep them in host memory, and look up and update there, also where there is a GPU.

    The variables are filled block by block; there is never a second copy of one.
    """

    def __init__(
        self,
        shards: Sequence[Shard],
        tables: Mapping[str, TableConfig],
        *,
        seed: int | None,
        optimizer: Optimizer | None = None,
        dtype: tf.DType = tf.float32,
        on_host: bool = False,
    ):
        assert shards and len({shard.num_columns for shard in shards}) == 1, "a slab has one width"
        self.shards, self.width, self._optimizer, self._dtype = tuple(shards), shards[0].num_columns, optimizer, dtype
        self.first_rows = first_rows(self.shards)
        self.num_rows = sum(shard.num_rows for shard in shards)
        self._on_host, self._slots = on_host, {}
        with self.device():
            self.variable = self._allocate(self.width, "slab")
            for slot in optimizer.row_slots if optimizer else ():
                self._slots[slot] = self._allocate(optimizer.row_slot_width(self.width), f"slab_{slot}")
        for shard in self.shards if seed is not None else ():
            self._initialize(shard, tables[shard.table], seed)

    def device(self) -> AbstractContextManager:
        """Where what belongs to the slab is computed: where TensorFlow likes, or on the host."""
        return tf.device(_HOST) if self._on_host else nullcontext()

    def gather(self, rows: tf.Tensor) -> tf.Tensor:
        """The vectors [..., width] of rows [...] of the slab."""
        with self.device():
            return tf.gather(self.variable, rows)

    def update(
        self, rows: tf.Tensor, gradients: tf.Tensor, *, learning_rate: tf.Tensor, step: tf.Tensor | None
    ) -> None:
        """One step of the optimizer on the rows that are named; the gradients of a row named twice are added up.

        Args:
          rows: int64 [n], of the slab.
          gradients: [n, width], in the type of the weights.
          learning_rate: scalar.
          step: 1, 2, ..., which adam reads.
        """
        with self.device():
            learning_rate = tf.cast(learning_rate, self._dtype)
            # For sgd too: subtracting a hot row's many small gradients one by one would round each time, in any order.
            rows, gradients = summed(rows, gradients)
            slots = {slot: tf.gather(variable, rows) for slot, variable in self._slots.items()}
            step = tf.cast(0 if step is None else step, self._dtype)
            direction, new = self._optimizer.update(gradients, slots, step=step, rows=True)
            for slot, values in new.items():
                self._slots[slot].scatter_update(tf.IndexedSlices(values, rows))
            self.variable.scatter_sub(tf.IndexedSlices(direction * learning_rate, rows))

    def read_rows(self, shard: Shard, slot: str, *, start: int, stop: int) -> np.ndarray:
        """Rows [start, stop) of the shard's table, which lie in the shard: [stop - start, width].

        A slot with one number a row is repeated over the columns, so that every slot has the form of the table.
        """
        first = self._slab_row(shard, start)
        with self.device():
            values = tf.gather(self._variable(slot), tf.range(first, first + stop - start, dtype=tf.int64)).numpy()
        return np.broadcast_to(values, (stop - start, self.width))

    def write_rows(self, shard: Shard, slot: str, *, start: int, values: np.ndarray) -> None:
        """Overwrites rows from `start` on (counted in the shard's table) with values [n, width]."""
        first, variable = self._slab_row(shard, start), self._variable(slot)
        with self.device():
            rows = tf.range(first, first + len(values), dtype=tf.int64)
            values = tf.constant(values[:, : variable.shape[1]], self._dtype)
            # As fast as a copy. variable[a:b].assign(...) would first read, and so copy, the whole variable.
            tf.raw_ops.ResourceScatterUpdate(resource=variable.handle, indices=rows, updates=values)

    def _allocate(self, width: int, name: str) -> tf.Variable:
        empty = tf.raw_ops.Empty(shape=[self.num_rows, width], dtype=self._dtype, init=name != "slab")
        if empty.device.endswith("CPU:0") and name == "slab":
            use_huge_pages(memoryview(empty))
        variable = tf.Variable(empty, trainable=False, name=name)
        del empty  # the variable must own its memory alone, or the first write copies it
        return variable

    def _initialize(self, shard: Shard, table: TableConfig, seed: int) -> None:
        rows_at_once = max(1, _BLOCK_BYTES // (FLOAT_BYTES * self.width))
        for start in range(*shard.rows, rows_at_once):
            stop = min(start + rows_at_once, shard.rows[1])
            activity.report_progress()
            self.write_rows(
                shard,
                WEIGHTS,
                start=start,
                values=initial_rows(table, seed, start=start, stop=stop, columns=shard.columns),
            )

    def _variable(self, slot: str) -> tf.Variable:
        return self.variable if slot == WEIGHTS else self._slots[slot]

    def _slab_row(self, shard: Shard, row: int) -> int:
        assert shard.rows[0] <= row <= shard.rows[1]
        return self.first_rows[shard] + row - shard.rows[0]


def summed(rows: tf.Tensor, gradients: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Each row once, in the order of their first occurrence, with the sum of its gradients."""
    unique, place = tf.unique(rows)
    return unique, tf.math.unsorted_segment_sum(gradients, place, tf.size(unique))
