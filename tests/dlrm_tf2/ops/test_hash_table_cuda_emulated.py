"""The hash table's CUDA kernels, their own text run on the processor, against the Python twin and the CPU's index.

No speed and no real GPU in here: bench/gpu checks the compiled kernels where there is one.
"""

import ctypes
import shutil
import sys
from types import SimpleNamespace

import ml_dtypes
import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from support import index_cuda_kernels as cuda
from support.key_index_twin import Twin
from support.native_index import NativeIndex

from dlrm_tf2 import ops
from dlrm_tf2.ops.hash_table import SCORES, IndexRules
from dlrm_tf2.sharding.buckets import Buckets, hash_of

pytestmark = [
    pytest.mark.skipif(shutil.which("g++") is None, reason="no g++"),
    pytest.mark.skipif(not ops.available(), reason=f"the op library is not built: {ops.why_unavailable()}"),
]
LEAST, MOST = -(2**63), 2**63 - 1
KEYS = st.lists(st.one_of(st.integers(-20, 20), st.sampled_from([0, -1, LEAST, MOST, LEAST + 1])), max_size=40)
STEPS = st.integers(0, 50)
KINDS = ("constant", "uniform", "normal", "truncated_normal")


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    return cuda.build(tmp_path_factory.mktemp("emulated_index"))


@pytest.fixture(autouse=True)
def library_of_the_machine(library):
    IndexMachine.library = library


class IndexMachine(RuleBasedStateMachine):
    """The same calls to an index on the emulated GPU, whose threads run in random order, and to its twin."""

    library: ctypes.CDLL

    @initialize(
        score=st.sampled_from(SCORES),
        admission=st.sampled_from([(1, 1.0), (1, 0.5), (2, 1.0), (3, 0.7)]),
        counter=st.sampled_from([("exact", 1), ("exact", 6), ("exact", 100), ("sketch", 64), ("sketch", 4096)]),
        buckets=st.sampled_from([Buckets(1, 1), Buckets(1, 7), Buckets(4, 3), Buckets(2, 90)]),
    )
    def make(self, score, admission, counter, buckets):
        rules = IndexRules(score, *admission, counter, seed=3)
        self.index, self.twin, self.clock = cuda.CudaIndex(self.library, buckets, rules), Twin(buckets, rules), 0

    @rule(keys=KEYS, step=STEPS, data=st.data())
    def find_or_insert(self, keys, step, data):
        self.clock += 1
        scores = np.array(self.clock)
        if self.index.rules.score == "custom":
            scores = data.draw(st.lists(st.integers(-5, 5), min_size=len(keys), max_size=len(keys)))
        found = self.index.find_or_insert(keys, step, scores)
        stored, fresh, evicted = self.twin.find_or_insert(keys, step, np.broadcast_to(scores, len(keys)).tolist())
        rows, fresh_rows, fresh_keys, evicted_keys, evicted_rows, evicted_scores = (part.tolist() for part in found)
        assert [row >= 0 for row in rows] == stored and fresh_keys == fresh
        of_keys = dict(zip(keys, rows, strict=True))
        assert rows == [of_keys[key] for key in keys] and fresh_rows == [of_keys[key] for key in fresh]
        assert list(zip(evicted_keys, evicted_scores, strict=True)) == evicted and {*evicted_rows} <= {*fresh_rows}

    @rule(keys=KEYS)
    def find(self, keys):
        assert (self.index.find(keys) >= 0).tolist() == self.twin.find(keys)

    @rule(entries=st.lists(st.tuples(st.integers(-9, 30), st.integers(-5, 60), STEPS), max_size=15))
    def assign(self, entries):
        keys, scores, steps = ([entry[i] for entry in entries] for i in range(3))
        rows = self.index.assign(keys, scores, steps).tolist()
        assert [row >= 0 for row in rows] == self.twin.assign(keys, scores, steps)
        found = {(key, row) for key, row in zip(keys, rows, strict=True) if row >= 0}
        assert len({key for key, _ in found}) == len({row for _, row in found}) == len(found)

    @rule(keys=KEYS)
    def erase(self, keys):
        assert self.index.erase(keys).tolist() == self.twin.erase(keys)

    @rule(before_step=STEPS)
    def expire(self, before_step):
        assert len(self.index.expire(before_step)) == self.twin.expire(before_step)

    @rule()
    def clear(self):
        self.index.clear()
        self.twin.clear()

    @rule(call=st.sampled_from([2**32 - 2, 2**32 - 1]))
    def come_to_the_last_number_of_calls(self, call):
        self.index.begin_calls_after(call)

    @rule()
    def into_another_index(self):
        other = cuda.CudaIndex(self.library, self.index.buckets, self.index.rules)
        keys, _, scores, steps = self.index.select()
        other.assign(keys, scores, steps)
        counts = self.index.counts()
        if self.index.rules.counter[0] == "exact" and counts:
            other.assign_counts(list(counts), list(counts.values()))
            assert other.counts() == counts
        assert content(other) == self.twin.content()

    @invariant()
    def the_same(self):
        if not hasattr(self, "index"):
            return
        assert content(self.index) == self.twin.content()
        assert self.index.counters() == list(self.twin.counters.values())
        assert self.index.counts() == self.twin.counts


