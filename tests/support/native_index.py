"""The C interface of the hash table (ops/src/hash_table/key_index.h), called with any number of threads."""

import ctypes
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from support.row_kernels import PARALLEL_FOR, TASK

from dlrm_tf2 import ops
from dlrm_tf2.ops.hash_table import SCORES, IndexRules
from dlrm_tf2.sharding.buckets import Buckets

SIZE, POINTER = ctypes.c_int64, ctypes.c_void_p


class CBuckets(ctypes.Structure):
    _fields_ = [(name, SIZE) for name in ("num_buckets", "rows_per_bucket", "first_bucket", "last_bucket")]


class CRules(ctypes.Structure):
    _fields_ = [
        ("score", ctypes.c_int), ("admit_after", SIZE), ("admit_probability", ctypes.c_double),
        ("counter", ctypes.c_int), ("counter_size", SIZE), ("seed", ctypes.c_uint64), ("log_erased", ctypes.c_int),
    ]  # fmt: skip


class CScores(ctypes.Structure):
    _fields_ = [("scores", POINTER), ("stride", SIZE)]


class NativeIndex:
    """An index of all buckets. `num_threads` work on every call."""

    def __init__(self, buckets: Buckets, rules: IndexRules, num_threads: int):
        self.library, self.num_threads = ops.kernels(), num_threads
        self.library.dlrm_index_new.restype = POINTER
        self.library.dlrm_index_export.restype = SIZE
        for name in ("delete", "fresh", "listed"):
            getattr(self.library, f"dlrm_index_{name}").restype = None
        self._parallel_for = PARALLEL_FOR(self._in_threads)
        counter = ("exact", "sketch").index(rules.counter[0])
        c_rules = CRules(SCORES.index(rules.score), rules.admit_after, rules.admit_probability, counter,
                         rules.counter[1], rules.seed, rules.log_erased)  # fmt: skip
        c_buckets = CBuckets(*buckets, 0, buckets.num_buckets)
        self.index = POINTER(self.library.dlrm_index_new(ctypes.byref(c_buckets), ctypes.byref(c_rules)))
        assert self.index.value
        self.num_rows = buckets.num_rows

    def delete(self) -> None:
        self.library.dlrm_index_delete(self.index)

    def find_or_insert(self, keys: np.ndarray, step: int, scores: np.ndarray) -> list[np.ndarray]:
        """[rows, fresh rows, fresh keys, evicted keys, evicted rows, evicted scores]."""
        rows, changes, bad_key = np.full(len(keys), -7), np.zeros(2, np.int64), SIZE()
        code = self.library.dlrm_index_find_or_insert(
            self.index, address(keys), SIZE(len(keys)), SIZE(step), CScores(address(scores), scores.ndim),
            address(rows), self._parallel_for, None, SIZE(self.num_threads), address(changes), ctypes.byref(bad_key),
        )  # fmt: skip
        assert code == 0, code
        fresh, evicted = np.empty((2, changes[0]), np.int64), np.empty((3, changes[1]), np.int64)
        self.library.dlrm_index_fresh(self.index, address(fresh[0]), address(fresh[1]))
        self.library.dlrm_index_listed(self.index, *map(address, evicted), None)
        return [rows, *fresh, *evicted]

    def find(self, keys: np.ndarray) -> np.ndarray:
        """The row of each key."""
        rows = np.full(len(keys), -7)
        code = self.library.dlrm_index_find(
            self.index, address(keys), SIZE(len(keys)), address(rows), ctypes.byref(SIZE())
        )
        assert code == 0, code
        return rows

    def assign(self, keys: np.ndarray, scores: np.ndarray, steps: np.ndarray) -> np.ndarray:
        """The row of each key."""
        rows = np.full(len(keys), -7)
        code = self.library.dlrm_index_assign(
            self.index, address(keys), SIZE(len(keys)), address(scores), address(steps), address(rows),
            self._parallel_for, None, SIZE(self.num_threads), ctypes.byref(SIZE()),
        )  # fmt: skip
        assert code == 0, code
        return rows

    def erase(self, keys: np.ndarray) -> np.ndarray:
        """Whether each key was stored."""
        were_stored = np.full(len(keys), 7, np.uint8)
        code = self.library.dlrm_index_erase(
            self.index, address(keys), SIZE(len(keys)), address(were_stored), self._parallel_for, None,
            SIZE(self.num_threads), ctypes.byref(SIZE()),
        )  # fmt: skip
        assert code == 0, code
        return were_stored

    def export(self) -> np.ndarray:
        """[keys, rows, scores, steps] of all that is stored."""
        count = self.library.dlrm_index_export(self.index, SIZE(0), SIZE(self.num_rows))
        lists = np.empty((4, count), np.int64)
        self.library.dlrm_index_listed(self.index, *map(address, lists))
        return lists

    def _in_threads(self, _, count, task, state):
        call = ctypes.cast(task, TASK)
        if self.num_threads == 1:
            for index in range(count):
                call(state, index)
        else:
            with ThreadPoolExecutor(self.num_threads) as pool:
                list(pool.map(lambda index: call(state, index), range(count)))


def address(array: np.ndarray) -> ctypes.c_void_p:
    return POINTER(array.ctypes.data)
