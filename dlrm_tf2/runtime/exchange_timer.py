"""Measures what operations inside a compiled step take, one by one, without holding up the others."""

from collections.abc import Callable, Sequence

import tensorflow as tf


class ExchangeTimer:
    """Adds up the time of operations on the CPU. Time in which several of them are under way counts once.

    The operations are taken in the order in which they are called, in a graph that in which they are traced: one that
    starts before another and yet is called after it counts from that one's end on.
    """

    def __init__(self):
        # [seconds so far, when the last operation was over]. TensorFlow orders the accesses as they are traced.
        self._state = tf.Variable([0.0, 0.0], dtype=tf.float64, trainable=False)

    def time(self, work: Callable[[], Sequence[tf.Tensor]], inputs: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """What `work` returns, measured from when all of its inputs are there to when all of its results are.

        Args:
          work: makes the operations; in a graph they start after their inputs and the first look at the clock.
          inputs: of the operations.
        """
        with tf.control_dependencies(inputs):
            start = _now()
        with tf.control_dependencies([start]):
            results = list(work())
        with tf.control_dependencies(results):
            stop = _now()
        seconds, last_stop = tf.unstack(self._state.read_value())
        seconds += tf.maximum(stop - tf.maximum(start, last_stop), 0.0)
        self._state.assign(tf.stack([seconds, tf.maximum(stop, last_stop)]))
        return results

    def seconds(self) -> float:
        """Seconds so far."""
        return float(self._state.numpy()[0])


def _now() -> tf.Tensor:
    """The time, as soon as the control dependencies are over.

    TensorFlow would let every look at the clock in a graph wait for the one before, and by that every exchange for the
    one before. Where it cannot be told otherwise, they do wait.
    """
    moment = tf.timestamp()
    if not tf.executing_eagerly():
        manager = getattr(moment.graph, "experimental_acd_manager", None)
        if manager is not None:
            manager.run_independently(moment.op)
    return moment
