"""Dumps of a training: loaded again on any number of ranks, and followed by changes, byte for byte."""

import numpy as np
import pytest
from support.dynamic_case import RankOfSetup, Setup

from dlrm_tf2 import ops
from dlrm_tf2.dump.__main__ import main
from dlrm_tf2.dump.apply import apply_changes
from dlrm_tf2.dump.arguments import DumpError
from dlrm_tf2.dump.copying import DumpMoment, copy_changes
from dlrm_tf2.dump.loading import load_tables
from dlrm_tf2.dump.tables import dump_changes, dump_tables
from dlrm_tf2.embedding import DynamicTableConfig, TableConfig
from dlrm_tf2.ops import hash_table
from dlrm_tf2.optim import Optimizer
from dlrm_tf2.runtime.comm import SingleProcess
from dlrm_tf2.sharding.dynamic_tables import AfterCount, AfterSteps

pytestmark = pytest.mark.skipif(not ops.available(), reason=f"no native ops: {ops.why_unavailable()}")

HOTNESS = {"a": 1, "b": 2, "static": 1}
TIME = 10**12


def setup(name="adam", *, capacity=120, score="timestamp", **settings):
    """Keys are evicted, admitted and expire while it trains."""
    rules = {"bucket_capacity": 16, "expiry": AfterSteps(4), "score": score}
    tables = (
        DynamicTableConfig("a", capacity, embedding_dim=3, admission=AfterCount(2), **rules),
        DynamicTableConfig("b", capacity, embedding_dim=4, **rules),
        TableConfig("static", 20, 4),
    )
    optimizer = Optimizer(name, epsilon=1e-4, initial_accumulator=0.1)
    return Setup(tables, HOTNESS, optimizer=optimizer, settings={"log_erased": True, "safe_check": "count"} | settings)


def train(rank, first, last):
    """The steps first .. last, each with its own batch."""
    for number in range(first, last + 1):
        rng = np.random.default_rng(number)
        batch = rank.setup.batch(rng, 40, lambda f, n, rng=rng: rng.integers(0, 20 if f == "static" else 300, n) - 99)
        batch["static"].ids[:] %= 20
        rank.train(batch, number)
        rank.embedding.expire(number)


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def assert_same(found, expected):
    assert found.keys() == expected.keys() and len(expected) > 20
    for key, (score, step, slots) in expected.items():
        assert found[key][:2] == (score, step)
        for slot, row in slots.items():
            np.testing.assert_array_equal(found[key][2][slot], row)


@pytest.mark.parametrize(("score", "world_size"), [("lfu", 1), ("timestamp", 2)])
def test_a_dump_and_the_changes_after_it_are_the_later_dump(run_ranks, tmp_path, score, world_size):
    def job(comm):
        rank = RankOfSetup(setup(score=score), comm)
        train(rank, 1, 3)
        dump_tables(rank.embedding, tmp_path / "dump", comm=comm, step=3, time=TIME)
        for first, last in ((4, 6), (7, 12)):
            train(rank, first, last)
            dump_changes(rank.embedding, tmp_path / "changes", comm=comm, first_step=first, step=last, time=TIME + last)
        dump_tables(rank.embedding, tmp_path / "later", comm=comm, step=12, time=TIME + 12)
        return {name: table.counters() for name, table in rank.embedding.dynamic_tables.items()}

    counters = run_ranks(world_size, job)
    for name in ("a", "b"):  # else the test would show nothing
        assert sum(of_rank[name]["evicted"] + of_rank[name]["expired"] for of_rank in counters if name in of_rank) > 20
    apply_changes(tmp_path / "dump", [tmp_path / "changes"], tmp_path / "followed")
    apply_changes(tmp_path / "later", [], tmp_path / "joined")
    assert content(tmp_path / "followed") == content(tmp_path / "joined")
    assert content(tmp_path / "followed") != content(tmp_path / "dump")


@pytest.mark.parametrize(
    ("name", "ranks"),
    [("adam", (1, 2)), pytest.param("sgd", (2, 3), marks=pytest.mark.long), ("rowwise_adagrad", (2, 1))],
)
def test_a_dump_is_loaded_on_any_number_of_ranks(run_ranks, tmp_path, name, ranks):
    saving, loading = ranks

    def save(comm):
        rank = RankOfSetup(setup(name), comm)
        train(rank, 1, 5)
        dump_tables(rank.embedding, tmp_path / "dump", comm=comm, step=5)
        return {table: rank.stored(table) for table in ("a", "b")}

    def load(comm):
        rank = RankOfSetup(setup(name, capacity=500), comm)
        train(rank, 1, 1)  # what it holds then is replaced
        sizes = load_tables(rank.embedding, tmp_path / "dump", comm=comm)
        return sizes, {table: rank.stored(table) for table in ("a", "b")}

    saved, loaded = run_ranks(saving, save), run_ranks(loading, load)
    for table in ("a", "b"):
        expected = {key: row for of_rank in saved for key, row in of_rank[table].items()}
        assert_same({key: row for _, of_rank in loaded for key, row in of_rank[table].items()}, expected)
        assert all(sizes[table] == len(expected) for sizes, _ in loaded)


