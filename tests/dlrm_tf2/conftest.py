"""Several ranks in one process, a thread each, and tables that are numpy arrays."""

import os
import pickle
import threading
from collections.abc import Callable

import numpy as np
import pytest
from support.checkpoint_case import load, save  # noqa: F401 - fixtures, found here by the tests

# A collective inside a tf.function blocks a thread of TensorFlow until the other ranks have come, and all collectives
# of all ranks may wait at the same time.
os.environ.setdefault("TF_NUM_INTEROP_THREADS", "128")

_PATIENCE_S = 120


class _MeetingPoint:
    """Where the ranks exchange values: the n-th call of a name on one rank meets the n-th call of it on the others."""

    def __init__(self, size: int):
        self.size = size
        self._changed = threading.Condition()
        self._rooms: dict[tuple[str, int], dict[int, object]] = {}
        self._left: dict[tuple[str, int], int] = {}
        self._calls: dict[tuple[int, str], int] = {}
        self._failed = False

    def exchange(self, rank: int, name: str, value: object) -> list:
        """Gives `value` to the others and returns the values of all, in rank order."""
        with self._changed:
            number = self._calls.get((rank, name), 0)
            self._calls[rank, name] = number + 1
            room = self._rooms.setdefault((name, number), {})
            room[rank] = value
            self._changed.notify_all()
            come = self._changed.wait_for(lambda: len(room) == self.size or self._failed, _PATIENCE_S)
            if len(room) < self.size:
                missing = sorted(set(range(self.size)) - set(room))
                why = f"waited {_PATIENCE_S} s" if not come else "another rank failed"
                raise RuntimeError(f"rank {rank}, {name!r}: ranks {missing} did not come ({why})")
            values = [room[other] for other in range(self.size)]
            self._left[name, number] = self._left.get((name, number), 0) + 1
            if self._left[name, number] == self.size:
                del self._rooms[name, number], self._left[name, number]
            return values

    def fail(self) -> None:
        with self._changed:
            self._failed = True
            self._changed.notify_all()


class ThreadComm:
    """One rank of a group of threads; it has the methods of dlrm_tf2.runtime.comm.SingleProcess.

    To TensorFlow its operations have no state, as Horovod's have none: where TensorFlow would run one early, or leave
    it out, it does so here too.
    """

    def __init__(self, rank: int, meeting_point: _MeetingPoint):
        self.rank = self.local_rank = rank
        self.size = self.local_size = meeting_point.size
        self._meet = meeting_point.exchange

    def alltoall(self, rows, splits, name):
        import tensorflow as tf

        def exchange(rows, splits):
            starts = np.cumsum([0, *splits])
            assert len(splits) == self.size and starts[-1] == len(rows), f"{name}: splits {splits} of {len(rows)} rows"
            sent = [rows[starts[other] : starts[other + 1]].copy() for other in range(self.size)]
            received = [parts[self.rank] for parts in self._meet(self.rank, name, sent)]
            return np.concatenate(received), np.array([len(part) for part in received], np.int32)

        @tf.custom_gradient
        def differentiable(rows):
            types = [rows.dtype, tf.int32]
            received, received_splits = tf.numpy_function(exchange, [rows, splits], types, stateful=False)
            received = tf.ensure_shape(received, [None, *rows.shape[1:]])

            def back(gradient, _):
                return self.alltoall(gradient, received_splits, f"{name}.gradient")[0]

            return (received, received_splits), back

        return differentiable(tf.convert_to_tensor(rows))

    def allreduce_sum(self, tensors, name):
        import tensorflow as tf

        def reduce(*arrays):
            of_all = self._meet(self.rank, name, [np.array(array) for array in arrays])
            return [sum(others[1:], others[0]) for others in zip(*of_all, strict=True)]

        tensors = [tf.convert_to_tensor(tensor) for tensor in tensors]
        sums = tf.numpy_function(reduce, tensors, [tensor.dtype for tensor in tensors], stateful=False)
        sums = tf.nest.flatten(sums)  # in eager mode, one sum comes without a list
        return [tf.ensure_shape(total, tensor.shape) for total, tensor in zip(sums, tensors, strict=True)]

    def exchange_seconds(self):
        return 0.0

    def allgather(self, rows, name):
        return np.concatenate(self._meet(self.rank, name, np.array(rows)))

    def broadcast(self, variables):
        values = self._meet(self.rank, "broadcast", [variable.numpy().copy() for variable in variables])[0]
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)

    def broadcast_object(self, value, name):
        return pickle.loads(self._meet(self.rank, name, pickle.dumps(value))[0])

    def allgather_object(self, value, name):
        return [pickle.loads(other) for other in self._meet(self.rank, name, pickle.dumps(value))]


def _run_ranks(size: int, work: Callable) -> list:
    """Calls work(comm) on every rank, a thread each.

    Returns:
      The results, in rank order; where a rank raised, its exception instead, if all ranks raised.

    Raises:
      What the first rank that failed raised, if another one did not raise.
    """
    meeting_point = _MeetingPoint(size)
    outcomes: list = [None] * size
    first: list[BaseException] = []

    def run(rank: int) -> None:
        try:
            outcomes[rank] = work(ThreadComm(rank, meeting_point))
        except BaseException as error:
            outcomes[rank] = error
            first.append(error)
            meeting_point.fail()

    threads = [threading.Thread(target=run, args=(rank,), daemon=True) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(2 * _PATIENCE_S)
    assert not any(thread.is_alive() for thread in threads), "a rank hangs"
    if first and len(first) < size:
        raise first[0]
    return outcomes


@pytest.fixture
def run_ranks() -> Callable:
    """`run_ranks(size, work)`: the results of work(comm) on `size` ranks; see _run_ranks for failures."""
    return _run_ranks


class ArrayEmbedding:
    """Tables as numpy arrays, in the role of DistributedEmbedding towards checkpoints.

    Args:
      weights: (slot, table name) -> whole table, of which this rank holds its shards; None fills them with nan.
    """

    table_dtype = "float32"

    def __init__(self, tables, plan, rank, slots=("weights",), weights=None):
        self.tables, self.plan, self.rank, self.slots = tuple(tables), plan, rank, slots
        self.parts, self.dynamic_tables = {}, {}
        self.largest_block_bytes = 0
        for shard in plan.of_rank(rank):
            for slot in slots:
                part = np.full((shard.num_rows, shard.num_columns), np.nan, np.float32)
                if weights is not None:
                    part[:] = weights[slot, shard.table][slice(*shard.rows), slice(*shard.columns)]
                self.parts[slot, shard] = part

    def read_rows(self, shard, slot, start, stop):
        assert shard.rows[0] <= start <= stop <= shard.rows[1]
        block = self.parts[slot, shard][start - shard.rows[0] : stop - shard.rows[0]]
        self.largest_block_bytes = max(self.largest_block_bytes, block.nbytes)
        return block

    def write_rows(self, shard, slot, start, values):
        assert shard.rows[0] <= start and start + len(values) <= shard.rows[1]
        assert values.dtype == np.float32 and values.shape[1] == shard.num_columns
        self.largest_block_bytes = max(self.largest_block_bytes, values.nbytes)
        self.parts[slot, shard][start - shard.rows[0] : start - shard.rows[0] + len(values)] = values


@pytest.fixture
def array_embedding() -> type[ArrayEmbedding]:
    return ArrayEmbedding
