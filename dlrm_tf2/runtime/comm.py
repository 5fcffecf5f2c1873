"""The exchanges between the ranks of a job. The only file that imports Horovod.

`connect` makes a `Comm` that fits how the process was started, and every function that communicates takes it. Every
collective has an explicit name, the same on all ranks: Horovod pairs tensors by name, and two ranks that hold different
tables have different graphs.
"""

from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from dlrm_tf2.runtime.exchange_timer import ExchangeTimer


class CommError(ValueError):
    """The ranks that the launcher started cannot be connected."""


class SingleProcess:
    """The group of one rank: nothing to exchange."""

    rank = local_rank = 0
    size = local_size = 1

    def alltoall(self, rows: tf.Tensor, splits: tf.Tensor, name: str) -> tuple[tf.Tensor, tf.Tensor]:
        """Sends `splits[r]` rows to rank r, in order.

        Args:
          rows: [sum(splits), ...], float32, float16 or integers.
          splits: int32 [size].

        Returns:
          (the received rows, by rank; how many come from each rank: int32 [size]).
        """
        return rows, splits

    def allreduce_sum(self, tensors: Sequence[tf.Tensor], name: str) -> list[tf.Tensor]:
        """The sum of each tensor (float32 or float64) over the ranks."""
        return list(tensors)

    def exchange_seconds(self) -> float | None:
        """Seconds that this rank has spent in alltoall and allreduce_sum, including the wait for other ranks.

        Time in which several exchanges run counts once. None where exchanges are not measured.
        """
        return 0.0

    def allgather(self, rows: np.ndarray, name: str) -> np.ndarray:
        """The rows of all ranks, rank 0 first. Each rank may have another number of rows."""
        return rows

    def broadcast(self, variables: Sequence[tf.Variable]) -> None:
        """Gives every rank the values of rank 0."""

    def broadcast_object(self, value: object, name: str) -> object:
        """Gives every rank the picklable `value` of rank 0."""
        return value

    def allgather_object(self, value: object, name: str) -> list:
        """The picklable values of all ranks, in rank order. Also serves as a barrier."""
        return [value]


class HorovodComm:
    """The ranks of a Horovod job; it has the methods of SingleProcess.

    Args:
      hvd: horovod.tensorflow, initialized.
      timed: measure the time of exchanges. Not for a GPU, because each measurement would wait for its work.
    """

    def __init__(self, hvd, timed: bool = True):
        self._hvd = hvd
        self.rank, self.size = hvd.rank(), hvd.size()
        self.local_rank, self.local_size = hvd.local_rank(), hvd.local_size()
        self._timer = ExchangeTimer() if timed else None

    def alltoall(self, rows: tf.Tensor, splits: tf.Tensor, name: str) -> tuple[tf.Tensor, tf.Tensor]:
        received, counts = self._timed(lambda: self._hvd.alltoall(rows, splits=splits, name=name), [rows, splits])
        return received, counts

    def allreduce_sum(self, tensors: Sequence[tf.Tensor], name: str) -> list[tf.Tensor]:
        tensors = list(tensors)
        return self._timed(lambda: self._hvd.grouped_allreduce(tensors, op=self._hvd.Sum, name=name), tensors)

    def exchange_seconds(self) -> float | None:
        return self._timer and self._timer.seconds()

    def _timed(self, exchange: Callable[[], Sequence[tf.Tensor]], inputs: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        return self._timer.time(exchange, inputs) if self._timer else list(exchange())

    def allgather(self, rows: np.ndarray, name: str) -> np.ndarray:
        return self._hvd.allgather(tf.constant(rows), name=name).numpy()

    def broadcast(self, variables: Sequence[tf.Variable]) -> None:
        self._hvd.broadcast_variables(list(variables), root_rank=0)

    def broadcast_object(self, value: object, name: str) -> object:
        return self._hvd.broadcast_object(value, root_rank=0, name=name)

    def allgather_object(self, value: object, name: str) -> list:
        return self._hvd.allgather_object(value, name=name)


Comm = SingleProcess | HorovodComm


def connect(world_size: int, timed: bool = True) -> Comm:
    """Joins the group of ranks that the launcher started.

    Args:
      world_size: number of processes that the launcher says it started; 1 without a launcher.
      timed: see HorovodComm.

    Raises:
      CommError: several processes were started, and Horovod is not installed, was built without TensorFlow, or finds
        another number of processes.
    """
    if world_size == 1:
        return SingleProcess()
    try:
        import horovod.tensorflow as hvd
    except ImportError as error:
        raise CommError(
            f"{world_size} processes were started, but Horovod cannot be imported ({error}). Install it with "
            "`make setup`, or start one process without a launcher."
        ) from None
    hvd.init()
    if hvd.size() != world_size:
        raise CommError(
            f"the launcher started {world_size} processes, but Horovod sees {hvd.size()}. Start them with horovodrun, "
            "or with an mpirun of the MPI that Horovod was built with (`horovodrun --check-build` lists it), or with "
            "srun --mpi=pmix."
        )
    return HorovodComm(hvd, timed)
