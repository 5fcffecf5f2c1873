"""The floor of a step by hand."""

import pytest

from dlrm_tf2.benchmarks.floor import Floor, Speeds, floor_of
from dlrm_tf2.benchmarks.zoo import TableGroup, ZooModel
from dlrm_tf2.sharding.cost import Step
from dlrm_tf2.sharding.plan import make_plan

ZOO = ZooModel("test", (TableGroup(2, (1, 3), 100, 8),), num_numerical=2, mlp_dims=(5, 1))


class SevenRows:
    def distinct_rows(self, table, rows):
        assert rows == (0, 100)
        return 7


def test_bytes_and_operations_by_hand():
    # Each of 2 ranks has one table: 10 samples of 1 + 3 ids of 4 bytes, 7 rows and 2 vectors a sample of width 8.
    plan = make_plan(ZOO.tables, 2, strategy="basic", hotness=ZOO.hotness, optimizer="adagrad")
    step = Step(10, ZOO.hotness, optimizer="adagrad", wire_bytes=2)
    speeds = Speeds(bytes_per_s=1e6, operations_per_s=1e5)
    floor = floor_of(ZOO, plan, rank=1, step=step, data=SevenRows(), speeds=speeds)
    ids, rows, vectors = 10 * 4 * 4, 7 * 8 * 4, 10 * 2 * 8 * 2
    assert floor.lookup_bytes == ids + rows + vectors
    assert floor.update_bytes == ids + vectors + 2 * 2 * rows  # weights and accumulators, read and written
    assert floor.operations == 3 * 5 * 2 * (34 * 5 + 5 * 1)  # 4 vectors of 8 and 2 numericals; 5 samples of the rank
    assert floor.ms == pytest.approx(1e3 * ((floor.lookup_bytes + floor.update_bytes) / 1e6 + floor.operations / 1e5))


def test_the_line_names_the_share():
    line = Floor(2e6, 3e6, 4e9, bytes_per_s=1e9, operations_per_s=2e12).line(step_ms=28.0)
    assert line == (
        "floor 7.000 ms, 25 % of an iteration: lookup moves 2.0 MB and update 3.0 MB, at 1.0 GB/s (measured copy); "
        "matrix products take 4.00 G operations, at 2,000 G/s (measured product)"
    )
