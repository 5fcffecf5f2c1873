"""Dynamic tables train as static tables do, on one rank as on several, while keys come and go."""

from dataclasses import replace

import numpy as np
import pytest
from support.counting_comm import CountingComm
from support.dynamic_case import RankOfSetup, Setup

from dlrm_tf2.embedding import DynamicTableConfig, TableConfig
from dlrm_tf2.optim import Optimizer
from dlrm_tf2.runtime.comm import SingleProcess
from dlrm_tf2.sharding.dynamic_tables import AfterCount, AfterSeconds, AfterSteps, WithProbability

HOTNESS = {"one": 1, "two": 2, "many": 3, "any": None, "static": 1}
# Of the dynamic tables' widths, one is the width of the static table, which then shares a slab.
SHAPES = [("plain", 4, None, ("one", "two")), ("mean", 4, "mean", ("many",)), ("sum", 2, "sum", ("any",))]
STATIC = TableConfig("static", 20, 4)
IDS = 30


def tables(**settings):
    return (
        *(
            DynamicTableConfig(name, 400, embedding_dim=width, combiner=combiner, features=features, **settings)
            for name, width, combiner, features in SHAPES
        ),
        STATIC,
    )


def static_tables():
    dynamic = (TableConfig(name, IDS, width, combiner, features) for name, width, combiner, features in SHAPES)
    return (*dynamic, STATIC)


def optimizer(name):
    return Optimizer(name, epsilon=1e-4, initial_accumulator=0.1)


def setup(tables, name="sgd", **settings):
    return Setup(tables, HOTNESS, frozenset({"any"}), optimizer(name), **settings)


def keys_of(rng):
    """A key for each id: of both signs, over the whole range, and the two ends of it."""
    keys = rng.integers(-(2**63), 2**63 - 1, IDS)
    keys[:4] = -(2**63), 2**63 - 1, 0, -1
    return keys


def with_keys(batch, keys):
    return {f: sample if f == "static" else replace(sample, ids=keys[sample.ids]) for f, sample in batch.items()}


@pytest.mark.parametrize("name", ["sgd", "adagrad", "rowwise_adagrad", "adam"])
def test_a_dynamic_table_trains_as_a_static_one(name):
    rng = np.random.default_rng(5)
    keys = keys_of(rng)
    dynamic = RankOfSetup(setup(tables(bucket_capacity=64), name), SingleProcess())
    static = RankOfSetup(setup(static_tables(), name), SingleProcess())
    whole = Setup(static_tables(), HOTNESS, frozenset({"any"})).batch(rng, 40, lambda _, n: np.arange(n) % IDS)
    whole["static"].ids[:] %= 20
    dynamic.embedding.lookup(dynamic.ids(with_keys(whole, keys)), step=1)  # stores the keys, and trains nothing
    for table in static_tables()[:-1]:
        stored = dynamic.stored(table.name)
        initial = np.stack([stored[key][2]["weights"] for key in keys.tolist()])
        (shard,) = static.embedding.plan.of_table(table.name)
        assert np.abs(initial).max() <= 0.05 and np.unique(initial).size == initial.size  # sqrt(1 / 400)
        static.embedding.write_rows(shard, "weights", start=0, values=initial)
    for number in range(2, 8):
        batch = static.setup.batch(rng, 9, lambda f, n: rng.integers(0, 20 if f == "static" else IDS, n))
        losses = dynamic.train(with_keys(batch, keys), number), static.train(batch, number)
        assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    for table in static_tables()[:-1]:
        stored, (shard,) = dynamic.stored(table.name), static.embedding.plan.of_table(table.name)
        for slot in static.embedding.slots:
            expected = static.embedding.read_rows(shard, slot, start=0, stop=IDS)
            found = np.stack([stored[key][2][slot] for key in keys.tolist()])
            np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-9, err_msg=f"{table.name} {slot}")
            if name == "sgd" and table.name == "plain":
                np.testing.assert_array_equal(found, expected)


RULES = {
    "eviction by time": {"score": "timestamp", "capacity": 16},
    "eviction by use, after the second time": {"score": "lfu", "capacity": 16, "admission": AfterCount(2)},
    "a sketch, expiry after steps": {
        "score": "step", "capacity": 16, "admission": AfterCount(2, "sketch"), "expiry": AfterSteps(2)
    },
    "by chance, expiry after seconds": {
        "score": "step", "capacity": 16, "admission": WithProbability(0.5), "expiry": AfterSeconds(3.0)
    },
    "no room": {"score": "no_eviction", "capacity": 32},
}  # fmt: skip


