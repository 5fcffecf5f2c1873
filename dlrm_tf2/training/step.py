"""One step of training, on all ranks together: forward, backward, update.

A layer may hide a number that is not finite: oneDNN's ReLU turns nan into 0, and the loss stays finite. So the step
checks what no layer can hide, the updated weights and the optimizer's state. All ranks know at once of a replicated
variable; of a table its rank knows at once, and all ranks know after the exchange of the next step.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, Protocol

import tensorflow as tf

from dlrm_tf2.data.batches import RankBatch
from dlrm_tf2.embedding.id_exchange import ExchangedIds
from dlrm_tf2.embedding.ids import RankIds
from dlrm_tf2.embedding.layer import DistributedEmbedding
from dlrm_tf2.embedding.lookup import Lookup
from dlrm_tf2.embedding.pipeline import Pipeline
from dlrm_tf2.optim import DenseOptimizer
from dlrm_tf2.runtime.comm import Comm
from dlrm_tf2.training.loss_scaling import LossScaling


class ModelShape(Protocol):
    """The part of a model's shape that a step depends on."""

    @property
    def num_numerical(self) -> int:
        """Numerical columns."""


class Model(Protocol):
    """What a step asks of a model: Dlrm explains each part."""

    @property
    def config(self) -> ModelShape: ...
    @property
    def comm(self) -> Comm: ...
    @property
    def embedding(self) -> DistributedEmbedding: ...
    @property
    def dense_variables(self) -> list[tf.Variable]: ...
    @property
    def dense_optimizer(self) -> DenseOptimizer: ...
    def lookup(self, ids: RankIds | ExchangedIds, step: tf.Tensor | int | None = None) -> Lookup: ...
    def logits(self, numerical: tf.Tensor, lookup: Lookup) -> tf.Tensor: ...


class Outcome(NamedTuple):
    """The result of a step. All but own_tables_broken is the same on all ranks.

    Attributes:
      loss: mean loss over the global batch, before the update.
      skipped: a gradient overflowed in float16, so the step updated nothing.
      stops: number of ranks that were asked to stop.
      broken_variable: name of the first replicated variable with a number that is not finite after the update; None
        if all numbers are finite.
      tables_broken_before: an earlier step updated a table of some rank with a number that is not finite.
      own_tables_broken: this step, or an earlier step, updated a table of this rank with such a number.
    """

    loss: float
    skipped: bool
    stops: int
    broken_variable: str | None
    tables_broken_before: bool
    own_tables_broken: bool


