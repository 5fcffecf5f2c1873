"""One step of training, on all ranks together: forward, backward, update."""

from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf

from dlrm_tf2.data.batches import RankBatch
from dlrm_tf2.embedding.ids import RankIds
from dlrm_tf2.model.dlrm import Dlrm
from dlrm_tf2.training.loss_scaling import LossScaling


class Outcome(NamedTuple):
    """The result of a step, the same on all ranks.

    Attributes:
      loss: mean loss over the global batch, before the update.
      skipped: a gradient overflowed in float16, so the step updated nothing.
      stops: number of ranks that were asked to stop.
    """

    loss: float
    skipped: bool
    stops: int


class TrainingStep:
    """Compiles a step once, and runs it for each batch. All ranks must run it.

    Args:
      model: this rank's part of the model.
      scaling: the factor of the loss where the model computes in float16; else None.
    """

    def __init__(self, model: Dlrm, scaling: LossScaling | None = None):
        self._model, self._comm, self._scaling = model, model.comm, scaling
        label = tf.TensorSpec([None], tf.float32)
        numerical = tf.TensorSpec([None, model.config.num_numerical], tf.float32)
        scalar = tf.TensorSpec([], tf.float32)
        self._compiled = tf.function(
            self._step, input_signature=[label, numerical, model.embedding.signature, scalar, scalar, scalar]
        )

    def __call__(self, batch: RankBatch, learning_rate: float, *, step: int, stop: bool = False) -> tf.Tensor:
        """Trains on a global batch; every rank passes its part. On a GPU it may return before the step is done.

        Args:
          batch: this rank's part of the batch.
          learning_rate: learning rate of this step.
          step: number of this step; the first step is 1.
          stop: whether this rank was asked to stop.

        Returns:
          A tensor for `outcome`.
        """
        return self._compiled(batch.label, batch.numerical, batch.ids, learning_rate, float(step), float(stop))

    @staticmethod
    def outcome(result: tf.Tensor) -> Outcome:
        """Waits for the step that returned `result`, and reads it."""
        loss, skipped, stops = result.numpy().tolist()
        return Outcome(loss, bool(skipped), round(stops))

    def _step(
        self,
        label: tf.Tensor,
        numerical: tf.Tensor,
        ids: RankIds,
        learning_rate: tf.Tensor,
        step: tf.Tensor,
        stop: tf.Tensor,
    ) -> tf.Tensor:
        model, dense = self._model, self._model.dense_variables
        scale = self._scaling.scale if self._scaling else None
        global_batch = tf.cast(tf.shape(ids.global_ids.fixed)[0], tf.float32)
        lookup = model.lookup(ids)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch([lookup.vectors, dense])
            logits = model.logits(numerical, lookup)
            # This rank's share of the mean over the global batch. The shares add up for any batch sizes of the ranks.
            loss = tf.reduce_sum(tf.nn.sigmoid_cross_entropy_with_logits(label, logits)) / global_batch
            scaled = loss if scale is None else loss * scale
        row_gradients, dense_gradients = tape.gradient(scaled, [lookup.vectors, dense])
        if scale is not None:
            row_gradients = [tf.cast(gradient, tf.float32) / scale for gradient in row_gradients]
        overflows = tf.constant(0.0) if scale is None else 1.0 - _finite(row_gradients)
        totals, *dense_gradients = self._comm.allreduce_sum(
            [tf.stack([loss, overflows, stop]), *dense_gradients], name="loss_and_dense_gradients"
        )

        def update() -> tf.Tensor:
            model.dense_optimizer.apply(dense_gradients, learning_rate, step)
            model.embedding.apply_gradient(lookup, row_gradients, learning_rate=learning_rate, step=step)
            return tf.constant(True)

        if scale is None:
            update()
            return tf.stack([totals[0], 0.0, totals[2]])
        dense_gradients = [gradient / scale for gradient in dense_gradients]
        finite = tf.logical_and(totals[1] == 0, _finite(dense_gradients) == 1)
        tf.cond(finite, update, lambda: tf.constant(False))
        self._scaling.update(finite)
        return tf.stack([totals[0], 1.0 - tf.cast(finite, tf.float32), totals[2]])


def _finite(tensors: Sequence[tf.Tensor]) -> tf.Tensor:
    """1.0 if every number is finite, else 0.0."""
    finite = [tf.reduce_all(tf.math.is_finite(tensor)) for tensor in tensors]
    return tf.cast(tf.reduce_all(tf.stack(finite)), tf.float32)