def test_a_training_continues_from_a_dump_as_without_it(tmp_path):
    """Also the counts of keys that are not admitted yet are in the dump: with them the same keys are stored."""
    comm, (through, before, after) = SingleProcess(), (RankOfSetup(setup("sgd"), SingleProcess()) for _ in range(3))
    train(before, 1, 4)
    dump_tables(before.embedding, tmp_path / "dump", comm=comm, step=4)
    load_tables(after.embedding, tmp_path / "dump", comm=comm)
    (shard,) = before.embedding.plan.of_table("static")
    rows = before.embedding.read_rows(shard, "weights", start=0, stop=20)
    after.embedding.write_rows(shard, "weights", start=0, values=rows)
    train(after, 5, 8)
    train(through, 1, 8)
    for table in ("a", "b"):
        assert_same(after.stored(table), through.stored(table))


def test_a_smaller_table_keeps_the_keys_with_the_highest_scores(tmp_path):
    comm, large = SingleProcess(), RankOfSetup(setup(capacity=31), SingleProcess())
    train(large, 1, 6)
    dump_tables(large.embedding, tmp_path / "dump", comm=comm, step=6)
    small = RankOfSetup(setup(capacity=10), comm)  # one bucket, as 31 has: so what stays is exact
    assert load_tables(small.embedding, tmp_path / "dump", comm=comm) == {"a": 10, "b": 10}
    for table in ("a", "b"):
        scores = sorted((score for score, _, _ in large.stored(table).values()), reverse=True)
        assert sorted((score for score, _, _ in small.stored(table).values()), reverse=True) == scores[:10]


def test_keys_with_small_weights_are_erased(tmp_path):
    """The vector of key k is (k / 100, 0, 0); a dump of changes has the erased keys as deleted."""
    rank = RankOfSetup(setup("sgd", capacity=100), SingleProcess())
    table, keys = rank.embedding.dynamic_tables["a"], np.arange(1, 61)
    stored = hash_table.assign(table.index, keys, scores=keys, steps=np.full(60, 7)).numpy()
    table.write(stored, "weights", np.stack([keys / 100, 0 * keys, 0 * keys], axis=1).astype(np.float32))
    assert rank.embedding.erase_small(0.305) == {"a": 30, "b": 0}
    assert sorted(rank.stored("a")) == list(range(31, 61))
    (changes, _) = copy_changes(rank.embedding, 0, moment=DumpMoment(step=7, time=0))
    assert sorted(changes.deleted.tolist()) == list(range(1, 31))
    assert sorted(changes.rows.keys.tolist()) == list(range(31, 61))


def test_the_program_and_what_it_prints(tmp_path, capsys):
    comm, rank = SingleProcess(), RankOfSetup(setup(), SingleProcess())
    train(rank, 1, 3)
    dump_tables(rank.embedding, tmp_path / "dump", comm=comm, step=3)
    train(rank, 4, 5)
    dump_changes(rank.embedding, tmp_path / "changes", comm=comm, first_step=4, step=5)
    paths = ["--dump", f"{tmp_path}/dump", "--output", f"{tmp_path}/new", "--changes", f"{tmp_path}/changes"]
    assert main(paths) == 0
    sizes = {name: table.size() for name, table in rank.embedding.dynamic_tables.items()}
    printed = capsys.readouterr().out.splitlines()
    assert printed == [
        f"a: {sizes['a']:,} keys of 3 numbers, before step 6",
        f"b: {sizes['b']:,} keys of 4 numbers, before step 6",
    ]
    assert main(paths) == 1
    assert "new: is not an empty folder. Name another output." in capsys.readouterr().err


def test_what_cannot_be_dumped_or_loaded_is_refused(tmp_path):
    comm, rank = SingleProcess(), RankOfSetup(setup(log_erased=False), SingleProcess())
    with pytest.raises(DumpError, match=r"'static': is not a dynamic table; these are a, b\."):
        load_tables(rank.embedding, tmp_path / "dump", comm=comm, names=["static"])
    with pytest.raises(DumpError, match=r"table 'a': the keys that left it are not known\. .* log_erased=True"):
        dump_changes(rank.embedding, tmp_path / "changes", comm=comm, first_step=1, step=1)
    assert not any((tmp_path / "changes").iterdir())
    dump_tables(rank.embedding, tmp_path / "dump", comm=comm, step=1)
    for path in (tmp_path / "dump").glob("b_*"):
        path.unlink()
    before = content(tmp_path / "dump")
    with pytest.raises(DumpError, match=r"dump: holds other files than a dump of the same steps\. Name another fold"):
        dump_tables(rank.embedding, tmp_path / "dump", comm=comm, step=2)
    assert content(tmp_path / "dump") == before
    with pytest.raises(DumpError, match=r"dump: has no table 'b', only a\."):
        load_tables(rank.embedding, tmp_path / "dump", comm=comm)
    other = RankOfSetup(setup("sgd"), comm)
    with pytest.raises(DumpError, match=r"table 'a': the dump has the state of adam, and the layer trains with sgd\."):
        load_tables(other.embedding, tmp_path / "dump", comm=comm, names=["a"])
