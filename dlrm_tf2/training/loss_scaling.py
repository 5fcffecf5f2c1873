"""The factor by which the loss is multiplied in float16, so that small gradients do not become 0.

The gradients are divided by the factor, in float32, before the optimizer sees them. A step whose gradients overflow is
skipped. Source: Micikevicius et al., "Mixed Precision Training" (2018); the static factor is NVIDIA's.
"""

import tensorflow as tf

_GROWTH_STEPS = 2000  # steps without overflow after which a dynamic factor doubles
_LARGEST = 2.0**24  # a dynamic factor grows up to this; a larger first factor does not grow


class LossScaling:
    """The factor, equal on all ranks.

    Args:
      scale: the factor; with `dynamic` the first factor.
      dynamic: halve the factor at an overflow, double it after 2000 steps without an overflow.
    """

    def __init__(self, scale: float, dynamic: bool):
        self._dynamic = dynamic
        self._scale = tf.Variable(scale, trainable=False, dtype=tf.float32)
        self._good_steps = tf.Variable(0, trainable=False, dtype=tf.int32)

    @property
    def scale(self) -> tf.Tensor:
        return self._scale.value()

    def update(self, finite: tf.Tensor) -> None:
        """Adjusts the factor after a step; `finite`: no gradient of any rank overflowed."""
        if not self._dynamic:
            return
        good = tf.where(finite, self._good_steps + 1, 0)
        grows = good == _GROWTH_STEPS
        doubled = tf.minimum(2 * self._scale, tf.maximum(self._scale, _LARGEST))
        grown = tf.where(grows, doubled, self._scale)
        self._scale.assign(tf.where(finite, grown, tf.maximum(self._scale / 2, 1.0)))
        self._good_steps.assign(tf.where(grows, 0, good))

    def document(self) -> dict:
        """The state that a checkpoint keeps, as JSON values."""
        return {"scale": float(self._scale), "good_steps": int(self._good_steps)}

    def restore(self, document: dict) -> None:
        """Takes the state that `document` returned; a static factor does not change."""
        if self._dynamic:
            self._scale.assign(document["scale"])
            self._good_steps.assign(document["good_steps"])
