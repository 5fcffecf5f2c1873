"""A cache of the rows of a dynamic table: some rows in memory, all others in a file. On the CPU.

A row has its number in the table's part of the rank, from 0 on. A *slot* is a row of the slab's variables. The file
has a record for each row: the row of each variable, one after the other.
"""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from dlrm_tf2 import ops
from dlrm_tf2.ops.tiered_memory import TierSizes, tiered_zeros

CACHE_COUNTERS = ("hits", "misses", "written_back")
_WORD = tf.uint16  # what a record is counted in: weights may have 16 bits


class RowCache:
    """The rows of one table on one rank, in some rows of a slab and in a file that ends with the process.

    Args:
      name: of the table, for errors.
      variables: the weights and the optimizer's state, [rows of the slab, any width] each.
      num_rows: rows of the table here.
      slots: the rows of the variables that the cache may use.
      folder: for the file.

    Attributes:
      record_bytes: bytes of a row with its state.

    Raises:
      tf.errors.ResourceExhaustedError: there is no memory, or no room in the folder.
    """

    def __init__(self, name: str, variables: Sequence[tf.Variable], *, num_rows: int, slots: range, folder: str):
        self._variables, self._slots = tuple(variables), slots
        self.record_bytes = sum(variable.shape[1] * variable.dtype.size for variable in variables)
        with tf.init_scope(), tf.device("/CPU:0"):
            shape = num_rows, self.record_bytes // _WORD.size
            self._file = tf.Variable(tiered_zeros(shape, _WORD, TierSizes(0.0, folder)), trainable=False)
            self._handle = ops.library().dlrm_row_cache(
                file=self._file.handle, table=name, first_slot=slots.start, num_slots=len(slots)
            )

    def place(
        self, rows: tf.Tensor, fresh: tf.Tensor, *, default_row: int, written: bool
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Moves the rows of a batch into memory; others leave for them, the coldest first.

        They stay until the next call. What was read or written before must be done.

        Args:
          rows: int64 [n], each any number of times; -1 for none.
          fresh: int64 [m], rows of the batch whose values the caller writes first.
          default_row: the row of the slab for -1.
          written: whether the caller will write to the rows.

        Returns:
          The rows of the slab that have `rows` and `fresh` now, int64 [n] and [m].

        Raises:
          tf.errors.ResourceExhaustedError: the batch has more different rows than the cache has slots.
        """
        return ops.library().dlrm_row_cache_place(
            cache=self._handle,
            variables=self._handles,
            rows=rows,
            fresh=fresh,
            default_row=default_row,
            written=written,
        )

    def ask(self, rows: tf.Tensor) -> None:
        """Asks for rows, int64 [n], that are only in the file, and does not wait for them; -1 for none."""
        ops.library().dlrm_row_cache_ask(cache=self._handle, rows=rows)

    def read(self, rows: np.ndarray, variable: int) -> tf.Tensor:
        """The values [n, width] of rows [n] in one of the variables. No row moves."""
        of = self._variables[variable]
        return ops.library().dlrm_row_cache_read(
            cache=self._handle,
            variables=self._handles,
            rows=tf.constant(rows, tf.int64),
            variable=variable,
            width=of.shape[1],
            T=of.dtype,
        )

    def write(self, rows: np.ndarray, variable: int, values: tf.Tensor) -> None:
        """Overwrites rows [n] in one of the variables with values [n, width]. No row moves."""
        ops.library().dlrm_row_cache_write(
            cache=self._handle,
            variables=self._handles,
            rows=tf.constant(rows, tf.int64),
            values=values,
            variable=variable,
            width=self._variables[variable].shape[1],
        )

    def counters(self) -> dict[str, int]:
        """What has happened so far: name of CACHE_COUNTERS -> number of rows, each once a batch."""
        found = ops.library().dlrm_row_cache_counters(cache=self._handle).numpy().tolist()
        return dict(zip(CACHE_COUNTERS, found, strict=True))

    @property
    def _handles(self) -> list[tf.Tensor]:
        return [variable.handle for variable in self._variables]
