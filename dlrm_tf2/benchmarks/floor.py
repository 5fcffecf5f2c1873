"""The floor of a step: the time that its bytes and operations take at the speeds that this machine shows."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import tensorflow as tf

from dlrm_tf2.benchmarks.zoo import ZooModel
from dlrm_tf2.benchmarks.zoo_data import ZooData
from dlrm_tf2.sharding.cost import Step
from dlrm_tf2.sharding.optimizer_state import OPTIMIZERS
from dlrm_tf2.sharding.plan import ShardingPlan, samples_of_rank
from dlrm_tf2.sharding.tables import WEIGHT_BYTES, fetched_per_sample, vectors_per_sample

_ID_BYTES = 4
_COPIED_BYTES, _MATRIX, _TRIES = 128 << 20, 2048, 3


@dataclass(frozen=True)
class Floor:
    """What a step must do on one rank, and how fast this rank can do it.

    Attributes:
      lookup_bytes: ids, the rows that the batch names (each once), and the vectors made of them.
      update_bytes: ids, gradients of the vectors, and the same rows with their state, read and written.
      operations: of the MLP's matrix products, forward and backward.
      bytes_per_s: of a pass over memory that reads and writes.
      operations_per_s: of a large matrix product.
    """

    lookup_bytes: float
    update_bytes: float
    operations: float
    bytes_per_s: float
    operations_per_s: float

    @property
    def ms(self) -> float:
        """(bytes of lookup and update) / bytes_per_s + operations / operations_per_s, in milliseconds."""
        moved = self.lookup_bytes + self.update_bytes
        return 1e3 * (moved / self.bytes_per_s + self.operations / self.operations_per_s)

    def line(self, step_ms: float) -> str:
        """The floor as text, and its share of a step."""
        return (
            f"floor {self.ms:.3f} ms, {100 * self.ms / step_ms:.0f} % of an iteration: lookup moves "
            f"{self.lookup_bytes / 1e6:,.1f} MB and update {self.update_bytes / 1e6:,.1f} MB, at "
            f"{self.bytes_per_s / 1e9:.1f} GB/s (measured copy); matrix products take {self.operations / 1e9:,.2f} "
            f"G operations, at {self.operations_per_s / 1e9:,.0f} G/s (measured product)"
        )


def floor_of(model: ZooModel, plan: ShardingPlan, *, rank: int, step: Step, data: ZooData, speeds: "Speeds") -> Floor:
    """The floor of a rank; the rows that a batch names are counted in batch 0."""
    weight_bytes, optimizer = WEIGHT_BYTES[plan.table_dtype], OPTIMIZERS[step.optimizer]
    tables = {table.name: table for table in model.tables}
    lookup = update = 0.0
    for shard in plan.of_rank(rank):
        table = tables[shard.table]
        rows = data.distinct_rows(table, shard.rows)
        ids = _ID_BYTES * step.batch_size * fetched_per_sample(table, step.hotness)
        vectors = step.wire_bytes * step.batch_size * vectors_per_sample(table, step.hotness) * shard.num_columns
        of_rows = weight_bytes * rows * shard.num_columns
        lookup += ids + of_rows + vectors
        update += ids + vectors + 2 * (of_rows + optimizer.num_bytes(rows, shard.num_columns))
    start, stop = samples_of_rank(step.batch_size, plan.world_size, rank)
    operations = 3.0 * model.forward_operations * (stop - start)  # backward: by the weights, and by the input
    return Floor(lookup, update, operations, bytes_per_s=speeds.bytes_per_s, operations_per_s=speeds.operations_per_s)


@dataclass(frozen=True)
class Speeds:
    """What this rank's device does in a second, all ranks of the machine measuring at the same time."""

    bytes_per_s: float
    operations_per_s: float

    @classmethod
    def measured(cls, dtype: tf.DType) -> "Speeds":
        """The best of some passes over memory, and of some products of matrices of this type."""
        memory = tf.zeros([_COPIED_BYTES // 4])
        matrix = tf.ones([_MATRIX, _MATRIX], dtype)
        copy = tf.function(lambda: -memory)  # each number is read and written once, by all threads
        product = tf.function(lambda: tf.matmul(matrix, matrix))
        return cls(2 * _COPIED_BYTES / _fastest_s(copy), 2 * _MATRIX**3 / _fastest_s(product))


def _fastest_s(work: Callable[[], tf.Tensor]) -> float:
    seconds = []
    for _ in range(1 + _TRIES):
        start = time.perf_counter()
        work()
        wait_for_devices()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def wait_for_devices() -> None:
    """Waits for the work that TensorFlow has given to its devices."""
    tf.test.experimental.sync_devices()
