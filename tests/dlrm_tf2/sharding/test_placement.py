"""How tables are cut and pieces are placed: by hand, and against the published planner's figures."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlrm_tf2.benchmarks.zoo import MODELS
from dlrm_tf2.sharding import placement
from dlrm_tf2.sharding.cost import Imbalance, Step, cost_of
from dlrm_tf2.sharding.plan import make_plan
from dlrm_tf2.sharding.tables import Loads


# Source: the logic of distributed-embeddings (commit 4cb42d4), executed on its own models, with a threshold of 1280 Mi
# elements from medium on.
@pytest.mark.parametrize("model, world_size, strategy, published", [
    ("tiny", 8, "memory_balanced", (3.08, 1.86, 1.14)),
    ("small", 8, "memory_balanced", (2.25, 2.52, 1.17)),
    ("small", 8, "memory_optimized", (1.81, 4.34, 4.43)),
    ("small", 32, "memory_balanced", (7.25, 3.96, 1.63)),
    ("medium", 8, "memory_balanced", (1.03, 1.47, 1.06)),
    ("medium", 8, "memory_optimized", (1.02, 2.23, 2.63)),
    ("medium", 32, "memory_balanced", (1.22, 3.18, 1.32)),
    ("medium", 32, "basic", (1.58, 1.29, 1.10)),
    ("medium", 128, "memory_balanced", (1.85, 8.24, 2.13)),
    ("large", 32, "memory_balanced", (1.00, 1.13, 1.02)),
    ("large", 128, "memory_balanced", (1.19, 2.23, 1.34)),
    ("jumbo", 128, "memory_balanced", (1.05, 2.47, 1.15)),
    ("colossal", 512, "memory_balanced", (1.07, 2.48, 1.17)),
    ("colossal", 1024, "memory_balanced", (1.22, 4.92, 1.56)),
])  # fmt: skip
def test_published_strategies_reach_the_published_balance(model, world_size, strategy, published):
    zoo = MODELS[model]
    threshold = None if model in ("tiny", "small") else 1280 * 2**20
    plan = make_plan(zoo.tables, world_size, strategy=strategy, hotness=zoo.hotness, column_slice_threshold=threshold)
    found = Imbalance.of(cost_of(plan, zoo.tables, Step(65536, zoo.hotness)))
    # The published figures are rounded to two digits.
    assert (found.memory, found.gather, found.output) == pytest.approx(published, abs=0.0051)


@pytest.mark.parametrize("rows, width, threshold, max_pieces, widths", [
    (100, 8, 800, 8, [8]),  # exactly the threshold: not above it
    (100, 8, 799, 8, [4, 4]),
    (100, 8, 200, 8, [2, 2, 2, 2]),
    (100, 8, 1, 8, [1] * 8),  # as many as there are columns
    (100, 8, 1, 2, [4, 4]),  # as many as there are ranks
    (100, 10, 300, 8, [3, 3, 2, 2]),
    (100, 10, 100, 3, [4, 3, 3]),
])  # fmt: skip
def test_columns_are_cut_into_powers_of_two(rows, width, threshold, max_pieces, widths):
    assert placement.cut_columns(rows, width, threshold=threshold, max_pieces=max_pieces) == widths


def test_the_threshold_for_few_tables():
    assert placement.threshold_for([100, 40], 2) == math.inf
    assert placement.threshold_for([100, 40], 3) == 99  # 50, 50, 40
    assert placement.threshold_for([100, 40], 4) == 49  # 25, 25, 50, 40
    assert placement.threshold_for([100, 40], 6) == 39  # 25, 25, 25, 25, 20, 20
    assert placement.threshold_for([1], 5) == 0 and placement.threshold_for([], 3) == math.inf


SIZES, TABLES = [5, 9, 5, 1, 7, 3], [0, 1, 2, 3, 4, 5]


def test_basic_deals_in_order():
    assert placement.basic(SIZES, TABLES, 4) == [0, 1, 2, 3, 0, 1]


def test_memory_balanced_deals_the_largest_first_there_and_back():
    # By size, the later of equal ones first: 9, 7, 5 (table 2), 5 (table 0), 3, 1 on ranks 0, 1, 1, 0, 0, 1.
    assert placement.memory_balanced(SIZES, TABLES, 2) == [0, 0, 1, 1, 1, 0]


def test_memory_optimized_fills_the_emptiest():
    # 9 on rank 0; 7, 5 on rank 1; 5 on rank 0 (9 < 12); 3 on rank 1 (12 < 14); 1 on rank 0.
    assert placement.memory_optimized(SIZES, TABLES, 2) == [0, 0, 1, 0, 1, 1]


def test_balance_looks_at_all_three_loads():
    # By bytes alone the first would be alone; by all three, those with many lookups must be apart.
    tables = [
        placement.Divisible("large", Loads(100.0, 1.0, 1.0), num_rows=1000, width=4),
        placement.Divisible("hot", Loads(1.0, 100.0, 1.0), num_rows=1000, width=4),
        placement.Divisible("hot too", Loads(1.0, 100.0, 1.0), num_rows=1000, width=4),
        placement.Divisible("large too", Loads(100.0, 1.0, 1.0), num_rows=1000, width=4),
    ]
    columns = placement.balance(tables, 2, np.zeros((2, 3)))
    (large,), (hot,), (hot_too,), (large_too,) = (list(ranks) for ranks in columns)
    assert large != large_too and hot != hot_too


@given(
    st.lists(st.tuples(st.integers(1, 20_000), st.integers(1, 40), st.integers(1, 50)), min_size=1, max_size=10),
    st.integers(1, 7),
    st.booleans(),
)
def test_balance_places_every_column_once(shapes, world_size, given_widths):
    tables = [
        placement.Divisible(
            f"t{i}",
            Loads(rows * width, ids * width, width),
            num_rows=rows,
            width=width,
            widths=(width,) if given_widths and i % 2 else None,
        )
        for i, (rows, width, ids) in enumerate(shapes)
    ]
    columns = placement.balance(tables, world_size, np.zeros((world_size, 3)))
    for table, ranks in zip(tables, columns, strict=True):
        assert sum(ranks.values()) == table.width and all(0 <= rank < world_size for rank in ranks)
        assert table.widths is None or len(ranks) == 1


@given(st.lists(st.integers(1, 10**9), min_size=1, max_size=60), st.integers(2, 16))
def test_balance_keeps_the_bound_of_greedy_placement(sizes, world_size):
    """Whoever gets the last piece of the fullest rank was the emptiest then: mean and that piece are the most."""
    tables = [
        placement.Divisible(f"t{i}", Loads(size, size, size), num_rows=size, width=1) for i, size in enumerate(sizes)
    ]
    loads = [0] * world_size
    for size, ranks in zip(sizes, placement.balance(tables, world_size, np.zeros((world_size, 3))), strict=True):
        loads[next(iter(ranks))] += size
    assert max(loads) <= sum(sizes) / world_size + max(sizes)
