"""RowUpdates: from the gradients of vectors to the update of the rows that the vectors were made of."""

from collections import defaultdict
from collections.abc import Sequence

import tensorflow as tf

from dlrm_tf2.embedding.collectives import Collectives
from dlrm_tf2.embedding.host_sums import HostSums
from dlrm_tf2.embedding.lookup import SlabVectors
from dlrm_tf2.embedding.native_rows import NativeRows, PooledVectors, RowGradients
from dlrm_tf2.embedding.slab import Slab, sum_by_row


class RowUpdates:
    """Updates the rows of a rank's slabs. The gradients of replicated rows are the gradients of all ranks.

    Args:
      collectives: the exchange between the ranks.
      rows: the native ops; None for TensorFlow's ops.
      wire_dtype: type of the vectors.
      compute_dtype: float32, or float64 for float64 tables.
    """

    def __init__(
        self, collectives: Collectives, rows: NativeRows | None, *, wire_dtype: tf.DType, compute_dtype: tf.DType
    ):
        self._collectives, self._rows, self._host_sums = collectives, rows, HostSums(collectives)
        self._wire_dtype, self._compute_dtype = wire_dtype, compute_dtype

    def apply(
        self,
        parts: Sequence[tuple[SlabVectors | PooledVectors, tf.Tensor]],
        *,
        learning_rate: tf.Tensor | float,
        step: tf.Tensor | None,
    ) -> tf.Tensor:
        """Makes one step of the optimizer.

        Args:
          parts: what was looked up, each with the gradient of its vectors.
          learning_rate: scalar.
          step: scalar, the number of the step from 1 on.

        Returns:
          A scalar, float32 or float64: 0 if all updated numbers are finite, else nan.
        """
        parts = [(part, by) for part, by in parts if isinstance(part, PooledVectors) or part.slab is not None]
        if self._rows:
            return self._by_native_op(parts, learning_rate=learning_rate, step=step)
        check = tf.zeros([], self._compute_dtype)
        updates: dict[Slab, list[tuple[tf.Tensor, tf.Tensor]]] = defaultdict(list)
        for part, gradient in parts:
            updates[part.slab].append(self._by_row(part, gradient))
        for slab, of_slab in updates.items():
            joined = of_slab[0] if len(of_slab) == 1 else (tf.concat(part, 0) for part in zip(*of_slab, strict=True))
            rows, gradient = joined
            check += slab.update(rows, gradient, learning_rate=learning_rate, step=step)
        return check

    def _by_native_op(
        self,
        parts: Sequence[tuple[SlabVectors | PooledVectors, tf.Tensor]],
        *,
        learning_rate: tf.Tensor | float,
        step: tf.Tensor | None,
    ) -> tf.Tensor:
        """One update of all slabs. The gradients of vectors that this rank pooled stay in their type."""
        gradients = []
        for part, gradient in parts:
            if isinstance(part, PooledVectors):
                of_part = part.with_gradient(tf.cast(gradient, self._wire_dtype))
                gradients += self._of_all_ranks(of_part) if part.replicated else [of_part]
            else:
                rows, by_row = self._by_row(part, gradient)
                gradients.append(self._rows.rows_of(part.slab, rows, gradient=by_row))
        if not gradients:
            return tf.zeros([])
        if len({part.gradient.dtype for part in gradients}) > 1:
            gradients = [part._replace(gradient=tf.cast(part.gradient, tf.float32)) for part in gradients]
        return self._rows.update(gradients, learning_rate=learning_rate, step=step)

    def _of_all_ranks(self, part: RowGradients) -> list[RowGradients]:
        """The gradients of replicated tables that all ranks have: every rank makes the same update of its copy."""
        if self._collectives.world_size == 1:
            return [part]
        found = []
        for slab, rows, sums in self._rows.sums_by_slab(part):
            rows, sums = self._host_sums.to_all_ranks(rows, sums, f"replicas_{slab.kind.name}")
            found.append(self._rows.rows_of(slab, rows, gradient=sums))
        return found

    def _by_row(self, part: SlabVectors, gradient: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The rows [n] that a gradient of vectors is for, and their gradients [n, width]; of replicas, of all ranks."""
        with part.slab.device():
            rows, gradient = part.rows, part.row_gradients(tf.cast(gradient, self._compute_dtype))
        if not part.slab.kind.replicated:
            return rows, gradient
        rows, gradient = sum_by_row(rows, gradient)
        return self._host_sums.to_all_ranks(rows, gradient, f"replicas_{part.slab.kind.name}")
