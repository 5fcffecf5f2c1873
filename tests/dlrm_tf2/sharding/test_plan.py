import itertools
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlrm_tf2.sharding.cost import Step, allreduce_bytes, cost_of, offloaded
from dlrm_tf2.sharding.optimizer_state import OPTIMIZERS
from dlrm_tf2.sharding.plan import STRATEGIES, PlanError, Shard, ShardingPlan, make_plan, samples_of_rank
from dlrm_tf2.sharding.tables import TableConfig, loads_of, share_of_ids

# The rows of the published Criteo set at threshold 15.
T15 = (7912889, 33823, 17139, 7339, 20046, 4, 7105, 1382, 63, 5554114, 582469, 245828, 11, 2209, 10667, 104, 4, 968, 15,
       8165896, 2675940, 7156453, 302516, 12022, 97, 35)  # fmt: skip


def table(name, rows, dim=4):
    return TableConfig(name, rows, dim)


@st.composite
def drawn_tables(draw):
    shapes = draw(st.lists(st.tuples(st.integers(1, 300_000), st.integers(1, 64)), min_size=1, max_size=12))
    return [
        TableConfig(
            f"t{i}",
            rows,
            embedding_dim=dim,
            combiner=draw(st.sampled_from([None, "sum"])),
            features=tuple(f"f{i}_{j}" for j in range(shared)),
        )
        for i, (rows, dim) in enumerate(shapes)
        for shared in [draw(st.integers(1, 3))]
    ]


@st.composite
def drawn_arguments(draw):
    """Arguments of make_plan besides the tables."""
    elements = st.none() | st.integers(1, 2_000_000)
    arguments = {
        "world_size": draw(st.integers(1, 9)),
        "strategy": draw(st.sampled_from(STRATEGIES)),
        "optimizer": draw(st.sampled_from(sorted(OPTIMIZERS))),
        "batch_size": draw(st.none() | st.integers(1, 10_000)),
        "row_slice_threshold": draw(elements),
        "data_parallel_threshold": draw(elements),
    }
    if arguments["optimizer"] != "rowwise_adagrad":
        arguments["column_slice_threshold"] = draw(elements)
    return arguments


table_lists = st.lists(st.tuples(st.integers(1, 10_000), st.integers(1, 64)), min_size=1, max_size=12).map(
    lambda shapes: [table(f"t{i}", rows, dim) for i, (rows, dim) in enumerate(shapes)]
)


def apart(one, other):
    """Whether two rectangles share no element."""
    return any(a[1] <= b[0] or b[1] <= a[0] for a, b in ((one.rows, other.rows), (one.columns, other.columns)))


@given(drawn_tables(), drawn_arguments())
def test_the_shards_of_a_table_tile_it_exactly_once(tables, arguments):
    plan = make_plan(tables, **arguments)
    assert all(0 <= shard.rank < arguments["world_size"] for shard in plan.shards)
    assert list(dict.fromkeys(shard.table for shard in plan.shards)) == [config.name for config in tables]
    for config in tables:
        shards = plan.of_table(config.name)
        whole = (0, config.num_rows), (0, config.embedding_dim)
        if config.name in plan.replicated:
            assert shards == tuple(Shard(config.name, rank, *whole) for rank in range(arguments["world_size"]))
            continue
        assert sum(shard.num_rows * shard.num_columns for shard in shards) == config.num_elements
        assert all(
            0 <= s.rows[0] < s.rows[1] <= whole[0][1] and 0 <= s.columns[0] < s.columns[1] <= whole[1][1]
            for s in shards
        )
        assert all(apart(one, other) for one, other in itertools.combinations(shards, 2))
        # Pieces that meet on a rank are one shard, so that no id is looked up twice there.
        assert len({(shard.rank, shard.rows) for shard in shards}) == len(shards)
        if arguments["optimizer"] == "rowwise_adagrad":
            assert all(shard.columns == whole[1] for shard in shards)


@given(drawn_tables(), drawn_arguments())
def test_thresholds_are_kept(tables, arguments):
    plan = make_plan(tables, **arguments)
    columns, rows, replicated = (
        arguments.get(f"{name}_threshold") for name in ("column_slice", "row_slice", "data_parallel")
    )
    world_size = arguments["world_size"]
    for config in tables:
        shards, elements = plan.of_table(config.name), config.num_elements
        if world_size == 1:
            assert shards == (Shard(config.name, 0, rows=(0, config.num_rows), columns=(0, config.embedding_dim)),)
        elif replicated is not None and elements <= replicated:
            assert config.name in plan.replicated
        elif config.name in plan.replicated:
            assert arguments["strategy"] == "balanced" and replicated is None
        elif rows is not None and elements >= rows:
            assert len(shards) == min(world_size, config.num_rows)
            sizes = [shard.num_rows for shard in shards]
            assert max(sizes) - min(sizes) <= 1 and sizes == sorted(sizes, reverse=True)
        elif columns is not None and elements <= columns:
            assert len({shard.columns for shard in shards}) == 1


