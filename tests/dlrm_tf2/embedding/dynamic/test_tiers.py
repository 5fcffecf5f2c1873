"""A table with a part in a file is, bit for bit, the table in memory."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from support.dynamic_case import RankOfSetup, Setup

from dlrm_tf2 import ops
from dlrm_tf2.embedding import DynamicTableConfig, TableConfig
from dlrm_tf2.embedding.dynamic.tiers import Tiers
from dlrm_tf2.optim import Optimizer
from dlrm_tf2.runtime.comm import SingleProcess

pytestmark = pytest.mark.skipif(not ops.available(), reason=f"no native ops: {ops.why_unavailable()}")

WIDTH = 256


def setup(dtype, **settings):
    """9 MiB of weights in float32, and as much of state; one slab with a static table."""
    tables = DynamicTableConfig("d", 8000, embedding_dim=WIDTH, bucket_capacity=1000), TableConfig("s", 1000, WIDTH)
    optimizer = Optimizer("adagrad", initial_accumulator=0.1)
    return Setup(tables, {"d": 2, "s": 1}, optimizer=optimizer, dtype=dtype, settings=settings)


@pytest.mark.parametrize(
    ("dtype", "memory_bytes", "caching"),
    [("bfloat16", 0, False), ("float32", 6 << 20, False), ("float32", 7 << 20, True), ("float32", 16 << 20, True)],
)
def test_the_same_bits_with_and_without_tiers(tmp_path, dtype, memory_bytes, caching):
    tiers = Tiers(memory_bytes, str(tmp_path), caching)
    ranks = [RankOfSetup(setup(dtype, **of), SingleProcess()) for of in ({}, {"tiers": tiers})]
    for number in range(1, 5):
        rng = np.random.default_rng(number)
        batch = ranks[0].setup.batch(rng, 1500, lambda f, n, rng=rng: rng.integers(0, 1000 if f == "s" else 2**50, n))
        in_memory, in_tiers = (rank.train(batch, number) for rank in ranks)
        assert in_memory == in_tiers
        np.testing.assert_array_equal(*(rank.evaluate(batch) for rank in ranks))
    assert ranks[1].embedding.dynamic_tables["d"].counters()["evicted"] > 2000
    expected, found = (rank.stored("d") for rank in ranks)
    assert found.keys() == expected.keys()
    for key, (score, step, slots) in expected.items():
        assert found[key][:2] == (score, step)
        for slot, row in slots.items():
            np.testing.assert_array_equal(found[key][2][slot], row)
    (shard,) = ranks[0].embedding.plan.of_table("s")
    for slot in ranks[0].embedding.slots:
        np.testing.assert_array_equal(*(r.embedding.read_rows(shard, slot, start=0, stop=1000) for r in ranks))


SMALL = DynamicTableConfig("small", 32, 4, combiner="mean", features=("one", "any"), bucket_capacity=8, default=0.5)
OTHER = DynamicTableConfig("other", 32, 4, features=("two",), bucket_capacity=16, combiner="sum")
HOTNESS = {"one": 1, "any": None, "two": 2, "s": 1}
ROW_BYTES = {"sgd": 16, "rowwise_adagrad": 20, "adagrad": 32, "adam": 48}


def trained(comm, optimizer, tiers, *, ahead=False):
    """Trains and evaluates while keys are evicted: (losses, stored rows, vectors of an evaluation, cache counters).

    Args:
      ahead: rows of the next batch are asked for after the lookup of each batch, as the pipeline does.
    """
    case = Setup((SMALL, TableConfig("s", 20, 4), OTHER), HOTNESS, optimizer=Optimizer(optimizer, epsilon=1e-4),
                 settings={"tiers": tiers, "safe_check": "count"})  # fmt: skip
    rank, rng, losses = RankOfSetup(case, comm), np.random.default_rng(11), []

    def batch_of(number):
        def ids_of(feature, n):  # some keys are frequent, and the keys drift
            return rng.integers(0, 20, n) if feature == "s" else (rng.random(n) ** 2 * 60).astype(int) + 5 * number

        return case.batch(rng, 6, ids_of)

    batches = [batch_of(number) for number in range(25)]
    for number, batch in enumerate(batches, start=1):
        losses.append(rank.train(batch, number))
        if ahead and number < len(batches):
            rank.embedding.ask_ahead(rank.embedding.exchange_ids(rank.ids(batches[number])))
        rank.embedding.expire(number, number * 10**9)
    tables = rank.embedding.dynamic_tables
    evicted = sum(table.counters()["evicted"] for table in tables.values())
    counted = {name: table.cache_counters() for name, table in tables.items()}
    lookups = {name: [table.counters()[key] for key in ("found", "missed")] for name, table in tables.items()}
    stored = {table.name: rank.stored(table.name) for table in case.tables}
    return losses, stored, rank.evaluate(batches[0]), lookups, counted, evicted


def assert_same_bits(found, expected):
    assert found[0] == expected[0] and found[3] == expected[3] and found[5] == expected[5]
    np.testing.assert_array_equal(found[2], expected[2])
    for name, rows in expected[1].items():
        assert found[1][name].keys() == rows.keys()
        for key, (score, step, slots) in rows.items():
            assert found[1][name][key][:2] == (score, step)
            for slot, row in slots.items():
                np.testing.assert_array_equal(found[1][name][key][2][slot], row)


@pytest.mark.parametrize(
    ("optimizer", "share", "ahead"),
    [("adam", 0.5, False), ("adam", 0.6, True), ("sgd", 0.8, False), ("rowwise_adagrad", 0.99, True)],
)
def test_a_cache_of_any_size_gives_the_bits_of_no_cache(tmp_path, optimizer, share, ahead):
    """Two dynamic tables of two kinds of features and a static one, all in one slab, on one rank."""
    num_bytes = (SMALL.num_rows + OTHER.num_rows) * ROW_BYTES[optimizer]
    expected = trained(SingleProcess(), optimizer, None)
    found = trained(SingleProcess(), optimizer, Tiers(int(share * num_bytes), str(tmp_path), True), ahead=ahead)
    assert_same_bits(found, expected)
    assert expected[5] > 50
    for counted in found[4].values():
        assert counted["hits"] > 0 and (share > 0.9 or (counted["misses"] > 0 and counted["written_back"] > 0))


@pytest.mark.parametrize("caching", [True, False])
def test_two_ranks_with_tiers_have_the_bits_of_two_ranks_without(tmp_path, run_ranks, caching):
    tiers = Tiers(int(0.3 * (SMALL.num_rows + OTHER.num_rows) * ROW_BYTES["adagrad"]), str(tmp_path), caching)
    runs = [
        run_ranks(2, lambda comm, of=of: trained(comm, "adagrad", of, ahead=of is not None)) for of in (None, tiers)
    ]
    for expected, found in zip(*runs, strict=True):
        for rank in (expected, found):
            if isinstance(rank, BaseException):
                raise rank
        assert_same_bits(found, expected)
        assert expected[5] > 20


def test_what_is_refused(tmp_path):
    folder = str(tmp_path)
    for tiers, dtype, message in (
        (Tiers(-1, folder), "float32", "memory_bytes -1; it must be 0 or more"),
        (Tiers(0, str(tmp_path / "nowhere")), "float32", "nowhere: is not a folder that can be written"),
        (Tiers(0, folder, True), "bfloat16", "caching with bfloat16 tables; the rounding of their weights depends on"),
    ):
        with pytest.raises(ValueError, match=message):
            RankOfSetup(setup(dtype, tiers=tiers), SingleProcess())
    small = dataclasses.replace(setup("float32"), settings={"tiers": Tiers(1 << 20, folder, True)})
    rank, rng = RankOfSetup(small, SingleProcess()), np.random.default_rng(1)
    batch = small.batch(rng, 900, lambda f, n: np.arange(n) % 1000)
    message = "table d: a batch has 1000 different rows, 2048000 bytes with their state; the cache has room for "
    with pytest.raises(tf.errors.ResourceExhaustedError, match=message):
        rank.train(batch, 1)