class TrainingStep:
    """Compiles a step once, and runs it for each batch. All ranks must run it.

    Args:
      model: this rank's part of the model.
      scaling: the factor of the loss where the model computes in float16; else None.
      table_factor: factor of the tables' gradients; 1 for the gradients of the mean loss over the global batch.
      ahead: where ids travel between the ranks, the ids of the next batch travel during a step.
      state_began: the step after which the optimizer's state was 0: the optimizer counts its steps from there.
    """

    def __init__(
        self,
        model: Model,
        scaling: LossScaling | None = None,
        *,
        table_factor: int = 1,
        ahead: bool = True,
        state_began: int = 0,
    ):
        self._state_began = state_began
        self._model, self._comm, self._scaling, self._table_factor = model, model.comm, scaling, table_factor
        self._tables_broken = tf.Variable(
            0.0, trainable=False
        )  # 1.0 once an update of this rank's tables was not finite
        label = tf.TensorSpec([None], tf.float32)
        numerical = tf.TensorSpec([None, model.config.num_numerical], tf.float32)
        scalar = tf.TensorSpec([], tf.float32)
        inputs = [label, numerical, scalar, scalar, scalar]
        self._pipeline = Pipeline(model.embedding, self._step, inputs=inputs, ahead=ahead)

    def with_next(self, batches: Iterable[RankBatch]) -> Iterator[tuple[RankBatch, RankBatch | None]]:
        """Each batch with the batch whose ids are to travel during its step, if any."""
        return self._pipeline.with_next(batches)

    def __call__(
        self,
        batch: RankBatch,
        learning_rate: float,
        *,
        step: int,
        stop: bool = False,
        next_batch: RankBatch | None = None,
    ) -> tf.Tensor:
        """Trains on a global batch; every rank passes its part. On a GPU it may return before the step is done.

        Args:
          batch: this rank's part of the batch.
          learning_rate: learning rate of this step.
          step: number of this step; the first step of a model is 1.
          stop: whether this rank was asked to stop.
          next_batch: the batch whose ids travel meanwhile, on all ranks or on none.

        Returns:
          A tensor for `outcome`.
        """
        next_ids = None if next_batch is None else next_batch.ids
        with tf.device("/CPU:0"):  # a rank with a GPU reads the rate and the number there without waiting for it
            own = step - self._state_began
            scalars = [tf.constant(float(number), tf.float32) for number in (learning_rate, own, stop)]
        return self._pipeline(batch.ids, next_ids, batch.label, batch.numerical, *scalars)

    def outcome(self, result: tf.Tensor) -> Outcome:
        """Waits for the step that returned `result`, and reads it."""
        loss, skipped, stops, broken_before, own_broken, *checks = result.numpy().tolist()
        variables = zip(self._model.dense_variables, checks, strict=True)
        broken = next((variable.name.removesuffix(":0") for variable, check in variables if math.isnan(check)), None)
        return Outcome(
            loss,
            bool(skipped),
            round(stops),
            broken_variable=broken,
            tables_broken_before=broken_before > 0,
            own_tables_broken=own_broken > 0,
        )

    def _step(
        self,
        ids: RankIds | ExchangedIds,
        label: tf.Tensor,
        numerical: tf.Tensor,
        learning_rate: tf.Tensor,
        step: tf.Tensor,
        stop: tf.Tensor,
    ) -> tf.Tensor:
        model, dense = self._model, self._model.dense_variables
        scale = self._scaling.scale if self._scaling else None
        global_batch = tf.cast(tf.shape(ids.global_ids.fixed)[0], tf.float32)
        # Stored keys know the last step that had them, and they stay where the state of the optimizer begins again.
        lookup = model.lookup(ids, step=tf.cast(step, tf.int64) + self._state_began)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch([lookup.vectors, dense])
            logits = model.logits(numerical, lookup)
            # This rank's share of the mean over the global batch. The shares add up for any batch sizes of the ranks.
            loss = tf.reduce_sum(tf.nn.sigmoid_cross_entropy_with_logits(label, logits)) / global_batch
            scaled = loss if scale is None else loss * scale
        row_gradients, dense_gradients = tape.gradient(scaled, [lookup.vectors, dense])
        if scale is not None:
            row_gradients = [tf.cast(gradient, tf.float32) / scale for gradient in row_gradients]
        if self._table_factor != 1:
            row_gradients = [tf.cast(gradient, tf.float32) * self._table_factor for gradient in row_gradients]
        overflows = tf.constant(0.0) if scale is None else 1.0 - _finite(row_gradients)
        totals, *dense_gradients = self._comm.allreduce_sum(
            [tf.stack([loss, overflows, stop, self._tables_broken]), *dense_gradients], name="loss_and_dense_gradients"
        )

        def update() -> tuple[tf.Tensor, tf.Tensor]:
            checks = model.dense_optimizer.apply(dense_gradients, learning_rate, step)
            return model.embedding.apply_gradient(lookup, row_gradients, learning_rate=learning_rate, step=step), checks

        if scale is None:
            skipped, (table_check, checks) = tf.constant(0.0), update()
        else:
            dense_gradients = [gradient / scale for gradient in dense_gradients]
            finite = tf.logical_and(totals[1] == 0, _finite(dense_gradients) == 1)
            no_update = tf.constant(0.0), tf.zeros([len(dense)])
            table_check, checks = tf.cond(finite, update, lambda: no_update)
            self._scaling.update(finite)
            skipped = 1.0 - tf.cast(finite, tf.float32)
        broken = tf.maximum(self._tables_broken, tf.cast(tf.math.is_nan(table_check), tf.float32))
        self._tables_broken.assign(broken)
        return tf.concat([tf.stack([totals[0], skipped, totals[2], totals[3], broken]), checks], axis=0)


def _finite(tensors: Sequence[tf.Tensor]) -> tf.Tensor:
    """1.0 if every number is finite, else 0.0."""
    finite = [tf.reduce_all(tf.math.is_finite(tensor)) for tensor in tensors]
    return tf.cast(tf.reduce_all(tf.stack(finite)), tf.float32)
