"""The hash table's CUDA kernels through ctypes, run on the processor by cuda_emulator.h."""

import ctypes
import subprocess
from pathlib import Path

import numpy as np
from support.native_index import CBuckets, CRules, CScores, address
from support.row_cuda_kernels import HERE, SHARED_BYTES, SOURCE, Memory

from dlrm_tf2.ops.hash_table import SCORES, IndexRules
from dlrm_tf2.sharding.buckets import Buckets

SIZE, POINTER, STEP = ctypes.c_int64, ctypes.c_void_p, ctypes.c_int64
EVERY_STEP = 2**63 - 1
LISTS = ("keys", "rows", "scores", "steps")


class CIndex(ctypes.Structure):
    _fields_ = [("buckets", CBuckets), ("rules", CRules), ("memory", POINTER)]


class COutcome(ctypes.Structure):
    _fields_ = [(name, SIZE) for name in ("fresh", "evicted", "listed", "num_bad", "bad_key")]


class CCall(ctypes.Structure):
    _fields_ = [("memory", POINTER), ("bytes", SIZE), ("outcome", POINTER), ("stream", POINTER)]


class CSelection(ctypes.Structure):
    _fields_ = [("first_row", SIZE), ("num_rows", SIZE), ("before_step", SIZE), ("of_counter", ctypes.c_int)]


class BadKey(Exception):
    """args: how many there are, one of them."""


def build(folder: Path) -> ctypes.CDLL:
    """Compiles the kernels' own text for the processor; some seconds."""
    path = folder / "libindex.so"
    # A GPU refuses a load that is not aligned; so does this.
    strict = ["-ffp-contract=off", "-fsanitize=alignment", "-fsanitize-undefined-trap-on-error", "-w"]
    sources = [HERE / "cuda_emulator" / "emulated_index.cc", SOURCE / "errors.cc"]
    command = ["g++", "-O1", "-std=c++17", "-fPIC", "-shared", *strict, "-I", SOURCE, "-o", path, *sources]
    subprocess.run(command, check=True)
    library = ctypes.CDLL(str(path))
    library.emulate_gpu(SHARED_BYTES, 1)
    return library


def rules_of(rules: IndexRules) -> CRules:
    counter = ("exact", "sketch").index(rules.counter[0])
    return CRules(SCORES.index(rules.score), rules.admit_after, rules.admit_probability, counter, rules.counter[1],
                  rules.seed, rules.log_erased)  # fmt: skip


