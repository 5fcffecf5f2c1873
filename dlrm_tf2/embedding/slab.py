"""Slab: the shards of one rank that have the same width, in one variable, one below the other.

Below them lies one row for each shard of a dynamic table, with the vector of the keys that are not stored.

Replicated shards lie in a slab of their own. So do the shards that a rank with a GPU keeps in the memory of its host;
their lookups and updates run on the host.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from dlrm_tf2.embedding.initial_weights import initial_rows
from dlrm_tf2.embedding.rounding import rounded, table_key
from dlrm_tf2.ops.row_cache import RowCache
from dlrm_tf2.ops.tiered_memory import TierSizes, fetch_rows, tiered_rows, tiered_zeros
from dlrm_tf2.optim import Optimizer, zero_if_finite
from dlrm_tf2.runtime import activity
from dlrm_tf2.runtime.memory import fill, use_huge_pages
from dlrm_tf2.sharding.optimizer_state import FLOAT_BYTES
from dlrm_tf2.sharding.plan import Shard
from dlrm_tf2.sharding.slabs import SlabKind, first_rows
from dlrm_tf2.sharding.tables import Table, TableConfig

WEIGHTS = "weights"
_HOST = "/CPU:0"
_BLOCK_BYTES = 8 << 20  # initial weights are made in blocks of this size


class SlabSettings(NamedTuple):
    """What the slabs of a rank have in common.

    Attributes:
      seed: seed of the initial weights and of the rounding of 16-bit weights, the same on every rank.
      initialize: False leaves the weights' memory as it is.
      optimizer: updates the rows, and decides which slots there are; None where nothing is trained.
      dtype: type of the weights: float32, bfloat16 or float64. The slots of bfloat16 weights are float32.
      tiers: where the bytes of slabs with dynamic tables are; None for memory.
    """

    seed: int
    initialize: bool = True
    optimizer: Optimizer | None = None
    dtype: tf.DType = tf.float32
    tiers: TierSizes | None = None


class Slab:
    """Shards of equal width in one variable [sum of their rows, width], and a variable for each slot of the optimizer.

    The variables are filled block by block; there is never a second copy of one.

    Args:
      shards: the rectangles, all of this kind; their rows lie in the slab in this order.
      tables: name -> table, for all shards.
      kind: what the shards have in common.
      settings: what all slabs of the rank have in common.

    Attributes:
      first_rows: shard -> the row of the slab at which it begins.
      num_rows: rows of all shards; of a shard with a cache, the rows that are in memory.
      caches: shard of a dynamic table -> its cache, where it has one. Its rows of the slab are then slots of the cache.
      default_rows: shard of a dynamic table -> the row with the vector of keys that are not stored. These rows come
        after the rows of all shards, and are never updated.
      dtype: type of the weights.
      compute_dtype: type of the slots, and of the vectors and gradients here: float32 for bfloat16 weights, else dtype.
      variable: the weights.
      slots: name -> the state of the optimizer.
      rounding_shards: for each shard (first row, first row in the table, first column in the table, key of the table):
        what the rounding of 16-bit weights depends on.
    """

    def __init__(
        self,
        shards: Sequence[Shard],
        tables: Mapping[str, Table],
        *,
        kind: SlabKind,
        settings: "SlabSettings",
    ):
        assert shards and all(shard.num_columns == kind.width for shard in shards), "a slab has one width"
        optimizer, dtype = settings.optimizer, settings.dtype
        self.kind, self.width, self.dtype = kind, kind.width, dtype
        self.compute_dtype = tf.float32 if dtype == tf.bfloat16 else dtype
        dynamic = [shard for shard in shards if tables[shard.table].is_dynamic]
        tiers = settings.tiers if dynamic else None
        cached = tiers if tiers is not None and tiers.caching else None
        self._in_memory = {shard: shard.num_rows for shard in shards}
        for shard in dynamic if cached else ():
            self._in_memory[shard] = max(1, int(shard.num_rows * cached.share_in_memory))
        names = {shard.table for shard in dynamic}
        self.first_rows = first_rows(shards, names, in_memory=self._in_memory)
        self.num_rows = sum(self._in_memory.values())
        self.default_rows = {shard: self.num_rows + number for number, shard in enumerate(dynamic)}
        self._optimizer, self._tiers = optimizer, None if cached else tiers
        self.slots: dict[str, tf.Variable] = {}
        self.caches: dict[Shard, RowCache] = {}
        self._in_files: dict[str, tf.Tensor] = {}
        self.rounding_shards = [
            (first, shard.rows[0], shard.columns[0], table_key(shard.table, settings.seed))
            for shard, first in self.first_rows.items()
        ]
        with self.device():
            self.variable = self._allocate(self.width, "slab", dtype=dtype)
            for slot in optimizer.row_slots if optimizer else ():
                self.slots[slot] = self._allocate(
                    optimizer.row_slot_width(self.width),
                    f"slab_{slot}",
                    dtype=self.compute_dtype,
                    value=None if dynamic else optimizer.initial_value(slot),
                )
        if dynamic and optimizer:  # the rows of keys get their state with the keys, and until then take no memory
            for shard in set(shards) - set(dynamic):
                self._fill_slots(shard, optimizer)
        if self._tiers is not None and self._tiers.share_in_memory < 1:
            self._in_files = {slot: tiered_rows(self._variable(slot)) for slot in (WEIGHTS, *self.slots)}
        for shard in dynamic if cached else ():
            self.caches[shard] = RowCache(
                shard.table,
                [self.variable, *self.slots.values()],
                num_rows=shard.num_rows,
                slots=self.rows_of(shard),
                folder=cached.folder,
            )
        for shard, row in self.default_rows.items():
            self._write_default(row, tables[shard.table].default)
        for shard in shards:
            if settings.initialize and shard not in self.default_rows:  # their rows are initialized as keys are stored
                self._initialize(shard, tables[shard.table], settings.seed)

    def device(self) -> AbstractContextManager:
        """The device scope of the slab's variables, lookups and updates: the host, or TensorFlow's choice."""
        return tf.device(_HOST) if self.kind.on_host else nullcontext()

    def rows_of(self, shard: Shard) -> range:
        """The rows of the slab that belong to a shard."""
        return range(self.first_rows[shard], self.first_rows[shard] + self._in_memory[shard])

    def gather(self, rows: tf.Tensor) -> tf.Tensor:
        """The vectors [..., width] of rows [...] of the slab, in `compute_dtype`."""
        with self.device():
            return tf.cast(tf.gather(self.variable, rows), self.compute_dtype)

    def update(
        self, rows: tf.Tensor, gradients: tf.Tensor, *, learning_rate: tf.Tensor, step: tf.Tensor | None
    ) -> tf.Tensor:
        """Makes one step of the optimizer on some rows. The gradients of a row that occurs several times are added up.

        Args:
          rows: int64 [n], rows of the slab.
          gradients: [n, width], in `compute_dtype`.
          learning_rate: scalar.
          step: scalar, the number of the step from 1 on; adam and 16-bit tables read it.

        Returns:
          A scalar: 0 if the update and the new state are finite, else nan.
        """
        with self.device():
            learning_rate = tf.cast(learning_rate, self.compute_dtype)
            # For sgd too: subtracting a hot row's many small gradients one by one would round each time, in any order.
            rows, gradients = sum_by_row(rows, gradients)
            slots = {slot: tf.gather(variable, rows) for slot, variable in self.slots.items()}
            number = tf.cast(0 if step is None else step, self.compute_dtype)
            direction, new = self._optimizer.update(gradients, slots, step=number, rows=True)
            for slot, values in new.items():
                self.slots[slot].scatter_update(tf.IndexedSlices(values, rows))
            update = direction * learning_rate
            if self.dtype == self.compute_dtype:
                self.variable.scatter_sub(tf.IndexedSlices(update, rows))
            else:
                updated = tf.cast(tf.gather(self.variable, rows), self.compute_dtype) - update
                values = self._rounded(updated, rows, tf.cast(0 if step is None else step, tf.int64))
                tf.raw_ops.ResourceScatterUpdate(resource=self.variable.handle, indices=rows, updates=values)
            return zero_if_finite(update, new)

    def _rounded(self, weights: tf.Tensor, rows: tf.Tensor, step: tf.Tensor) -> tf.Tensor:
        """Weights [n, width] of some rows as bfloat16, rounded stochastically."""
        of_shards = zip(*self.rounding_shards, strict=True)
        first, table_rows, columns, keys = (tf.constant(list(numbers), tf.int64) for numbers in of_shards)
        shard = tf.searchsorted(first, rows, side="right") - 1
        rows_of_tables = rows - tf.gather(first, shard) + tf.gather(table_rows, shard)
        return rounded(
            weights, keys=tf.gather(keys, shard), rows=rows_of_tables, columns=tf.gather(columns, shard), step=step
        )

    def read_rows(self, shard: Shard, slot: str, *, start: int, stop: int) -> np.ndarray:
        """Rows [start, stop) of a table, of which this shard has the columns: [stop - start, width], in compute_dtype.

        The numbers of a slot with one number a row are repeated over the columns, so that every slot has the shape of
        the weights.

        Args:
          shard: a shard of the slab that has all of these rows.
          slot: WEIGHTS, or a slot of the optimizer.
        """
        values = self.read_at(shard, slot, rows=np.arange(start, stop))
        return np.broadcast_to(values, (stop - start, self.width))

    def write_rows(self, shard: Shard, slot: str, *, start: int, values: np.ndarray) -> None:
        """Overwrites rows from `start` on, counted in the shard's table, with values [n, width]."""
        self.write_at(shard, slot, rows=np.arange(start, start + len(values)), values=values)

    def read_at(self, shard: Shard, slot: str, *, rows: np.ndarray) -> np.ndarray:
        """Any rows [n] of a shard, counted in its table: [n, width of the slot], in compute_dtype."""
        with self.device():
            if shard in self.caches:
                values = self.caches[shard].read(rows - shard.rows[0], self._number(slot))
            else:
                values = tf.gather(self._variable(slot), rows - shard.rows[0] + self.first_rows[shard])
            return tf.cast(values, self.compute_dtype).numpy()

    def write_at(self, shard: Shard, slot: str, *, rows: np.ndarray, values: np.ndarray) -> None:
        """Overwrites any rows [n] of a shard, counted in its table, each at most once, with values [n, width].

        Of a slot with one number a row, the first column counts.
        """
        variable = self._variable(slot)
        with self.device():
            values = tf.cast(tf.constant(values[:, : variable.shape[1]], self.compute_dtype), variable.dtype)
            if shard in self.caches:
                self.caches[shard].write(rows - shard.rows[0], self._number(slot), values)
                return
            rows = tf.constant(rows - shard.rows[0] + self.first_rows[shard], tf.int64)
            # As fast as a copy. variable[a:b].assign(...) would first read, and so copy, the whole variable.
            tf.raw_ops.ResourceScatterUpdate(resource=variable.handle, indices=rows, updates=values)

    def _allocate(self, width: int, name: str, *, dtype: tf.DType, value: float | None = None) -> tf.Variable:
        """A variable [rows, width] full of `value`, with a row for each default; None leaves its memory as it is."""
        bits = tf.uint16 if dtype == tf.bfloat16 else dtype  # Python's buffers know no bfloat16
        shape = self.num_rows + len(self.default_rows), width
        if self._tiers is None:
            empty = tf.raw_ops.Empty(shape=shape, dtype=bits, init=False)
        else:
            empty = tiered_zeros(shape, bits, self._tiers)
        if self._tiers is None and empty.device.endswith("CPU:0"):
            use_huge_pages(memoryview(empty))
            if value is not None:
                fill(memoryview(empty), value)
        elif self._tiers is None and value is not None:
            empty = tf.fill(empty.shape, tf.constant(value, bits))
        if bits != dtype:
            empty = tf.bitcast(empty, dtype)
        variable = tf.Variable(empty, trainable=False, name=name)
        del empty  # if the variable does not own its memory alone, the first write copies it
        return variable

    def _fill_slots(self, shard: Shard, optimizer: Optimizer) -> None:
        """Fills the state of a shard's rows with its initial values."""
        for slot, variable in self.slots.items():
            rows_at_once = max(1, _BLOCK_BYTES // (FLOAT_BYTES * variable.shape[1]))
            for start in range(*shard.rows, rows_at_once):
                num_rows = min(rows_at_once, shard.rows[1] - start)
                values = np.full((num_rows, variable.shape[1]), optimizer.initial_value(slot), np.float32)
                self.write_rows(shard, slot, start=start, values=values)

    def fetch(self, rows: tf.Tensor, slots: Sequence[str], ahead: bool = False) -> None:
        """Asks for rows [n] of the slab before they are read, where they may be in a file.

        Args:
          ahead: whether they are rows of a later batch, for which this is called again.
        """
        for slot in slots:
            if slot in self._in_files:
                fetch_rows(self._in_files[slot], rows, ahead)

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

    def _write_default(self, row: int, value: float) -> None:
        """Fills a row of the slab."""
        with self.device():
            values = tf.cast(tf.fill([1, self.width], tf.constant(value, self.compute_dtype)), self.dtype)
            tf.raw_ops.ResourceScatterUpdate(resource=self.variable.handle, indices=[row], updates=values)

    def _variable(self, slot: str) -> tf.Variable:
        return self.variable if slot == WEIGHTS else self.slots[slot]

    def _number(self, slot: str) -> int:
        """The number of a slot among the variables of a cache."""
        return [WEIGHTS, *self.slots].index(slot)


def sum_by_row(rows: tf.Tensor, gradients: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Each row once, in the order of first occurrence, with the sum of its gradients."""
    unique, place = tf.unique(rows)
    return unique, tf.math.unsorted_segment_sum(gradients, place, tf.size(unique))
