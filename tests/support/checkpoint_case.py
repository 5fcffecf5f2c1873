"""A small model to save and restore with ranks as threads: tables, plans, dense variables, and fixtures."""

import itertools

import numpy as np
import pytest

from dlrm_tf2.checkpoint import load_checkpoint, save_checkpoint
from dlrm_tf2.sharding.plan import Shard, ShardingPlan, make_plan
from dlrm_tf2.sharding.tables import TableConfig

TABLES = (
    TableConfig("cat_0", 11, 6),
    TableConfig("shop/été.bin", 7, 6, features=("shop",)),
    TableConfig("tiny", 1, 6),
)
DOCUMENT = {"model": {"embedding_dim": 6}, "step": 41, "auc": 0.5, "note": "käse", "ids": {"7": [1, 2]}}


def split_plan(world_size, row_cuts=(), column_cuts=()):
    """All tables cut into a grid, whose shards are given to the ranks in turn."""
    shards, turn = [], itertools.cycle(range(world_size))
    for table in TABLES:
        rows = [0, *(cut for cut in row_cuts if cut < table.num_rows), table.num_rows]
        columns = [0, *column_cuts, table.embedding_dim]
        for rectangle in itertools.product(itertools.pairwise(rows), itertools.pairwise(columns)):
            shards.append(Shard(table.name, next(turn), *rectangle))
    return ShardingPlan(world_size, tuple(shards))


PLANS = {
    "1 whole": make_plan(TABLES, 1),
    "1 cut": split_plan(1, row_cuts=(4,), column_cuts=(2,)),
    "2 whole": make_plan(TABLES, 2),
    "2 columns": split_plan(2, column_cuts=(3,)),
    "2 rows": split_plan(2, row_cuts=(5,)),
    "3 whole": make_plan(TABLES, 3),
    "3 columns": split_plan(3, column_cuts=(1, 4)),
    "3 rows": split_plan(3, row_cuts=(2, 3, 8)),
    "3 grid": split_plan(3, row_cuts=(3, 6), column_cuts=(4,)),
}

STRATEGIES = {
    "basic": {"strategy": "basic"},
    "memory_balanced": {"strategy": "memory_balanced", "column_slice_threshold": 30},
    "memory_optimized": {"strategy": "memory_optimized", "row_slice_threshold": 40, "data_parallel_threshold": 6},
    "balanced": {"strategy": "balanced", "data_parallel_threshold": 42},
    "balanced and cut": {"strategy": "balanced", "column_slice_threshold": 20, "row_slice_threshold": 66},
}
STRATEGY_PLANS = {  # with one rank, all strategies give the same plan
    "1": make_plan(TABLES, 1),
    **{f"{ranks} {name}": make_plan(TABLES, ranks, **how) for ranks in (2, 3, 4) for name, how in STRATEGIES.items()},
}


class Variable:
    """The methods of tf.Variable that a checkpoint calls."""

    def __init__(self, value):
        self.value = np.array(value)

    def numpy(self):
        return self.value

    def assign(self, value):
        assert np.shape(value) == self.value.shape
        self.value = np.array(value)


def weights_of(slots=("weights",), seed=0):
    rng = np.random.default_rng(seed)
    return {
        (slot, table.name): rng.normal(size=(table.num_rows, table.embedding_dim)).astype(np.float32)
        for slot in slots
        for table in TABLES
    }


def dense_of(seed):
    rng = np.random.default_rng(seed)
    return {
        "bottom_mlp/0/kernel": Variable(rng.normal(size=(13, 4)).astype(np.float32)),
        "bottom_mlp/0/bias": Variable(rng.normal(size=4).astype(np.float32)),
        "iterations": Variable(np.int64(seed)),
    }


@pytest.fixture
def save(run_ranks, array_embedding):
    def save(path, plan, slots=("weights",), seed=0, document=DOCUMENT):
        def work(comm):
            embedding = array_embedding(TABLES, plan, comm.rank, slots, weights_of(slots, seed))
            save_checkpoint(path, comm, dense=dense_of(seed + comm.rank), embedding=embedding, document=document)
            return embedding

        return run_ranks(plan.world_size, work)

    return save


@pytest.fixture
def load(run_ranks, array_embedding):
    """Loads on all ranks; returns (document, dense, embedding) of each rank, or its exception."""

    def load(path, plan, slots=("weights",), tables=TABLES, dense=None):
        def work(comm):
            embedding = array_embedding(tables, plan, comm.rank, slots)
            variables = dense or dense_of(1000 + comm.rank)
            return load_checkpoint(path, comm, dense=variables, embedding=embedding), variables, embedding

        return run_ranks(plan.world_size, work)

    return load


def assert_restored(results, slots=("weights",), seed=0):
    expected = weights_of(slots, seed)
    for document, dense, embedding in results:
        assert document == DOCUMENT
        for name, variable in dense_of(seed).items():
            np.testing.assert_array_equal(dense[name].value, variable.value)
        for (slot, shard), part in embedding.parts.items():
            np.testing.assert_array_equal(part, expected[slot, shard.table][slice(*shard.rows), slice(*shard.columns)])


def folder_bytes(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