@given(drawn_tables(), drawn_arguments(), st.integers(1, 300), st.booleans())
def test_costs_add_up(tables, arguments, batch_size, data_parallel_input):
    """What is sent is what is made, once each way; every sample's ids are looked up once."""
    plan = make_plan(tables, **arguments)
    step = Step(batch_size, optimizer=arguments["optimizer"], data_parallel_input=data_parallel_input)
    costs = cost_of(plan, tables, step)
    assert [cost.weight_bytes for cost in costs] == [plan.bytes_of(rank) for rank in range(plan.world_size)]
    per_sample = sum(len(config.features) * config.embedding_dim for config in tables)
    assert sum(cost.fetched for cost in costs) == pytest.approx(batch_size * per_sample)
    if plan.world_size == 1:
        assert costs[0].sent_bytes == 0
    if arguments["optimizer"] in ("adagrad", "adam"):
        slots = {"adagrad": 1, "adam": 2}[arguments["optimizer"]]
        assert all(cost.state_bytes == slots * cost.weight_bytes for cost in costs)


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
    total = 4 * sum(config.num_elements for config in tables)
    # 15.597 GiB, of which the five largest tables hold 96.2 %: none is larger than a quarter of it.
    assert sum(plan.bytes_of(rank) for rank in range(world_size)) == total == 4 * 128 * sum(T15) == 16_747_078_656
    assert max(plan.bytes_of(rank) for rank in range(world_size)) <= 1.35 * total / world_size


def test_16_bit_weights_take_half_the_bytes_and_their_state_the_same():
    tables = [table("a", 1000, 16), table("b", 300, 16)]
    plans = [make_plan(tables, 2, strategy="basic", table_dtype=dtype) for dtype in ("float32", "bfloat16")]
    assert plans[0].shards == plans[1].shards
    four, two = (cost_of(plan, tables, Step(64, optimizer="adam")) for plan in plans)
    assert [cost.weight_bytes for cost in four] == [4 * 16_000, 4 * 4_800]
    assert [cost.weight_bytes for cost in two] == [2 * 16_000, 2 * 4_800]
    assert [cost.state_bytes for cost in four] == [cost.state_bytes for cost in two] == [8 * 16_000, 8 * 4_800]


def test_balanced_counts_the_bytes_of_16_bit_weights():
    """Of a table with one number of state a row, the state is a larger part of the bytes if the weights are small."""
    loads = [
        loads_of(table("a", 100, 8), (0, 100), hotness={}, optimizer="rowwise_adagrad", table_dtype=dtype)
        for dtype in ("float32", "bfloat16")
    ]
    assert [of_type.num_bytes for of_type in loads] == [100 * (8 * 4 + 4), 100 * (8 * 2 + 4)]
    assert loads[0][1:] == loads[1][1:]


def test_more_ranks_than_tables_leaves_ranks_without():
    plan = make_plan([table("one", 5), table("two", 6)], 4)
    assert sorted(len(plan.of_rank(rank)) for rank in range(4)) == [0, 0, 1, 1]


def test_a_shard_by_hand():
    shard = Shard("t", 2, rows=(10, 15), columns=(4, 8))
    assert (shard.num_rows, shard.num_columns, shard.num_elements) == (5, 4, 20)
    plan = ShardingPlan(3, (shard, Shard("u", 0, rows=(0, 1), columns=(0, 1))))
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


@pytest.mark.parametrize(
    "rows, dim, combiner, features, reason",
    [
        (0, 4, None, ("a",), "table 'bad': 0 rows of width 4; both must be positive"),
        (4, 0, None, ("a",), "table 'bad': 4 rows of width 0; both must be positive"),
        (4, 4, "max", ("a",), "table 'bad': combiner 'max'; it must be one of"),
        (4, 4, None, (), "table 'bad': no feature looks up in it. Leave the table out"),
    ],
)
def test_a_table_that_cannot_be(rows, dim, combiner, features, reason):
    with pytest.raises(ValueError, match=reason):
        TableConfig("bad", rows, embedding_dim=dim, combiner=combiner, features=features)


def test_a_table_whose_features_are_not_given_serves_the_one_of_its_name():
    assert TableConfig("user", 5, 4).features == ("user",)
    assert TableConfig("user", 5, embedding_dim=4, combiner="mean", features=("user", "friend")).combiner == "mean"


