"""Measures the time of exchanges inside a compiled step, without delaying other operations."""

from collections.abc import Callable, Sequence

import tensorflow as tf


class ExchangeTimer:
    """Adds up the time of operations on the CPU. Time in which several operations run counts once.

    Operations count in the order in which they are called (in a graph: traced). If an operation starts before an
    earlier operation ends, its time counts from that end on.
    """

    def __init__(self):
        # [seconds so far, end of the last operation]. TensorFlow keeps the accesses in the order of tracing.
        self._state = tf.Variable([0.0, 0.0], dtype=tf.float64, trainable=False)

    def time(self, work: Callable[[], Sequence[tf.Tensor]], inputs: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """Runs `work` and returns its results. The time runs from the last input to the last result.

        Args:
          work: makes the operations. In a graph, they start after the inputs and after the first reading of the clock.
          inputs: inputs of the operations.
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
    """The time at which the control dependencies end.

    By default, each reading of the clock in a graph waits for the reading before it, and so each exchange for the
    exchange before it. Where TensorFlow has a way to avoid this wait, it is used.
    """
    moment = tf.timestamp()
    if not tf.executing_eagerly():
        manager = getattr(moment.graph, "experimental_acd_manager", None)
        if manager is not None:
            manager.run_independently(moment.op)
    return moment
