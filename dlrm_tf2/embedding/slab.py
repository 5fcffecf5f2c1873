"""Slab: the shards of one rank that have the same width, in one variable, one below the other.

Replicated shards lie in a slab of their own. So do the shards that a rank with a GPU keeps in the memory of its host;
their lookups and updates run on the host.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import tensorflow as tf

from dlrm_tf2.embedding.initial_weights import initial_rows
from dlrm_tf2.optim import Optimizer, zero_if_finite
from dlrm_tf2.runtime import activity
from dlrm_tf2.runtime.memory import use_huge_pages
from dlrm_tf2.sharding.plan import Shard
from dlrm_tf2.sharding.slabs import SlabKind, first_rows
from dlrm_tf2.sharding.tables import FLOAT_BYTES, TableConfig

WEIGHTS = "weights"
_HOST = "/CPU:0"
_BLOCK_BYTES = 8 << 20  # initial weights are made in blocks of this size


class Slab:
    """Shards of equal width in one variable [sum of their rows, width], and a variable for each slot of the optimizer.

    The variables are filled block by block; there is never a second copy of one.

    Args:
      shards: the rectangles, all of this kind; their rows lie in the slab in this order.
      tables: name -> table, for all shards.
      kind: what the shards have in common.
      seed: seed of the initial weights, the same on every rank; None leaves the memory as it is.
      optimizer: updates the rows, and decides which slots there are; None where nothing is trained.
      dtype: type of the weights.

    Attributes:
      first_rows: shard -> the row of the slab at which it begins.
    """

    def __init__(
        self,
        shards: Sequence[Shard],
        tables: Mapping[str, TableConfig],
        *,
        kind: SlabKind,
        seed: int | None,
        optimizer: Optimizer | None = None,
        dtype: tf.DType = tf.float32,
    ):
        assert shards and all(shard.num_columns == kind.width for shard in shards), "a slab has one width"
        self.kind, self.width, self.dtype = kind, kind.width, dtype
        self.first_rows = first_rows(shards)
        self._num_rows = sum(shard.num_rows for shard in shards)
        self._optimizer = optimizer
        self._slots: dict[str, tf.Variable] = {}
        with self.device():
            self.variable = self._allocate(self.width, "slab")
            for slot in optimizer.row_slots if optimizer else ():
                self._slots[slot] = self._allocate(optimizer.row_slot_width(self.width), f"slab_{slot}")
        if seed is not None:
            for shard in shards:
                self._initialize(shard, tables[shard.table], seed)

    def device(self) -> AbstractContextManager:
        """The device scope of the slab's variables, lookups and updates: the host, or TensorFlow's choice."""
        return tf.device(_HOST) if self.kind.on_host else nullcontext()

    def gather(self, rows: tf.Tensor) -> tf.Tensor:
        """The vectors [..., width] of rows [...] of the slab."""
        with self.device():
            return tf.gather(self.variable, rows)

    def update(
        self, rows: tf.Tensor, gradients: tf.Tensor, *, learning_rate: tf.Tensor, step: tf.Tensor | None
    ) -> tf.Tensor:
        """Makes one step of the optimizer on some rows. The gradients of a row that occurs several times are added up.

        Args:
          rows: int64 [n], rows of the slab.
          gradients: [n, width], in the type of the weights.
          learning_rate: scalar.
          step: scalar, the number of the step from 1 on; only adam reads it.

        Returns:
          A scalar: 0 if the update and the new state are finite, else nan.
        """
        with self.device():
            learning_rate = tf.cast(learning_rate, self.dtype)
            # For sgd too: subtracting a hot row's many small gradients one by one would round each time, in any order.
            rows, gradients = sum_by_row(rows, gradients)
            slots = {slot: tf.gather(variable, rows) for slot, variable in self._slots.items()}
            step = tf.cast(0 if step is None else step, self.dtype)
            direction, new = self._optimizer.update(gradients, slots, step=step, rows=True)
            for slot, values in new.items():
                self._slots[slot].scatter_update(tf.IndexedSlices(values, rows))
            update = direction * learning_rate
            self.variable.scatter_sub(tf.IndexedSlices(update, rows))
            return zero_if_finite(update, new)

    def read_rows(self, shard: Shard, slot: str, *, start: int, stop: int) -> np.ndarray:
        """Rows [start, stop) of a table, of which this shard has the columns: [stop - start, width].

        The numbers of a slot with one number a row are repeated over the columns, so that every slot has the shape of
        the weights.

        Args:
          shard: a shard of the slab that has all of these rows.
          slot: WEIGHTS, or a slot of the optimizer.
        """
        first = self._slab_row(shard, start)
        with self.device():
            values = tf.gather(self._variable(slot), tf.range(first, first + stop - start, dtype=tf.int64)).numpy()
        return np.broadcast_to(values, (stop - start, self.width))

    def write_rows(self, shard: Shard, slot: str, *, start: int, values: np.ndarray) -> None:
        """Overwrites rows from `start` on, counted in the shard's table, with values [n, width]."""
        first, variable = self._slab_row(shard, start), self._variable(slot)
        with self.device():
            rows = tf.range(first, first + len(values), dtype=tf.int64)
            values = tf.constant(values[:, : variable.shape[1]], self.dtype)
            # As fast as a copy. variable[a:b].assign(...) would first read, and so copy, the whole variable.
            tf.raw_ops.ResourceScatterUpdate(resource=variable.handle, indices=rows, updates=values)

    def _allocate(self, width: int, name: str) -> tf.Variable:
        empty = tf.raw_ops.Empty(shape=[self._num_rows, width], dtype=self.dtype, init=name != "slab")
        if empty.device.endswith("CPU:0") and name == "slab":
            use_huge_pages(memoryview(empty))
        variable = tf.Variable(empty, trainable=False, name=name)
        del empty  # if the variable does not own its memory alone, the first write copies it
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


def sum_by_row(rows: tf.Tensor, gradients: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Each row once, in the order of first occurrence, with the sum of its gradients."""
    unique, place = tf.unique(rows)
    return unique, tf.math.unsorted_segment_sum(gradients, place, tf.size(unique))