def test_a_replicated_table_is_a_whole_shard_on_every_rank():
    copies = tuple(Shard("t", rank, rows=(0, 5), columns=(0, 4)) for rank in range(2))
    plan = ShardingPlan(2, (*copies, Shard("u", 1, rows=(0, 3), columns=(0, 4))), frozenset({"t"}))
    assert plan.of_table("t") == copies
    assert (plan.bytes_of(0), plan.bytes_of(1)) == (80, 80 + 48)
    assert plan.of_table("none") == plan.of_rank(7) == ()


def test_rows_are_cut_only_where_columns_do_not_help():
    narrow = [table("huge", 10_000_000, 4), *(table(f"t{i}", 100_000, 4) for i in range(8))]
    plan = make_plan(narrow, 8)
    assert len({shard.rows for shard in plan.of_table("huge")}) > 1
    assert max(plan.bytes_of(rank) for rank in range(8)) <= 2.1 * sum(plan.bytes_of(rank) for rank in range(8)) / 8
    wide = [table("huge", 10_000_000, 64), *(table(f"t{i}", 100_000, 64) for i in range(8))]
    plan = make_plan(wide, 8)
    assert {shard.rows for shard in plan.of_table("huge")} == {(0, 10_000_000)} and len(plan.of_table("huge")) > 1


def test_row_wise_adagrad_cuts_rows_instead():
    tables = [table("huge", 10_000_000, 64), *(table(f"t{i}", 100_000, 64) for i in range(8))]
    plan = make_plan(tables, 8, optimizer="rowwise_adagrad")
    assert len(plan.of_table("huge")) > 1 and all(shard.num_columns == 64 for shard in plan.shards)


def test_few_samples_replicate_nothing_and_many_replicate_small_tables():
    tables = [table("small", 100, 16), table("large", 1_000_000, 16), table("large too", 1_000_000, 16)]
    assert make_plan(tables, 2, batch_size=64).replicated == frozenset()
    # Replicated, 100 rows go to one other rank; exchanged, 200 vectors and gradients do. Twice as good is enough.
    assert make_plan(tables, 2, batch_size=200).replicated == {"small"}
    assert make_plan(tables, 2, batch_size=198).replicated == frozenset()
    assert make_plan(tables, 2).replicated == frozenset()
    assert make_plan(tables, 2, batch_size=64, data_parallel_threshold=1600).replicated == {"small"}


def test_the_first_rows_of_a_table_get_most_ids():
    config = table("t", 1000, 4)
    shares = [share_of_ids(config, rows) for rows in ((0, 1), (0, 500), (500, 1000), (0, 1000))]
    assert shares[1] + shares[2] == pytest.approx(1) and shares[3] == 1
    assert shares[0] > 0.1 and shares[1] > 0.85


def test_costs_of_two_ranks_by_hand():
    tables = [TableConfig("t", 10, embedding_dim=4, combiner="sum", features=("a", "b")), TableConfig("u", 6, 8)]
    plan = ShardingPlan(
        2,
        (
            Shard("t", 0, rows=(0, 10), columns=(0, 3)),
            Shard("t", 1, rows=(0, 10), columns=(3, 4)),
            Shard("u", 1, rows=(0, 6), columns=(0, 8)),
        ),
    )
    step = Step(5, {"a": 3}, optimizer="rowwise_adagrad", data_parallel_input=True)
    first, second = cost_of(plan, tables, step)
    assert (first.weight_bytes, first.state_bytes) == (4 * 30, 4 * 10)
    assert (second.weight_bytes, second.state_bytes) == (4 * (10 + 48), 4 * (10 + 6))
    # A sample has 3 + 1 ids in t and 1 in u.
    assert (first.fetched, second.fetched) == (5 * 4 * 3, 5 * (4 * 1 + 8))
    # It gets 2 vectors of t and 1 of u.
    assert (first.vector_elements, second.vector_elements) == (5 * 2 * 3, 5 * (2 * 1 + 8))
    # Rank 0 has 3 samples, rank 1 has 2. Vectors to the other, gradients to the other, ids to the other (5 and 4).
    assert first.sent_bytes == 4 * (2 * 6 + 3 * 10 + 3 * 5)
    assert second.sent_bytes == 4 * (3 * 10 + 2 * 6 + 2 * 4)


def test_costs_of_a_replicated_table_by_hand():
    tables = [TableConfig("t", 10, 4)]
    plan = ShardingPlan(3, tuple(Shard("t", rank, rows=(0, 10), columns=(0, 4)) for rank in range(3)), frozenset({"t"}))
    costs = cost_of(plan, tables, Step(32))
    assert [cost.fetched for cost in costs] == [11 * 4, 11 * 4, 10 * 4]  # each its own samples
    # At most 10 rows, each an id of 8 bytes and a gradient of 4 float32, to two other ranks.
    assert [cost.sent_bytes for cost in costs] == [2 * 10 * (8 + 16)] * 3
    assert all(cost.vector_elements == 0 for cost in costs)


