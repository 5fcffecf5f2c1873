import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlrm_tf2.embedding.plan import Shard, ShardingPlan, make_plan, samples_of_rank
from dlrm_tf2.embedding.tables import TableConfig

# The rows of the published Criteo set at threshold 15.
T15 = (7912889, 33823, 17139, 7339, 20046, 4, 7105, 1382, 63, 5554114, 582469, 245828, 11, 2209, 10667, 104, 4, 968, 15,
       8165896, 2675940, 7156453, 302516, 12022, 97, 35)  # fmt: skip


def table(name, rows, dim=4):
    return TableConfig(name, rows, dim)


table_lists = st.lists(
    st.tuples(st.integers(1, 10_000), st.integers(1, 64)), min_size=1, max_size=12
).map(lambda shapes: [table(f"t{i}", rows, dim) for i, (rows, dim) in enumerate(shapes)])


@given(table_lists, st.integers(1, 6))
def test_the_shards_of_a_table_tile_it_exactly_once(tables, world_size):
    plan = make_plan(tables, world_size)
    assert all(0 <= shard.rank < world_size for shard in plan.shards)
    for config in tables:
        shards = plan.of_table(config.name)
        area = sum(shard.num_rows * shard.num_columns for shard in shards)
        assert area == config.num_rows * config.embedding_dim
        for one, other in itertools.combinations(shards, 2):
            apart = one.rows[1] <= other.rows[0] or other.rows[1] <= one.rows[0]
            apart |= one.columns[1] <= other.columns[0] or other.columns[1] <= one.columns[0]
            assert apart


@given(table_lists, st.integers(1, 6), st.randoms())
def test_every_rank_makes_the_same_plan_whatever_the_order(tables, world_size, random):
    shuffled = random.sample(tables, len(tables))
    assert set(make_plan(shuffled, world_size).shards) == set(make_plan(tables, world_size).shards)
    names = [shard.table for shard in make_plan(shuffled, world_size).shards]
    assert list(dict.fromkeys(names)) == [config.name for config in shuffled]


def test_equal_tables_are_dealt_evenly():
    plan = make_plan([table(f"t{i}", 100) for i in range(8)], 4)
    assert [len(plan.of_rank(rank)) for rank in range(4)] == [2, 2, 2, 2]
    assert [plan.bytes_of(rank) for rank in range(4)] == [2 * 100 * 4 * 4] * 4


def test_one_large_table_is_alone():
    plan = make_plan([table("small", 10), table("large", 1000), table("middle", 20)], 2)
    assert [shard.table for shard in plan.of_rank(plan.of_table("large")[0].rank)] == ["large"]


@pytest.mark.parametrize("world_size", [2, 4])
def test_criteo_is_balanced_by_bytes(world_size):
    tables = [table(f"cat_{i}", rows, 128) for i, rows in enumerate(T15)]
    plan = make_plan(tables, world_size)
    total = sum(config.num_bytes for config in tables)
    # 15.597 GiB, of which the five largest tables hold 96.2 %: none is larger than a quarter of it.
    assert sum(plan.bytes_of(rank) for rank in range(world_size)) == total == 4 * 128 * sum(T15) == 16_747_078_656
    assert max(plan.bytes_of(rank) for rank in range(world_size)) <= 1.35 * total / world_size


def test_more_ranks_than_tables_leaves_ranks_without():
    plan = make_plan([table("one", 5), table("two", 6)], 4)
    assert sorted(len(plan.of_rank(rank)) for rank in range(4)) == [0, 0, 1, 1]


def test_a_shard_by_hand():
    shard = Shard("t", 2, (10, 15), (4, 8))
    assert (shard.num_rows, shard.num_columns, shard.num_bytes) == (5, 4, 80)
    plan = ShardingPlan(3, (shard, Shard("u", 0, (0, 1), (0, 1))))
    assert plan.of_rank(2) == plan.of_table("t") == (shard,)
    assert (plan.bytes_of(0), plan.bytes_of(1), plan.bytes_of(2)) == (4, 0, 80)


def test_the_first_ranks_take_one_sample_more():
    assert [samples_of_rank(10, 3, rank) for rank in range(3)] == [(0, 4), (4, 7), (7, 10)]
    assert [samples_of_rank(2, 3, rank) for rank in range(3)] == [(0, 1), (1, 2), (2, 2)]


@given(st.integers(0, 1000), st.integers(1, 9))
def test_the_ranks_share_a_batch_without_gap(global_batch, world_size):
    shares = [samples_of_rank(global_batch, world_size, rank) for rank in range(world_size)]
    assert shares[0][0] == 0 and shares[-1][1] == global_batch
    assert all(one[1] == other[0] for one, other in itertools.pairwise(shares))
    sizes = [stop - start for start, stop in shares]
    assert max(sizes) - min(sizes) <= 1 and sizes == sorted(sizes, reverse=True)


@pytest.mark.parametrize("rows, dim, combiner, features, reason", [
    (0, 4, None, ("a",), "table 'bad': 0 rows of width 4; both must be positive"),
    (4, 0, None, ("a",), "table 'bad': 4 rows of width 0; both must be positive"),
    (4, 4, "max", ("a",), "table 'bad': combiner 'max'; it must be one of"),
    (4, 4, None, (), "table 'bad': no feature looks up in it. Leave the table out"),
])
def test_a_table_that_cannot_be(rows, dim, combiner, features, reason):
    with pytest.raises(ValueError, match=reason):
        TableConfig("bad", rows, dim, combiner, features)


def test_a_table_whose_features_are_not_given_serves_the_one_of_its_name():
    assert TableConfig("user", 5, 4).features == ("user",)
    assert TableConfig("user", 5, 4, "mean", ("user", "friend")).combiner == "mean"


def test_a_replicated_table_is_a_whole_shard_on_every_rank():
    copies = tuple(Shard("t", rank, (0, 5), (0, 4)) for rank in range(2))
    plan = ShardingPlan(2, (*copies, Shard("u", 1, (0, 3), (0, 4))), frozenset({"t"}))
    assert plan.of_table("t") == copies
    assert (plan.bytes_of(0), plan.bytes_of(1)) == (80, 80 + 48)
    assert plan.of_table("none") == plan.of_rank(7) == ()
