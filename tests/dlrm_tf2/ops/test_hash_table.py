"""The native hash table against a plain Python twin: every verb, every rule, every kind of key."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from support.key_index_twin import Twin
from support.native_index import NativeIndex

from dlrm_tf2 import ops
from dlrm_tf2.ops import hash_table
from dlrm_tf2.ops.hash_table import COUNTERS, SCORES, IndexRules, KeyIndex
from dlrm_tf2.sharding.buckets import Buckets, buckets_of, hash_of

pytestmark = pytest.mark.skipif(not ops.available(), reason=f"the op library is not built: {ops.why_unavailable()}")
LEAST, MOST = -(2**63), 2**63 - 1
SPECIAL = [0, -1, 1, LEAST, MOST, LEAST + 1, MOST - 1]
KEYS = st.lists(st.one_of(st.integers(-20, 20), st.sampled_from(SPECIAL)), max_size=40)
STEPS = st.integers(0, 50)


def int64(numbers):
    return tf.constant(numbers, tf.int64)


def index_of(capacity, rules=IndexRules(), bucket_capacity=16_384):  # noqa: B008 - a record is immutable
    buckets = buckets_of(capacity, bucket_capacity)
    return KeyIndex(buckets, range(buckets.num_buckets), rules)


def insert(index, keys, step=1, scores=0):
    return hash_table.find_or_insert(index, int64(keys), step=int64(step), scores=int64(scores))


def content(index):
    """[(key, score, step)], sorted; the rows are checked."""
    listed = hash_table.export_batch(index, int64(0), int64(index.buckets.num_rows))
    keys, rows = listed.keys.numpy(), listed.rows.numpy()
    assert np.all(np.diff(rows) > 0)
    assert np.array_equal(index.buckets.bucket_of(keys), rows // index.buckets.rows_per_bucket)
    assert len(keys) == int(hash_table.size(index))
    return sorted(zip(keys.tolist(), listed.scores.numpy().tolist(), listed.steps.numpy().tolist(), strict=True))


RULES = st.builds(
    IndexRules,
    score=st.sampled_from(SCORES),
    admit_after=st.sampled_from([1, 1, 2, 3]),
    admit_probability=st.sampled_from([1.0, 1.0, 0.5]),
    counter=st.sampled_from([("exact", 1), ("exact", 6), ("exact", 100), ("sketch", 64), ("sketch", 4096)]),
    seed=st.integers(0, 5),
    log_erased=st.booleans(),
)


class IndexMachine(RuleBasedStateMachine):
    """The same calls to an index and to its twin."""

    @initialize(rules=RULES, buckets=st.sampled_from([Buckets(1, 1), Buckets(1, 7), Buckets(4, 3), Buckets(2, 30)]))
    def make(self, rules, buckets):
        self.index, self.twin = KeyIndex(buckets, range(buckets.num_buckets), rules), Twin(buckets, rules)
        self.clock = 0

    @rule(keys=KEYS, step=STEPS, data=st.data())
    def find_or_insert(self, keys, step, data):
        if self.index.rules.score == "custom":
            scores = data.draw(st.lists(st.integers(-5, 5), min_size=len(keys), max_size=len(keys)))
            found = insert(self.index, keys, step, scores)
        else:
            self.clock += 1
            scores = [self.clock] * len(keys)
            found = insert(self.index, keys, step, self.clock)
        stored, fresh, evicted = self.twin.find_or_insert(keys, step, scores)
        assert (found.rows.numpy() >= 0).tolist() == stored
        assert found.fresh_keys.numpy().tolist() == fresh
        rows = dict(zip(keys, found.rows.numpy().tolist(), strict=True))
        assert found.fresh_rows.numpy().tolist() == [rows[key] for key in fresh]
        assert found.rows.numpy().tolist() == [rows[key] for key in keys]
        given = zip(found.evicted_keys.numpy().tolist(), found.evicted_scores.numpy().tolist(), strict=True)
        assert list(given) == evicted
        assert {int(row) for row in found.evicted_rows} <= {int(row) for row in found.fresh_rows}

    @rule(keys=KEYS)
    def find(self, keys):
        assert (hash_table.find(self.index, int64(keys)).numpy() >= 0).tolist() == self.twin.find(keys)

    @rule(entries=st.lists(st.tuples(st.integers(-9, 30), st.integers(-5, 60), STEPS), max_size=15))
    def assign(self, entries):
        keys, scores, steps = ([entry[i] for entry in entries] for i in range(3))
        rows = hash_table.assign(self.index, int64(keys), scores=int64(scores), steps=int64(steps))
        assert (rows.numpy() >= 0).tolist() == self.twin.assign(keys, scores, steps)
        found = {(key, row) for key, row in zip(keys, rows.numpy().tolist(), strict=True) if row >= 0}
        assert len({key for key, _ in found}) == len({row for _, row in found}) == len(found)

    @rule(keys=KEYS)
    def erase(self, keys):
        assert hash_table.erase(self.index, int64(keys)).numpy().tolist() == self.twin.erase(keys)

    @rule(before_step=STEPS)
    def expire(self, before_step):
        assert len(hash_table.expire(self.index, int64(before_step))) == self.twin.expire(before_step)

    @rule(before_step=STEPS)
    def trim_erased(self, before_step):
        hash_table.trim_erased(self.index, int64(before_step))
        self.twin.trim_erased(before_step)

    @rule()
    def clear(self):
        hash_table.clear(self.index)
        self.twin.clear()

    @rule()
    def into_another_index(self):
        """An index that is given all that this one lists is the same from now on, but for its counters and step."""
        owned, rules = self.index.owned, self.index.rules
        other = KeyIndex(self.index.buckets, owned, rules)
        listed = hash_table.export_batch(self.index, int64(0), int64(self.index.buckets.num_rows))
        hash_table.assign(other, listed.keys, scores=listed.scores, steps=listed.steps)
        hash_table.assign_admission(other, *hash_table.export_admission(self.index))
        assert content(other) == self.twin.content() and counted(other) == self.twin.counts

    @invariant()
    def the_same(self):
        if not hasattr(self, "index"):
            return
        assert content(self.index) == self.twin.content()
        assert dict(zip(COUNTERS, hash_table.counters(self.index).numpy().tolist(), strict=True)) == self.twin.counters
        assert counted(self.index) == self.twin.counts
        keys, steps = hash_table.erased(self.index, int64(3))
        log = zip(keys.numpy().tolist(), steps.numpy().tolist(), strict=True)
        assert sorted(log) == self.twin.erased(3)


def counted(index):
    keys, counts = hash_table.export_admission(index)
    return dict(zip(keys.numpy().tolist(), counts.numpy().tolist(), strict=True))


TestIndexMachine = IndexMachine.TestCase
TestIndexMachine.settings = settings(max_examples=60, stateful_step_count=12, deadline=None)


@pytest.mark.parametrize("num_keys", [1024, 100_000, 1_000_000])
def test_a_small_index_holds_its_capacity(num_keys):
    index, keys = index_of(1024, IndexRules("step")), np.arange(num_keys) * 7919 - 12345
    for step, start in enumerate(range(0, num_keys, 1024)):
        rows = insert(index, keys[start : start + 1024], step).rows.numpy()
        assert sorted(rows) == list(range(len(rows))) if step == 0 else rows.min() >= 0
    assert int(hash_table.size(index)) == 1024
    found = hash_table.find(index, int64(keys)).numpy()
    assert (found[-1024 + (-num_keys % 1024) :] >= 0).all() and (found >= 0).sum() == 1024


def test_a_million_keys_at_once_leave_the_highest_hashes_out():
    index, keys = index_of(1024), np.arange(1_000_000)
    rows = insert(index, keys).rows.numpy()
    assert set(np.flatnonzero(rows >= 0)) == set(np.argsort(hash_of(keys))[:1024])
    assert hash_table.counters(index).numpy()[COUNTERS.index("not_insertable")] == 1_000_000 - 1024


@pytest.mark.parametrize("rules", [
    IndexRules("timestamp", log_erased=True),
    IndexRules("lfu", admit_after=2, counter=("exact", 400)),
    IndexRules("custom", admit_after=3, counter=("sketch", 20_000)),
    IndexRules("no_eviction", admit_probability=0.6, seed=4),
], ids=lambda rules: rules.score)  # fmt: skip
def test_any_number_of_threads_stores_the_same(rules):
    """Batches that several threads take a part of each, against the twin and for 1, 2 and 5 threads."""
    buckets, rng = Buckets(8, 100), np.random.default_rng(5)
    twin = Twin(buckets, rules)
    indexes = [NativeIndex(buckets, rules, num_threads) for num_threads in (1, 2, 5)]
    for step, num_keys in enumerate([6000, 4500, 100, 5000]):
        keys = rng.geometric(0.0005, num_keys) * rng.choice([-1, 1], num_keys)
        scores = rng.integers(-50, 50, num_keys) if rules.score == "custom" else np.array(step)
        stored, fresh, evicted = twin.find_or_insert(keys.tolist(), step, np.broadcast_to(scores, num_keys).tolist())
        first, *others = [index.find_or_insert(keys, step, scores) for index in indexes]
        assert (first[0] >= 0).tolist() == stored and first[2].tolist() == fresh
        assert list(zip(first[3].tolist(), first[5].tolist(), strict=True)) == evicted
        for other in others:
            assert all(np.array_equal(a, b) for a, b in zip(first, other, strict=True))
        the_same_content(indexes, twin)
        if step % 2 == 0:
            gone = rng.permutation(np.concatenate([keys, keys[:3000]]))[:5000]
            were_stored = [index.erase(gone) for index in indexes]
            assert all(one.tolist() == were_stored[0].tolist() for one in were_stored)
            assert were_stored[0].tolist() == twin.erase(gone.tolist())
            the_same_content(indexes, twin)
        loaded, scores, steps = rng.integers(-3000, 3000, 5000), rng.integers(-9, 9, 5000), rng.integers(0, 9, 5000)
        rows = [index.assign(loaded, scores, steps) for index in indexes]
        assert all(np.array_equal(rows[0], one) for one in rows)
        assert (rows[0] >= 0).tolist() == twin.assign(loaded.tolist(), scores.tolist(), steps.tolist())
        the_same_content(indexes, twin)
    for index in indexes:
        index.delete()


def the_same_content(indexes, twin):
    """Asserts that indexes, which must be the same row by row, have what the twin has."""
    first, *others = [index.export() for index in indexes]
    assert sorted(zip(*first[[0, 2, 3]].tolist(), strict=True)) == twin.content()
    assert all(np.array_equal(first, other) for other in others)


def test_every_instruction_set_finds_the_same():
    """In full buckets of 30 keys, whose searches pass full groups, with keys that are not stored."""
    index, keys = (
        NativeIndex(Buckets(16, 30), IndexRules("step"), 1),
        np.random.default_rng(2).integers(LEAST, MOST, 3000),
    )
    stored = index.find_or_insert(keys, 1, np.array(0))[0]
    assert sorted(stored[stored >= 0]) == list(range(16 * 30))
    kernels = index.library
    try:
        for instruction_set in range(kernels.dlrm_cpu_instruction_set() + 1):
            assert kernels.dlrm_choose_cpu_instruction_set(instruction_set) == 0
            assert np.array_equal(index.find(keys), stored)
    finally:
        kernels.dlrm_choose_cpu_instruction_set(-1)
    index.delete()


def test_scores_outlive_the_numbers_of_calls():
    """65,534 calls have numbers; then they begin again, and keys that were touched before keep score and step."""
    index = NativeIndex(Buckets(1, 4), IndexRules("timestamp"), 1)
    for step in range(66_000):
        index.find_or_insert(np.array([min(step, 3)]), step, np.array(7 * step))
    assert index.export()[[0, 2, 3]].T.tolist() == [[0, 0, 0], [1, 7, 1], [2, 14, 2], [3, 7 * 65_999, 65_999]]
    assert index.find_or_insert(np.array([1, 8]), 66_000, np.array(7 * 66_000))[3].tolist() == [0]
    index.delete()


@pytest.mark.long
@pytest.mark.parametrize("score", ["timestamp", "lfu", "custom"])
def test_a_million_operations(score):
    """Against a dict: what is stored, its score and step, with erased and expired keys in between."""
    index, rng, stored = index_of(30_000, IndexRules(score)), np.random.default_rng(1), {}
    for step in range(1000):
        keys = rng.integers(-15_000, 15_000, 1000) * 12_345_678_901
        scores = rng.integers(0, 1000, 1000) if score == "custom" else np.array(step)
        insert(index, keys, step, scores)
        for key, value in zip(keys.tolist(), np.broadcast_to(scores, 1000).tolist(), strict=True):
            before, touched = stored.get(key, (0, -1))
            again = max(before, value) if touched == step else value
            stored[key] = (before + 1 if score == "lfu" else again, step)
        gone = rng.choice(keys, 50).tolist()
        assert hash_table.erase(index, int64(gone)).numpy().tolist() == [
            stored.pop(key, None) is not None for key in gone
        ]
        if step % 100 == 99:
            old = [key for key, (_, touched) in stored.items() if touched < step - 20]
            assert len(hash_table.expire(index, int64(step - 20))) == len(old)
            for key in old:
                del stored[key]
            assert content(index) == sorted((key, *value) for key, value in stored.items())


def test_equal_keys_have_one_row():
    index = index_of(10, IndexRules("lfu"))
    first, again = insert(index, [7] * 9000), insert(index, [7] * 5)
    assert first.fresh_keys.numpy().tolist() == [7] and set(first.rows.numpy()) == {0}
    assert again.fresh_keys.shape == 0 and content(index) == [(7, 9005, 1)]


def test_a_graph_calls_in_order():
    index = index_of(100)

    @tf.function
    def call(keys, step):
        missing = hash_table.find(index, keys)
        inserted = hash_table.find_or_insert(index, keys, step=step, scores=step)
        return missing, inserted.rows, hash_table.find(index, keys), hash_table.size(index)

    missing, rows, found, size = call(int64([3, 4, 3]), int64(5))
    assert missing.numpy().tolist() == [-1] * 3 and int(size) == 2
    assert rows.numpy().tolist() == found.numpy().tolist() and rows[0] == rows[2] != rows[1]


def test_an_index_owns_its_buckets_only():
    buckets = buckets_of(1000, 16)
    keys = np.arange(-500, 500)
    of_keys = buckets.bucket_of(keys)
    assert hash_table.bucket_of(int64(keys), buckets.num_buckets).numpy().tolist() == of_keys.tolist()
    parts = [KeyIndex(buckets, buckets.of_rank(rank, 3), IndexRules()) for rank in range(3)]
    whole = KeyIndex(buckets, range(buckets.num_buckets), IndexRules())
    insert(whole, keys)
    exported = []
    for index in parts:
        own = keys[(of_keys >= index.owned.start) & (of_keys < index.owned.stop)]
        rows = insert(index, own).rows.numpy()
        assert np.array_equal(rows // buckets.rows_per_bucket, buckets.bucket_of(own))
        exported += hash_table.export_batch(index, int64(0), int64(buckets.num_rows)).rows.numpy().tolist()
        for call in (lambda i=index: insert(i, keys), lambda i=index: hash_table.find(i, int64(keys))):
            with pytest.raises(tf.errors.InvalidArgumentError, match="must be sent to the index of their bucket"):
                call()
    assert exported == hash_table.export_batch(whole, int64(0), int64(buckets.num_rows)).rows.numpy().tolist()
    nobody = KeyIndex(buckets, range(2, 2), IndexRules())
    assert insert(nobody, []).rows.shape == 0 and int(hash_table.size(nobody)) == 0


@pytest.mark.parametrize("rules, complaint", [
    (IndexRules("newest"), "score: found newest"),
    (IndexRules(admit_after=0), "admit_after: found 0"),
    (IndexRules(admit_after=70_000, counter=("sketch", 64)), "expected 1 to 65535"),
    (IndexRules(admit_probability=1.5), "admit_probability: found 1.5"),
    (IndexRules(counter=("bloom", 5)), "counter: found"),
])  # fmt: skip
def test_rules_out_of_range(rules, complaint):
    with pytest.raises(ValueError, match=complaint):
        index_of(10, rules)


def test_arguments_out_of_range():
    index = index_of(10)
    for step in (-1, 2**32):
        with pytest.raises(tf.errors.InvalidArgumentError, match="steps must be from 0"):
            insert(index, [1], step)
    with pytest.raises(tf.errors.InvalidArgumentError, match="found 2 numbers for 1 keys"):
        insert(index, [1], 1, [1, 2])
    with pytest.raises(tf.errors.InvalidArgumentError, match="expected rows from 0 to 9"):
        hash_table.export_batch(index, int64(5), int64(6))
    with pytest.raises(tf.errors.InvalidArgumentError, match="counts no keys"):
        hash_table.assign_admission(index, int64([1]), int64([1]))
    assert int(hash_table.size(index)) == 0