class CudaIndex:
    """An index of some buckets of a table, all of them if `owned` is None. Memory has guards and no byte too many."""

    def __init__(self, library, buckets: Buckets, rules: IndexRules, owned: range | None = None):
        self.library, self.buckets, self.rules = library, buckets, rules
        owned = range(buckets.num_buckets) if owned is None else owned
        self.c_index = CIndex(CBuckets(*buckets, owned.start, owned.stop), rules_of(rules), None)
        self.memory = Memory(self._bytes("dlrm_index_cuda_bytes"))
        self.c_index.memory = self.memory.address
        self._run("make", None)

    def find(self, keys) -> np.ndarray:
        rows = np.full(len(keys), -7)
        self._call("find", keys, len(keys), address(rows))
        return rows

    def find_or_insert(self, keys, step: int, scores) -> list[np.ndarray]:
        """[rows, fresh rows, fresh keys, evicted keys, evicted rows, evicted scores]."""
        keys, scores, rows = int64(keys), int64(scores), np.full(len(keys), -7)
        given = CScores(address(scores), scores.ndim)
        memory, outcome = self._call("find_or_insert", keys, len(keys), SIZE(step), given, address(rows))
        fresh, evicted = np.full((2, outcome.fresh), -7), np.full((4, outcome.evicted), -7)
        self._again("fresh", memory, address(keys), len(keys), address(fresh[0]), address(fresh[1]))
        self._again("evicted", memory, len(keys), lists_of(evicted))
        self.evicted_steps = evicted[3]
        return [rows, *fresh, *evicted[:3]]

    def assign(self, keys, scores, steps) -> np.ndarray:
        rows, scores, steps = np.full(len(keys), -7), int64(scores), int64(steps)
        self._call("assign", keys, len(keys), address(scores), address(steps), address(rows))
        return rows

    def erase(self, keys) -> np.ndarray:
        was_stored = np.full(len(keys), 7, np.uint8)
        self._call("erase", keys, len(keys), address(was_stored))
        return was_stored.astype(bool)

    def select(self, first_row=0, num_rows=None, *, before_step=EVERY_STEP, of_counter=False) -> np.ndarray:
        """[keys, rows, scores, steps] of the rows, in their order."""
        num_rows = 2**40 if num_rows is None else num_rows
        selection = CSelection(first_row, num_rows, before_step, of_counter)
        memory, outcome = self._call("count", None, selection)
        lists = np.full((4, outcome.listed), -7)
        self._again("list", memory, selection, lists_of(lists))
        return lists

    def expire(self, before_step: int) -> np.ndarray:
        """The rows of the keys that have expired."""
        rows = self.select(before_step=before_step)[1]
        _, outcome = self._call("expire", None, SIZE(before_step))
        assert outcome.listed == len(rows)
        return rows

    def counts(self) -> dict[int, int]:
        """What the counter of admission knows, as `export_admission` gives it."""
        if self.rules.admit_after == 1:
            return {}
        if self.rules.counter[0] == "exact":
            keys, _, counts, _ = self.select(of_counter=True)
            return dict(zip(keys.tolist(), counts.tolist(), strict=True))
        cells, first = self.cells()
        return {first + int(i): int(cells[i]) for i in np.flatnonzero(cells)}

    def cells(self) -> tuple[np.ndarray, int]:
        """(cells of the sketch here, which may be written; the number of the first one)."""
        start, count, first = POINTER(), SIZE(), SIZE()
        found = ctypes.byref(start), ctypes.byref(count), ctypes.byref(first)
        assert self.library.dlrm_index_sketch_cuda(ctypes.byref(self.c_index), *found) == 0
        offset = start.value - self.memory.all.ctypes.data
        return self.memory.all[offset : offset + 2 * count.value].view(np.uint16), first.value

    def assign_counts(self, keys, counts) -> None:
        counts = int64(counts)
        self._call("assign_counts", keys, len(keys), address(counts))

    def clear(self) -> None:
        self._run("clear", None)

    def size(self) -> int:
        size = np.full(1, -7)
        self._run("size", address(size), None)
        return int(size[0])

    def counters(self) -> list[int]:
        counters = np.full(9, -7)
        self._run("counters", address(counters), None)
        return counters.tolist()

    def begin_calls_after(self, call: int) -> None:
        self.library.set_call(ctypes.byref(self.c_index), ctypes.c_uint32(call))

    # ---- calls -------------------------------------------------------------------------------------------------------

    def _bytes(self, name: str, *arguments) -> int:
        needed = SIZE()
        assert getattr(self.library, name)(ctypes.byref(self.c_index), *arguments, ctypes.byref(needed)) == 0
        return needed.value

    def _run(self, name: str, *arguments) -> None:
        code = getattr(self.library, f"dlrm_index_{name}_cuda")(ctypes.byref(self.c_index), *arguments)
        assert code == 0, (name, code)
        self.memory.check()

    def _call(self, name: str, keys, *arguments) -> tuple[Memory, COutcome]:
        """A call with memory of its own; the keys first, unless it takes none (None)."""
        arguments = [SIZE(a) if isinstance(a, int) else a for a in arguments]
        keys = None if keys is None else int64(keys)
        memory = Memory(self._bytes("dlrm_index_cuda_call_bytes", SIZE(0 if keys is None else len(keys))))
        outcome = self._again(name, memory, *([] if keys is None else [address(keys)]), *arguments)
        if outcome.num_bad:
            raise BadKey(outcome.num_bad, outcome.bad_key)
        return memory, outcome

    def _again(self, name: str, memory: Memory, *arguments) -> COutcome:
        outcome = COutcome(*[-7] * 5)
        call = CCall(memory.address, memory.num_bytes, ctypes.addressof(outcome), None)
        arguments = [SIZE(a) if isinstance(a, int) else a for a in arguments]
        self._run(name, *arguments, ctypes.byref(call))
        memory.check()
        return outcome


def int64(numbers) -> np.ndarray:
    return np.asarray(numbers, np.int64, order="C")


def lists_of(arrays: np.ndarray) -> ctypes.Array:
    return (POINTER * 4)(*(array.ctypes.data for array in arrays))


# ---- initial values --------------------------------------------------------------------------------------------------


class CInitializer(ctypes.Structure):
    _fields_ = [("kind", ctypes.c_int), ("low_or_mean", ctypes.c_float), ("high_or_std", ctypes.c_float),
                ("seed", ctypes.c_uint64)]  # fmt: skip


class CInitialRows(ctypes.Structure):
    _fields_ = [
        ("weights", POINTER), ("weights_type", ctypes.c_int), ("width", SIZE), ("num_slots", SIZE),
        ("slots", ctypes.POINTER(POINTER)), ("slot_widths", ctypes.POINTER(SIZE)),
        ("state", ctypes.POINTER(ctypes.c_float)),
    ]  # fmt: skip


def initial_arguments(weights, slots, *, state, kind: int, seed: int) -> tuple[CInitialRows, CInitializer]:
    """Rows of weights [.., width] and slots [.., their width], to be filled: from 0.5 to 2, or around 0.5."""
    addresses = (POINTER * len(slots))(*(slot.ctypes.data for slot in slots))
    widths = (SIZE * len(slots))(*(slot.shape[1] for slot in slots))
    to = CInitialRows(weights.ctypes.data, 0 if weights.itemsize == 4 else 2, weights.shape[1], len(slots), addresses,
                      widths, (ctypes.c_float * len(slots))(*state))  # fmt: skip
    return to, CInitializer(kind, 0.5, 2.0, seed)


def initialize(library, arguments, rows: np.ndarray, keys: np.ndarray, *, num_rows: int | None) -> int:
    """Writes the rows, on the CPU where num_rows is None. Returns the code of the call."""
    to, initializer = arguments
    pointers = ctypes.byref(to), ctypes.byref(initializer), address(rows), address(keys), SIZE(len(keys))
    if num_rows is None:
        return library.dlrm_initialize_rows(*pointers)
    outcome = COutcome(*[-7] * 5)
    code = library.dlrm_initialize_rows_cuda(*pointers, SIZE(num_rows), ctypes.byref(outcome), None)
    if outcome.num_bad:
        raise BadKey(outcome.num_bad, outcome.bad_key)
    return code
