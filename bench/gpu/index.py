"""The hash table of dynamic tables in a GPU's memory, for the GPU check: the C interface of key_index_cuda.h."""

import ctypes

import device as gpu
import numpy as np
from index_numpy import KINDS, SCORES

SIZE, CHOICE, POINTER = ctypes.c_int64, ctypes.c_int, ctypes.c_void_p
OUTCOME = ("fresh", "evicted", "listed", "num_bad", "bad_key")
EVERY_STEP = 2**63 - 1


class CIndex(ctypes.Structure):
    _fields_ = [
        ("num_buckets", SIZE), ("rows_per_bucket", SIZE), ("first_bucket", SIZE), ("last_bucket", SIZE),
        ("score", CHOICE), ("admit_after", SIZE), ("admit_probability", ctypes.c_double), ("counter", CHOICE),
        ("counter_size", SIZE), ("seed", ctypes.c_uint64), ("log_erased", CHOICE), ("padding", CHOICE),
        ("memory", POINTER),
    ]  # fmt: skip


class CScores(ctypes.Structure):
    _fields_ = [("scores", POINTER), ("stride", SIZE)]


class CCall(ctypes.Structure):
    _fields_ = [("memory", POINTER), ("bytes", SIZE), ("outcome", POINTER), ("stream", POINTER)]


class CSelection(ctypes.Structure):
    _fields_ = [("first_row", SIZE), ("num_rows", SIZE), ("before_step", SIZE), ("of_counter", CHOICE)]


class CInitialRows(ctypes.Structure):
    _fields_ = [
        ("weights", POINTER), ("weights_type", CHOICE), ("width", SIZE), ("num_slots", SIZE), ("slots", POINTER),
        ("slot_widths", POINTER), ("state", POINTER),
    ]  # fmt: skip


class CInitializer(ctypes.Structure):
    _fields_ = [
        ("kind", CHOICE), ("low_or_mean", ctypes.c_float), ("high_or_std", ctypes.c_float), ("seed", ctypes.c_uint64),
    ]  # fmt: skip


class OnDevice:
    """An index of all buckets in the GPU's memory, and memory for calls of up to `most_keys` keys."""

    def __init__(self, device, kernels: gpu.Kernels, buckets: tuple[int, int], *, score: str, most_keys: int):
        self.device, self.library = device, kernels.library
        self.index = CIndex(*buckets, 0, buckets[0], SCORES.index(score), 1, 1.0, 0, 1, 0, 0, 0, None)
        self._memory = device.poisoned(self._needed("dlrm_index_cuda_bytes") + 256)
        self.index.memory = aligned(device.address(self._memory))
        num_bytes = self._needed("dlrm_index_cuda_call_bytes", SIZE(most_keys))
        self._of_calls, self._outcome = device.poisoned(num_bytes + 256), device.poisoned(8 * len(OUTCOME))
        self._call = CCall(aligned(device.address(self._of_calls)), num_bytes, device.address(self._outcome), None)
        self.run("make", None)

    def queue_find(self, keys, count: int, rows) -> None:
        self.run("find", self._at(keys), SIZE(count), self._at(rows), ctypes.byref(self._call))

    def queue_find_or_insert(self, keys, count: int, step: int, scores, rows, *, stride: int = 0) -> None:
        given = CScores(self._at(scores), stride)
        self.run(
            "find_or_insert", self._at(keys), SIZE(count), SIZE(step), given, self._at(rows), ctypes.byref(self._call)
        )

    def queue_assign(self, keys, count: int, scores, steps, rows) -> None:
        arguments = (self._at(memory) for memory in (scores, steps, rows))
        self.run("assign", self._at(keys), SIZE(count), *arguments, ctypes.byref(self._call))

    def queue_erase(self, keys, count: int, was_stored) -> None:
        self.run("erase", self._at(keys), SIZE(count), self._at(was_stored), ctypes.byref(self._call))

    def fresh_and_evicted(self, keys, count: int) -> tuple[np.ndarray, np.ndarray]:
        """The keys that the last find_or_insert stored, and the keys that it evicted, in its order."""
        found = self.outcome()
        fresh, evicted = (self.device.poisoned(8 * max(1, found[name])) for name in ("fresh", "evicted"))
        self.run("fresh", self._at(keys), SIZE(count), None, self._at(fresh), ctypes.byref(self._call))
        lists = (POINTER * 4)(self.device.address(evicted), None, None, None)
        self.run("evicted", SIZE(count), lists, ctypes.byref(self._call))
        self.device.wait()
        return tuple(
            self.device.download(memory).view(np.int64)[: found[name]]
            for memory, name in ((fresh, "fresh"), (evicted, "evicted"))
        )

    def content(self) -> list[tuple[int, int, int]]:
        """(key, score, step) of all that is stored, sorted."""
        selection = CSelection(0, 2**62, EVERY_STEP, 0)
        self.run("count", selection, ctypes.byref(self._call))
        count = self.outcome()["listed"]
        memory = [self.device.poisoned(8 * max(1, count)) for _ in range(4)]
        self.run("list", selection, (POINTER * 4)(*map(self.device.address, memory)), ctypes.byref(self._call))
        self.device.wait()
        keys, _, scores, steps = (self.device.download(m).view(np.int64)[:count].tolist() for m in memory)
        return sorted(zip(keys, scores, steps, strict=True))

    def outcome(self) -> dict[str, int]:
        self.device.wait()
        return dict(zip(OUTCOME, self.device.download(self._outcome).view(np.int64).tolist(), strict=True))

    def first_values(self, keys: np.ndarray, width: int, *, initializer: tuple, bfloat16: bool) -> np.ndarray:
        """The bits of the first values of keys, [n, width]; initializer: (kind, low, high, seed)."""
        rows, on_device = self.device.upload(np.arange(len(keys))), self.device.upload(keys)
        weights = self.device.poisoned(len(keys) * width * (2 if bfloat16 else 4))
        to = CInitialRows(self.device.address(weights), 2 if bfloat16 else 0, width, 0, None, None, None)
        c_initializer = CInitializer(KINDS.index(initializer[0]), *initializer[1:])
        self._check(self.library.dlrm_initialize_rows_cuda(
            ctypes.byref(to), ctypes.byref(c_initializer), self._at(rows), self._at(on_device), SIZE(len(keys)),
            SIZE(len(keys)), self._at(self._outcome), None,
        ))  # fmt: skip
        self.device.wait()
        return self.device.download(weights).view(np.uint16 if bfloat16 else np.uint32).reshape(-1, width)

    def run(self, name: str, *arguments) -> None:
        self._check(getattr(self.library, f"dlrm_index_{name}_cuda")(ctypes.byref(self.index), *arguments))

    def _at(self, memory) -> ctypes.c_void_p:
        return POINTER(self.device.address(memory))

    def _needed(self, name: str, *arguments) -> int:
        needed = SIZE()
        self._check(getattr(self.library, name)(ctypes.byref(self.index), *arguments, ctypes.byref(needed)))
        return needed.value

    def _check(self, code: int) -> None:
        if code != 0:
            self.library.dlrm_error_text.restype = ctypes.c_char_p
            raise RuntimeError(f"the kernels could not be queued: {self.library.dlrm_error_text(code).decode()}")


def aligned(address: int) -> int:
    return address + -address % 256