def content(index):
    """[(key, score, step)], sorted; the rows are checked."""
    keys, rows, scores, steps = index.select()
    assert np.all(np.diff(rows) > 0) and index.size() == len(keys)
    assert np.array_equal(index.buckets.bucket_of(keys), rows // index.buckets.rows_per_bucket)
    return sorted(zip(keys.tolist(), scores.tolist(), steps.tolist(), strict=True))


TestIndexMachine = IndexMachine.TestCase
TestIndexMachine.settings = settings(max_examples=40, stateful_step_count=12, deadline=None)
RULES = [
    IndexRules("timestamp"),
    IndexRules("step"),
    IndexRules("lfu", admit_after=2, counter=("exact", 400)),
    IndexRules("custom", admit_after=3, counter=("sketch", 20_000)),
    IndexRules("no_eviction", admit_probability=0.6, seed=4),
]


def batches(rules):
    """(keys, step, scores) of calls that fill and overfill 8 buckets of 100 rows."""
    rng = np.random.default_rng(5)
    for step, num_keys in enumerate([600, 1500, 20, 900]):
        keys = rng.geometric(0.001, num_keys) * rng.choice([-1, 1], num_keys)
        yield keys, step, rng.integers(-50, 50, num_keys) if rules.score == "custom" else np.array(step)


@pytest.mark.parametrize("rules", RULES, ids=lambda rules: rules.score)
def test_the_rows_and_lists_of_the_cpu(library, rules):
    """All that a call answers, in its order, and which row each key has; for two orders of the GPU's threads."""
    buckets = Buckets(8, 100)
    on_cpu, indexes = NativeIndex(buckets, rules, 1), [cuda.CudaIndex(library, buckets, rules) for _ in range(2)]
    for batch in batches(rules):
        expected = on_cpu.find_or_insert(*batch)
        for seed, index in enumerate(indexes):
            library.emulate_gpu(cuda.SHARED_BYTES, seed)
            for found, wanted in zip(index.find_or_insert(*batch), expected, strict=True):
                np.testing.assert_array_equal(found, wanted)
    for index in indexes:
        np.testing.assert_array_equal(index.select(), on_cpu.export())
        np.testing.assert_array_equal(index.select(150, 30), on_cpu.export()[:, slice(*bounds(on_cpu, 150, 180))])
    on_cpu.delete()


def bounds(index, first, last):
    return np.searchsorted(index.export()[1], [first, last])


def test_a_full_table_holds_all_its_keys(library):
    index, keys = cuda.CudaIndex(library, Buckets(1, 1024), IndexRules("step")), np.arange(3000) * 7919 - 12345
    for step, start in enumerate((0, 1024)):
        rows = index.find_or_insert(keys[start : start + 1024], step, np.array(0))[0]
        assert sorted(rows) == list(range(1024))
    assert (index.find(keys[1024:2048]) >= 0).all() and index.size() == 1024
    index.clear()
    rows = index.find_or_insert(keys, 2, np.array(0))[0]
    assert set(np.flatnonzero(rows >= 0)) == set(np.argsort(hash_of(keys))[:1024])


def test_evicted_keys_come_with_their_steps(library):
    index = cuda.CudaIndex(library, Buckets(1, 2), IndexRules("custom"))
    index.find_or_insert([5, 6], 3, [9, -4])
    rows, *_, evicted, evicted_rows, scores = index.find_or_insert([7], 4, [0])
    assert (evicted.tolist(), scores.tolist(), index.evicted_steps.tolist()) == ([6], [-4], [3])
    assert evicted_rows.tolist() == rows.tolist() == [1]


def test_an_index_refuses_keys_of_other_buckets(library):
    buckets, keys = Buckets(6, 40), np.arange(-60, 60)
    of_keys, rules = buckets.bucket_of(keys), IndexRules("step")
    whole = cuda.CudaIndex(library, buckets, rules)
    whole.find_or_insert(keys, 1, np.array(0))
    exported = []
    for rank in range(3):
        owned = buckets.of_rank(rank, 3)
        index, own = cuda.CudaIndex(library, buckets, rules, owned), np.isin(of_keys, owned)
        others = keys[~own]
        for verb, arguments in (("find", [keys]), ("find_or_insert", [keys, 1, np.array(0)]), ("erase", [others])):
            with pytest.raises(cuda.BadKey) as error:
                getattr(index, verb)(*arguments)
            assert error.value.args[0] == len(others) and error.value.args[1] in others
        exported.append(index.select())  # of the call with some bad keys
    np.testing.assert_array_equal(np.concatenate(exported, axis=1), whole.select())


def test_bad_steps_and_counts_are_noted(library):
    index = cuda.CudaIndex(library, Buckets(1, 9), IndexRules("step", admit_after=2, counter=("exact", 9)))
    with pytest.raises(cuda.BadKey, match="1, 8"):
        index.assign([7, 8], [0, 0], [2**32 - 1, 2**32])
    with pytest.raises(cuda.BadKey, match="1, 6"):
        index.assign_counts([5, 6], [1, -1])
    assert index.counts() == {5: 1}
    with pytest.raises(AssertionError, match="find_or_insert"):
        index.find_or_insert([1], -1, np.array(0))


@pytest.mark.parametrize("bfloat16", [False, True])
@pytest.mark.parametrize("kind", range(4), ids=KINDS)
def test_first_values_have_the_bits_of_the_cpu(library, kind, bfloat16):
    keys = np.concatenate([np.arange(-300, 300), [LEAST, MOST]])
    rows = np.random.default_rng(0).permutation(len(keys) + 3)[: len(keys)]
    arrays = []
    for kernels, num_rows in ((ops.kernels(), None), (library, len(keys) + 3)):
        weights = np.full((len(keys) + 3, 17), 7, ml_dtypes.bfloat16 if bfloat16 else np.float32)
        slots = [np.full((len(keys) + 3, width), 7, np.float32) for width in (17, 1)]
        arguments = cuda.initial_arguments(weights, slots, state=[0.25, 0.0], kind=kind, seed=2**63 + 5)
        assert cuda.initialize(kernels, arguments, rows, keys, num_rows=num_rows) == 0
        arrays.append([weights, *slots])
    for found, expected in zip(*arrays, strict=True):
        assert found.tobytes() == expected.tobytes()
    assert len(np.unique(arrays[0][0][rows].astype(np.float32), axis=0)) == (1 if kind == 0 else len(keys))


def test_a_row_that_is_not_there_is_noted(library):
    weights = np.full((3, 4), 7, np.float32)
    arguments = cuda.initial_arguments(weights, [], state=[], kind=0, seed=0)
    with pytest.raises(cuda.BadKey, match="1, 3"):
        cuda.initialize(library, arguments, np.array([1, 3]), np.array([5, 6]), num_rows=3)
    assert (weights[:, 0] == [7, 0.5, 7]).all()


class HostDevice:
    """The GPU check's device, in this process's memory."""

    def upload(self, values):
        return np.ascontiguousarray(values).view(np.uint8).reshape(-1).copy()

    def poisoned(self, num_bytes):
        return np.full(num_bytes, 0xFF, np.uint8)

    def address(self, memory):
        return memory.ctypes.data

    def download(self, memory):
        return memory.copy()

    def wait(self):
        pass

    def event(self):
        return 0.0

    def elapsed_ms(self, start, end):
        return 1.0


def test_the_gpu_check_passes_right_kernels_and_finds_wrong_ones(library, monkeypatch):
    monkeypatch.syspath_prepend(str(cuda.SOURCE.parents[2] / "bench" / "gpu"))
    for name in ("device", "driver", "times", "index", "index_numpy", "index_check"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    import index_check
    import index_numpy

    kernels = SimpleNamespace(library=library)
    cases = [((2, 20), score, 50) for score in SCORES]
    found = index_check.check_grid(HostDevice(), kernels, [*cases, ((1, 1), "lfu", 3)])
    assert found == {"checked": 5 + 1 + 8, "wrong": []}
    monkeypatch.setattr(index_check.times, "median_ms", lambda _, call: [1.0, call()][0])
    monkeypatch.setattr(index_check, "TABLE_ROWS", 512)
    monkeypatch.setattr(index_check, "BUCKETS", 2)
    timed = index_check.measure(HostDevice(), kernels, batches=(64,))
    assert [row["call"] for row in timed] == ["find", "find_or_insert", "evict", "find", "find_or_insert"]
    monkeypatch.setattr(index_numpy, "GAMMA", index_numpy.GAMMA + 2)
    wrong = index_check.check_grid(HostDevice(), kernels, [])["wrong"]
    assert len(wrong) == 6 and "first values, uniform" in wrong[0]
    monkeypatch.setattr(index_numpy.Model, "_lowest", lambda self, keys: max(keys, default=None))
    assert "other keys" in index_check.check_grid(HostDevice(), kernels, [((1, 9), "step", 30)])["wrong"][0]