def test_costs_of_deduplicated_features_by_hand():
    """Four ranks on two hosts, 2 samples each; rank 0 has a, whose rows are requested once, and rank 2 has b."""
    tables = [TableConfig("a", 10, 4), TableConfig("b", 10, 6)]
    plan = ShardingPlan(4, (Shard("a", 0, rows=(0, 10), columns=(0, 4)), Shard("b", 2, rows=(0, 10), columns=(0, 6))))
    step = Step(8, {}, data_parallel_input=True, deduplicated={"a"}, different={"a": 0.5}, ranks_per_host=2)
    sent = [cost.sent_bytes for cost in cost_of(plan, tables, step)]
    # The other host requests a row of a for every second of its 4 samples. Gradients of b, and its ids, travel there.
    assert sent[0] == 4 * 0.5 * 4 * 4 + 2 * (6 * 4 + 4)
    assert sent[1] == 2 * (6 * 4 + 4)
    # Rank 2 sends vectors of b to 4 samples. Ranks 2 and 3 request rows of a, 8 bytes each, and send gradients of them.
    assert sent[2] == 4 * 6 * 4 + 2 * 0.5 * (4 * 4 + 8)
    assert sent[3] == 2 * 0.5 * (4 * 4 + 8)
    # The two ranks of a host ask for a quarter of a row a sample, if they often ask for the same.
    in_common = replace(step, host_different={"a": 0.25})
    assert [cost.sent_bytes for cost in cost_of(plan, tables, in_common)] == [
        4 * 0.25 * 4 * 4 + 2 * (6 * 4 + 4),
        2 * (6 * 4 + 4),
        4 * 6 * 4 + 2 * 0.25 * (4 * 4 + 8),
        2 * 0.25 * (4 * 4 + 8),
    ]


def test_rows_of_replicas_that_are_known_to_be_used():
    tables = [TableConfig("t", 10, 4)]
    plan = ShardingPlan(4, tuple(Shard("t", rank, rows=(0, 10), columns=(0, 4)) for rank in range(4)), frozenset({"t"}))
    step = Step(32, different={"t": 0.25}, ranks_per_host=2)
    # 8 samples of a rank use 2 rows, and 16 samples of a host use 4, each of whose ranks sends half to the other host.
    assert [cost.sent_bytes for cost in cost_of(plan, tables, step)] == [2 * (8 + 16)] * 4
    fewer = replace(step, host_different={"t": 0.125})
    assert [cost.sent_bytes for cost in cost_of(plan, tables, fewer)] == [1 * (8 + 16)] * 4
    alone = replace(step, ranks_per_host=1)
    assert [cost.sent_bytes for cost in cost_of(plan, tables, alone)] == [3 * 2 * (8 + 16)] * 4


@pytest.mark.parametrize("world_size, sent", [(1, 0), (2, 400), (4, 600)])
def test_what_a_sum_over_all_ranks_sends_by_hand(world_size, sent):
    assert allreduce_bytes(100, world_size) == sent


def test_what_a_gpu_leaves_in_host_memory():
    tables = [table(f"t{i}", rows, 1) for i, rows in enumerate((30, 10, 20))]
    plan = make_plan(tables, 1)
    assert offloaded(plan, tables, 4 * 60) == frozenset()
    assert {shard.table for shard in offloaded(plan, tables, 4 * 59)} == {"t0"}  # 10 + 20 stay
    assert {shard.table for shard in offloaded(plan, tables, 4 * 29)} == {"t0", "t2"}
    copies = make_plan(tables, 2, data_parallel_threshold=100)
    assert offloaded(copies, tables, 0) == frozenset()


@pytest.mark.parametrize(
    "arguments, reason",
    [
        ({"world_size": 0}, "world_size 0: there must be at least one rank"),
        ({"strategy": "best"}, "strategy 'best': it must be one of balanced, basic, memory_balanced, memory_optimized"),
        ({"optimizer": "lamb"}, "optimizer 'lamb': it must be one of"),
        ({"row_slice_threshold": 0}, "row_slice_threshold 0: it is a number of elements and must be at least 1"),
        (
            {"data_parallel_threshold": -1},
            "data_parallel_threshold -1: it is a number of elements and must be at least 0",
        ),
        ({"optimizer": "rowwise_adagrad", "column_slice_threshold": 5}, "needs the whole row"),
    ],
)
def test_a_plan_that_cannot_be(arguments, reason):
    with pytest.raises(PlanError, match=reason):
        make_plan([table("t", 5)], **{"world_size": 2, **arguments})


def test_names_are_unique():
    with pytest.raises(PlanError, match="table 't': two tables have this name"):
        make_plan([table("t", 5), table("u", 5), table("t", 5)], 2)