def trained(comm, case):
    """Trains with expiry after each step; returns (losses, what each table stores, counters) of this rank."""
    rank, rng, losses = RankOfSetup(case, comm), np.random.default_rng(11), []
    for number in range(1, 9):

        def ids_of(feature, n, first=7 * number):  # squared: some keys are frequent, and the keys drift
            ids = rng.random(n) ** 2
            return (ids * 20).astype(int) if feature == "static" else (ids * 90).astype(int) + first

        batch = case.batch(rng, 24, ids_of)
        losses.append(rank.train(batch, number))
        rank.embedding.expire(number, number * 10**9)
    dynamic = rank.embedding.dynamic_tables
    stored = {table.name: rank.stored(table.name) for table in case.tables}
    return losses, stored, {name: table.counters() for name, table in dynamic.items()}


@pytest.mark.parametrize("rules, data_parallel_input, optimizer, dtype, hosts", [
    ("eviction by time", False, "adagrad", "float32", (2, 1)),
    ("eviction by use, after the second time", True, "sgd", "float32", (2, 1)),
    ("eviction by use, after the second time", False, "adagrad", "float32", (2, 2)),
    ("a sketch, expiry after steps", False, "adam", "float32", (2, 1)),
    ("by chance, expiry after seconds", True, "rowwise_adagrad", "float32", (2, 1)),
    ("by chance, expiry after seconds", True, "sgd", "float32", (2, 2)),
    ("no room", False, "sgd", "bfloat16", (2, 1)),
])  # fmt: skip
def test_several_ranks_store_what_one_rank_does(run_ranks, rules, data_parallel_input, optimizer, dtype, hosts):
    """On `hosts`: how many hosts, and how many ranks on each."""
    num_hosts, ranks_per_host = hosts
    limits = {**RULES[rules], "default": 0.5, "bucket_capacity": 8}
    case = setup(
        (*(replace(table, **limits) for table in tables()[:-1]), STATIC), optimizer, dtype=dtype,
        data_parallel_input=data_parallel_input, settings={"safe_check": "count"},
    )  # fmt: skip
    losses, alone, counters = trained(SingleProcess(), case)
    ranks = run_ranks(num_hosts * ranks_per_host, lambda comm: trained(CountingComm(comm, ranks_per_host), case))
    # Adam divides by the root of a sum of squares, and where that is small makes much of the rounding of a sum.
    tolerance = {"rtol": 1e-5, "atol": 1e-5 if optimizer == "adam" else 1e-6}
    if dtype == "bfloat16":
        tolerance = {"rtol": 2e-2, "atol": 1e-3}
    for rank in ranks:
        if isinstance(rank, BaseException):
            raise rank
        np.testing.assert_allclose(rank[0], losses, rtol=tolerance["rtol"])
    for name, expected in alone.items():
        parts = [stored[name] for _, stored, _ in ranks]
        assert name == "static" or sum(map(bool, parts)) > 1, "several ranks have a part"
        found = {key: entry for part in parts for key, entry in part.items()}
        assert {key: entry[:2] for key, entry in found.items()} == {key: entry[:2] for key, entry in expected.items()}
        for key, (_, _, slots) in expected.items():
            for slot, row in slots.items():
                np.testing.assert_allclose(found[key][2][slot], row, **tolerance, err_msg=f"{name} {key} {slot}")
    for name, expected in counters.items():
        parts = [counted[name] for _, _, counted in ranks if name in counted]
        assert {what: sum(part[what] for part in parts) for what in expected} == expected
    happened = {what for of_table in counters.values() for what, number in of_table.items() if number}
    assert {"inserted", "found", "missed"} <= happened
    assert ("evicted" in happened) == (rules != "no room")
    assert ("refused" in happened) == ("admission" in RULES[rules])
    assert ("expired" in happened) == ("expiry" in RULES[rules])
    assert ("not_insertable" in happened) >= (rules == "no room")


def test_evaluation_stores_nothing_and_gives_the_default_vector(run_ranks):
    case = setup(tables(default=0.25, bucket_capacity=64, score="lfu"), data_parallel_input=True)
    rng = np.random.default_rng(2)
    known, unknown = (
        case.batch(rng, 6, lambda f, n, first=first: rng.integers(0, 9, n) + (0 if f == "static" else first))
        for first in (0, 100)
    )

    def run(comm):
        rank = RankOfSetup(case, comm)
        rank.train(known, 1)
        before = {name: rank.stored(name) for name in rank.embedding.dynamic_tables}
        columns, found = rank.embedding.columns, [rank.evaluate(batch) for batch in (unknown, known)]
        after = {name: rank.stored(name) for name in rank.embedding.dynamic_tables}
        return columns, found, (before, after)

    for columns, (of_unknown, of_known), (before, after) in [run(SingleProcess()), *run_ranks(2, run)]:
        assert [dict((k, e[:2]) for k, e in t.items()) for t in before.values()] == [
            dict((k, e[:2]) for k, e in t.items()) for t in after.values()
        ]
        for feature in ("one", "two", "many"):
            part = slice(*columns[feature])
            np.testing.assert_array_equal(of_unknown[:, part], 0.25)
            assert (of_known[:, part] != 0.25).all()
        assert (of_unknown[:, slice(*columns["static"])] != 0.25).all()
