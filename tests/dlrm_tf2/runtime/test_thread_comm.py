"""The ranks that other tests run as threads behave like the ranks of Horovod."""

import numpy as np
import pytest
import tensorflow as tf

from dlrm_tf2.runtime.comm import HorovodComm, SingleProcess


def test_it_has_the_methods_of_the_others(run_ranks):
    def names(comm):
        return {name for name in dir(comm) if not name.startswith("_")}

    assert (
        run_ranks(2, names)[0]
        == names(SingleProcess())
        == names(HorovodComm) | {"rank", "size", "local_rank", "local_size"}
    )


@pytest.mark.parametrize("as_function", [True, False])
def test_alltoall_by_hand_and_its_gradient(run_ranks, as_function):
    # Rank r sends r + 1 rows to rank 0, one to rank 1, none to rank 2; row values say who sent what.
    def work(comm):
        splits = tf.constant([comm.rank + 1, 1, 0])
        rows = tf.constant([[100.0 * comm.rank + i, 0.5] for i in range(comm.rank + 2)])

        def step(rows):
            with tf.GradientTape() as tape:
                tape.watch(rows)
                received, counts = comm.alltoall(rows, splits, name="vectors")
                total = tf.reduce_sum(received * (comm.rank + 1.0))
            return received, counts, tape.gradient(total, rows)

        received, counts, gradient = (tf.function(step) if as_function else step)(rows)
        return received[:, 0].numpy().tolist(), counts.numpy().tolist(), gradient.numpy().tolist()

    received, counts, gradients = zip(*run_ranks(3, work), strict=True)
    assert counts == ([1, 2, 3], [1, 1, 1], [0, 0, 0])
    assert received == ([0, 100, 101, 200, 201, 202], [1, 102, 203], [])
    assert gradients[2] == [[1, 1], [1, 1], [1, 1], [2, 2]]  # three rows went to rank 0, one to rank 1


def test_sums_of_many_ranks_inside_a_function(run_ranks):
    def work(comm):
        @tf.function
        def step(x):
            for i in range(3):
                x, y = comm.allreduce_sum([x, tf.constant(2.0, tf.float64)], name=f"sum.{i}")
            return x, y

        x, y = step(tf.constant([1.0, comm.rank]))
        return x.numpy().tolist(), float(y)

    assert run_ranks(4, work) == [([64.0, 96.0], 8.0)] * 4  # 1 -> 4 -> 16 -> 64; 0+1+2+3 = 6 -> 24 -> 96


def test_objects_rows_and_variables(run_ranks):
    def work(comm):
        variable = tf.Variable([float(comm.rank), 7.0])
        comm.broadcast([variable])
        rows = comm.allgather(np.full((comm.rank, 2), comm.rank), name="rows")
        return (
            variable.numpy().tolist(),
            rows[:, 0].tolist(),
            comm.broadcast_object({"seed": comm.rank}, name="seed"),
            comm.allgather_object(comm.rank**2, name="squares"),
        )

    assert run_ranks(3, work) == [([0.0, 7.0], [1, 2, 2], {"seed": 0}, [0, 1, 4])] * 3


def test_a_rank_that_fails_ends_the_others(run_ranks):
    def work(comm):
        if comm.rank == 1:
            raise ValueError("out of luck")
        comm.allgather_object(None, name="never")

    errors = run_ranks(2, work)
    assert "ranks [1] did not come (another rank failed)" in str(errors[0])
    assert str(errors[1]) == "out of luck"
