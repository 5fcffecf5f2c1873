"""N ranks train the tables that the formulas in numpy do, whatever the plan, the input and the optimizer."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.embedding_case import assembled, draw, train, train_reference

from dlrm_tf2.embedding.result_layout import ResultLayout
from dlrm_tf2.embedding.slab import Slab
from dlrm_tf2.runtime.comm import SingleProcess


def check(case, run_ranks, steps, loss_tolerance=1e-9, tolerances=(1e-8, 1e-10), **settings):
    """Trains with N ranks and compares with numpy; `tolerances` of the tables are relative and absolute."""
    losses, tables = train_reference(case, steps)
    ranks = run_ranks(case.plan.world_size, lambda comm: train(case, comm, steps, **settings))
    for rank in ranks:
        if isinstance(rank, BaseException):
            raise rank
    parts = {}
    for rank, (rank_losses, rank_parts) in enumerate(ranks):
        np.testing.assert_allclose(rank_losses, losses, rtol=loss_tolerance, err_msg=f"losses of rank {rank}")
        parts |= rank_parts
    found = assembled(case, parts)
    assert found.keys() == tables.keys()
    for key, table in found.items():
        np.testing.assert_allclose(table, tables[key], *tolerances, err_msg=str(key))


@pytest.mark.parametrize("optimizer", ["sgd", "adagrad", "rowwise_adagrad", "adam"])
def test_one_rank_equals_numpy(optimizer):
    for seed in range(2):
        case = draw(seed, 1, optimizer)
        losses, tables = train_reference(case, 5)
        found_losses, parts = train(case, SingleProcess(), 5)
        np.testing.assert_allclose(found_losses, losses, rtol=1e-9)
        for key, table in assembled(case, parts).items():
            np.testing.assert_allclose(table, tables[key], rtol=1e-8, atol=1e-10, err_msg=str(key))


@settings(deadline=None, max_examples=4, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 10**6), world_size=st.integers(2, 4))
def test_n_ranks_equal_numpy(run_ranks, seed, world_size):
    check(draw(seed, world_size), run_ranks, 4)


@pytest.mark.long
@pytest.mark.parametrize("world_size", [2, 3, 4, 5])
@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 10**9))
def test_n_ranks_equal_numpy_many_times(run_ranks, world_size, seed):
    check(draw(seed, world_size), run_ranks, 4)


@pytest.mark.parametrize(
    "optimizer, loss_tolerance", [("sgd", 1e-5), ("adagrad", 1e-5), ("rowwise_adagrad", 1e-5), ("adam", 1e-4)]
)
@pytest.mark.parametrize("data_parallel_input", [False, True])
def test_50_steps_in_float32(run_ranks, optimizer, loss_tolerance, data_parallel_input):
    """In float32 sums differ with their order; that must stay rounding over a training's length."""
    case = draw(11, 3, optimizer, data_parallel_input)
    losses, parts = train(case.one_rank(), SingleProcess(), 50, learning_rate=0.05, dtype="float32")
    tables = assembled(case, parts)
    found = {}
    ranks = run_ranks(3, lambda comm: train(case, comm, 50, learning_rate=0.05, dtype="float32"))
    for rank_losses, rank_parts in ranks:
        np.testing.assert_allclose(rank_losses, losses, rtol=loss_tolerance)
        found |= rank_parts
    if optimizer != "adam":
        for key, table in assembled(case, found).items():
            np.testing.assert_allclose(table, tables[key], rtol=1e-5, atol=1e-6, err_msg=str(key))


@pytest.mark.parametrize("wire, tolerance", [("float16", 5e-4), ("bfloat16", 4e-3)])
@pytest.mark.parametrize("data_parallel_input", [False, True])
def test_vectors_that_travel_in_16_bits(run_ranks, wire, tolerance, data_parallel_input):
    case = draw(3, 2, "sgd", data_parallel_input)
    check(case, run_ranks, 4, tolerance, (tolerance, tolerance), dtype="float32", wire=wire)


@pytest.mark.parametrize("defect", ["wrong scale", "swapped slices"])
def test_a_planted_defect_is_found(run_ranks, monkeypatch, defect):
    """What this file would say if gradients were multiplied by the number of ranks, or two column slices swapped."""
    case = next(case for case in (draw(seed, 2, "sgd", False) for seed in range(99)) if _halved_columns(case))
    if defect == "wrong scale":
        update = Slab.update
        monkeypatch.setattr(
            Slab, "update", lambda slab, rows, gradients, **others: update(slab, rows, gradients * 2, **others)
        )
    else:
        pieces = ResultLayout.pieces

        def swapped(layout, shards, features):
            found = pieces(layout, shards, features)
            name, half = _halved_columns(case)
            return [
                replace(p, start=p.start + (half if p.shard.columns[0] == 0 else -half)) if p.shard.table == name else p
                for p in found
            ]

        monkeypatch.setattr(ResultLayout, "pieces", swapped)
    with pytest.raises(AssertionError, match="losses of rank 0"):
        check(case, run_ranks, 4)


def _halved_columns(case):
    """(name, columns of a half) of a table that is cut into two equal halves by columns; None if there is none."""
    for table in case.tables:
        columns = [shard.columns for shard in case.plan.of_table(table.name)]
        half = table.embedding_dim // 2
        if table.name not in case.plan.replicated and columns == [(0, half), (half, 2 * half)] and half:
            return table.name, half
    return None
