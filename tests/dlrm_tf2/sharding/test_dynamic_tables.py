"""A dynamic table as data, and its place in a plan: by its buckets, for any thresholds and strategies."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlrm_tf2.sharding.cost import Step, cost_of, offloaded
from dlrm_tf2.sharding.dynamic_tables import (
    AfterCount,
    AfterSeconds,
    AfterSteps,
    DynamicTableConfig,
    Initializer,
    WithProbability,
)
from dlrm_tf2.sharding.plan import STRATEGIES, Shard, check_tables, make_plan
from dlrm_tf2.sharding.plan_report import plan_text
from dlrm_tf2.sharding.tables import TableConfig

STATIC = TableConfig("s", 1000, 8)


def test_what_is_not_given():
    table = DynamicTableConfig("t", 100, embedding_dim=8)
    assert table.features == ("t",) and table.initializer == ("uniform", -0.1, 0.1)
    assert table.num_rows == 100 and table.num_elements == 800 and table.counter_bytes == 0


@pytest.mark.parametrize("settings, reason", [
    ({"capacity": 0}, "capacity 0; it must be 1 or more"),
    ({"embedding_dim": 0}, "embedding_dim 0"),
    ({"bucket_capacity": 0}, "bucket_capacity 0"),
    ({"combiner": "max"}, "combiner 'max'; it must be one of"),
    ({"features": ()}, "no feature looks up in it"),
    ({"score": "lru"}, "score 'lru'; it must be one of timestamp, step, lfu, custom, no_eviction"),
    ({"initializer": Initializer("zeros", 0)}, "initializer 'zeros'; it must be one of constant, uniform"),
    ({"initializer": Initializer("normal", 0, -1)}, "a standard deviation of -1"),
    ({"admission": AfterCount(0)}, "admission after 0 times"),
    ({"admission": AfterCount(2, "bloom")}, "counter 'bloom'; it must be one of exact, sketch"),
    ({"admission": AfterCount(2, counter_bytes=5)}, "counter_bytes 5; its 1 buckets need 24 bytes each"),
    ({"admission": WithProbability(0.0)}, "admission with probability 0.0"),
    ({"admission": WithProbability(1.5)}, "admission with probability 1.5"),
    ({"expiry": AfterSteps(0)}, "the number must be positive"),
    ({"expiry": AfterSeconds(-1.0)}, "the number must be positive"),
])  # fmt: skip
def test_what_is_refused(settings, reason):
    with pytest.raises(ValueError, match=reason) as raised:
        DynamicTableConfig(**{"name": "t", "capacity": 10, "embedding_dim": 4, **settings})
    assert "'t'" in str(raised.value)


@given(
    st.lists(st.integers(1, 5000), min_size=1, max_size=3),
    st.sampled_from(STRATEGIES),
    st.integers(1, 6),
    st.sampled_from([None, 1, 1 << 40]),
)
def test_every_rank_has_the_rows_of_its_buckets(capacities, strategy, world_size, threshold):
    tables = [
        DynamicTableConfig(f"t{number}", capacity, embedding_dim=4, bucket_capacity=64)
        for number, capacity in enumerate(capacities)
    ]
    plan = make_plan(
        [*tables, STATIC], world_size, strategy=strategy, batch_size=1 << 20, column_slice_threshold=threshold,
        row_slice_threshold=threshold, data_parallel_threshold=threshold,
    )  # fmt: skip
    check_tables(plan, [*tables, STATIC], world_size)
    for table in tables:
        each, owned = table.buckets.rows_per_bucket, []
        for shard in plan.of_table(table.name):
            buckets = table.buckets.of_rank(shard.rank, world_size)
            assert shard.rows == (buckets.start * each, buckets.stop * each) and shard.columns == (0, 4)
            owned += buckets
        assert owned == list(range(table.buckets.num_buckets))
        assert table.name not in plan.replicated


def test_a_plan_that_cuts_buckets_or_copies_them_is_refused():
    table = DynamicTableConfig("t", 256, embedding_dim=2, bucket_capacity=64)
    plan = make_plan([table], 2)
    first, second = plan.shards
    moved = (replace(first, rows=(0, first.rows[1] + 1)), replace(second, rows=(first.rows[1] + 1, table.num_rows)))
    copies = tuple(Shard("t", rank, rows=(0, table.num_rows), columns=(0, 2)) for rank in range(2))
    for wrong in (
        replace(plan, shards=moved),
        replace(plan, shards=copies, replicated=frozenset({"t"})),
        replace(plan, on_host=frozenset({first})),
    ):
        with pytest.raises(ValueError, match="'t': it is dynamic, and each rank must hold the rows of the buckets"):
            check_tables(wrong, [table], 2)


def test_costs_by_hand():
    """4 buckets of 64 + 4.5 * 8 = 100 rows, 2 on each rank."""
    table = DynamicTableConfig("t", 256, embedding_dim=2, bucket_capacity=64, admission=AfterCount(2, "sketch", 800))
    plan = make_plan([table], 2, optimizer="adam")
    costs = cost_of(plan, [table], Step(10, optimizer="adam"))
    assert [cost.weight_bytes for cost in costs] == [200 * 2 * 4] * 2
    assert [cost.state_bytes for cost in costs] == [200 * 2 * 4 * 2] * 2
    # 24 bytes for key, score and step, 20 for the index; half of the sketch.
    assert [cost.index_bytes for cost in costs] == [200 * (16 + 32) + 400] * 2
    assert [cost.table_bytes for cost in costs] == [200 * 24 + 200 * 48 + 400] * 2
    assert [cost.fetched for cost in costs] == [10 * 0.5 * 2] * 2
    # Of 5 samples, half have a key of the other rank: a vector there, a gradient back, and a key with its count.
    assert [cost.sent_bytes for cost in costs] == [5 * 0.5 * 2 * 4 * 2 + 5 * 0.5 * 16] * 2
    assert offloaded(plan, [table], 0) == frozenset()


def test_the_report_says_dynamic():
    tables = [DynamicTableConfig("t", 256, embedding_dim=2, bucket_capacity=64), TableConfig("s", 400, 2)]
    text = plan_text(make_plan(tables, 2), tables, step=Step(10), activation_bytes=[0, 0])
    assert [line.split()[0] for line in text.splitlines() if "dynamic on ranks 0-1" in line] == ["t"]
    assert "index bytes" in text and f"{200 * 48}" in text
