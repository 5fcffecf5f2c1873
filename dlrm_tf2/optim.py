"""The optimizers: one formula each, for whole variables and for rows of tables.

With g the gradient of the mean loss over the global batch, lr the learning rate and t = 1, 2, ... the step:

    sgd                w -= lr * g                    with momentum m, whole variables only: u = m * u + g, w -= lr * u
    adagrad            a += g**2;  w -= lr * g / (sqrt(a) + epsilon)
    rowwise_adagrad    a += mean of g**2 over a row's columns, one number per row; whole variables as adagrad
    adam               m = beta1 * m + (1 - beta1) * g;  v = beta2 * v + (1 - beta2) * g**2
                       w -= lr * (m / (1 - beta1**t)) / (sqrt(v / (1 - beta2**t)) + epsilon)

a starts at initial_accumulator, every other state at 0. A batch changes only the rows that it names, and only their
state (adam is *lazy*); t counts the steps of the training, not the updates of the row. The formula is applied to the
sum of a row's gradients in the batch.

Source: Duchi et al. (2011) and Kingma and Ba (2015), with the epsilon outside of the square root, as in torchrec's
tables. Keras differs: its Adagrad starts at 0.1, its epsilon is 1e-7, and its Adam adds it to sqrt(v) before the
correction of v.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import tensorflow as tf

from dlrm_tf2.sharding.optimizer_state import DEFAULT_OPTIMIZER, OPTIMIZERS


@dataclass(frozen=True)
class Optimizer:
    """One of the formulas above, with its constants.

    Attributes:
      name: a key of OPTIMIZERS.
      momentum: momentum of sgd, for whole variables only; 0 for none.
      beta1, beta2: constants of adam.
      epsilon: constant of all formulas but sgd.
      initial_accumulator: first value of adagrad's and rowwise_adagrad's accumulators.
    """

    name: str = DEFAULT_OPTIMIZER
    momentum: float = 0.0
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    initial_accumulator: float = 0.0

    def __post_init__(self):
        if self.name not in OPTIMIZERS:
            raise ValueError(f"optimizer {self.name!r}: it must be one of {', '.join(OPTIMIZERS)}.")

    @property
    def row_slots(self) -> tuple[str, ...]:
        """Names of the state kept for each row of a table."""
        return OPTIMIZERS[self.name].slots

    def row_slot_width(self, width: int) -> int:
        """Numbers per row of each slot, for a table of this width."""
        return OPTIMIZERS[self.name].slot_width(width)

    def initial_value(self, slot: str) -> float:
        """What every number of a slot is before the first step."""
        return self.initial_accumulator if slot in ("accumulator", "row_accumulator") else 0.0

    @property
    def dense_slots(self) -> tuple[str, ...]:
        """Names of the state kept for each whole variable."""
        if self.name == "rowwise_adagrad":
            return OPTIMIZERS["adagrad"].slots  # whole variables are updated as by adagrad
        return ("momentum",) if self.name == "sgd" and self.momentum else OPTIMIZERS[self.name].slots

    def update(
        self, gradient: tf.Tensor, slots: Mapping[str, tf.Tensor], *, step: tf.Tensor, rows: bool
    ) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        """Applies the formula.

        Args:
          gradient: tensor of any shape; with `rows` [n, width].
          slots: name -> present value of the state.
          step: number of the step from 1 on, a scalar of the gradient's type; only adam reads it.
          rows: whether the gradient is for rows of a table.

        Returns:
          (the direction; the weights change by -learning_rate * direction, name -> new value of the state).
        """
        if self.name == "sgd":
            if not slots:
                return gradient, {}
            velocity = self.momentum * slots["momentum"] + gradient
            return velocity, {"momentum": velocity}
        square = tf.square(gradient)
        if self.name == "adam":
            first = self.beta1 * slots["first_moment"] + (1 - self.beta1) * gradient
            second = self.beta2 * slots["second_moment"] + (1 - self.beta2) * square
            # expm1 gives 1 - beta**t: in float32 the subtraction would lose most digits in the first steps.
            corrected = second / -tf.math.expm1(step * math.log(self.beta2))
            direction = first / -tf.math.expm1(step * math.log(self.beta1)) / (tf.sqrt(corrected) + self.epsilon)
            return direction, {"first_moment": first, "second_moment": second}
        slot = "accumulator"
        if rows and self.name == "rowwise_adagrad":
            slot, square = "row_accumulator", tf.reduce_mean(square, axis=1, keepdims=True)
        accumulator = slots[slot] + square
        return gradient / (tf.sqrt(accumulator) + self.epsilon), {slot: accumulator}


def zero_if_finite(update: tf.Tensor, state: Mapping[str, tf.Tensor]) -> tf.Tensor:
    """Checks an update at the price of one pass over its numbers, inside of a compiled step.

    An update beyond 1e19 counts as infinite in float32, because its square does. So weights that were finite stay
    finite for as long as this returns 0.

    Args:
      update: numbers about to be subtracted from weights, or the new weights.
      state: name -> new value of the optimizer's state.

    Returns:
      A scalar of the type of `update`: 0 if all numbers are finite, else nan.
    """
    total = tf.add_n([tf.nn.l2_loss(update), *map(tf.reduce_sum, state.values())])
    return tf.where(tf.math.is_finite(total), tf.zeros_like(total), tf.constant(math.nan, total.dtype))


class DenseOptimizer:
    """Updates the replicated variables, and keeps their state.

    Args:
      optimizer: the formula.
      variables: the variables that every `apply` updates.

    Attributes:
      by_name: `<variable>.<slot>` -> state; a checkpoint saves it with the variables.
    """

    def __init__(self, optimizer: Optimizer, variables: Sequence[tf.Variable]):
        self._optimizer, self._variables = optimizer, list(variables)
        self._slots = [
            {
                slot: tf.Variable(tf.zeros_like(variable) + optimizer.initial_value(slot), trainable=False)
                for slot in optimizer.dense_slots
            }
            for variable in variables
        ]
        self.by_name = {
            f"{variable.name.removesuffix(':0')}.{slot}": value
            for variable, slots in zip(self._variables, self._slots, strict=True)
            for slot, value in slots.items()
        }

    def apply(self, gradients: Sequence[tf.Tensor], learning_rate: tf.Tensor, step: tf.Tensor) -> tf.Tensor:
        """One step of every variable.

        Args:
          gradients: gradients of the loss, one for each variable.
          learning_rate: scalar.
          step: number of the step from 1 on, a floating-point scalar.

        Returns:
          float32 [variables]: 0 for a variable whose weights and state are finite after the step, else nan.
        """
        checks = []
        for variable, slots, gradient in zip(self._variables, self._slots, gradients, strict=True):
            step = tf.cast(step, gradient.dtype)
            direction, new = self._optimizer.update(gradient, slots, step=step, rows=False)
            for slot, value in new.items():
                slots[slot].assign(value)
            weights = variable.assign_sub(tf.cast(learning_rate, gradient.dtype) * direction)
            checks.append(tf.cast(zero_if_finite(tf.convert_to_tensor(weights), new), tf.float32))
        return tf.stack(checks)
