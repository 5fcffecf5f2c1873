"""Embedding rows for the GPU check: cases, and the C interface that takes them."""

import ctypes
from dataclasses import dataclass

import device as gpu
import numpy as np
from rows_numpy import BETAS, EPSILON, LEARNING_RATE, ordered_sums

SIZE, CHOICE, POINTER = ctypes.c_int64, ctypes.c_int, ctypes.c_void_p
KINDS = {"sgd": 0, "adagrad": 1, "rowwise_adagrad": 2, "adam": 3}
SLOTS = {"sgd": 0, "adagrad": 1, "rowwise_adagrad": 1, "adam": 2}


class CShard(ctypes.Structure):
    _fields_ = [("first_row", SIZE), ("table_row", SIZE), ("table_column", SIZE), ("key", ctypes.c_uint64)]


class CSlab(ctypes.Structure):
    _fields_ = [
        ("weights", POINTER), ("slots", POINTER * 2), ("num_rows", SIZE), ("width", SIZE), ("weights_type", CHOICE),
        ("shards", ctypes.POINTER(CShard)), ("num_shards", SIZE),
    ]  # fmt: skip


class CBags(ctypes.Structure):
    _fields_ = [
        ("slab", SIZE), ("first_row", SIZE), ("num_ids", SIZE), ("first_id", SIZE), ("last_id", SIZE),
        ("ids", POINTER), ("ids_type", CHOICE), ("hotness", SIZE), ("sample_stride", SIZE), ("row_splits", POINTER),
        ("weights", POINTER), ("mean", CHOICE), ("vectors", POINTER), ("vector_stride", SIZE), ("num_samples", SIZE),
        ("all_ids", SIZE),
    ]  # fmt: skip


class COptimizer(ctypes.Structure):
    _fields_ = [
        ("kind", CHOICE), ("learning_rate", ctypes.c_float), ("epsilon", ctypes.c_float),
        ("beta1", ctypes.c_double), ("beta2", ctypes.c_double), ("step", SIZE),
    ]  # fmt: skip


@dataclass
class Piece:
    """The bags of one table of the slab: `num_rows` rows from `first_row` on; an id is a row of the table."""

    first_row: int
    num_rows: int
    ids: np.ndarray  # int32 or int64 [samples, hotness], or [n] with splits
    splits: np.ndarray | None = None  # int64 [samples + 1]
    weights: np.ndarray | None = None  # float32, of each id
    mean: bool = False

    def occurrences(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(sample, row of the slab, float32 factor) of each id."""
        samples = len(self.ids) if self.splits is None else len(self.splits) - 1
        sizes = np.full(samples, self.ids.shape[-1]) if self.splits is None else np.diff(self.splits)
        sample = np.repeat(np.arange(samples), sizes)
        factors = np.ones(len(sample), np.float32) if self.weights is None else self.weights
        if self.mean:
            totals = ordered_sums(sample, samples, lambda i: factors[i, None])[sample, 0]
            factors = np.divide(factors, totals, out=np.zeros_like(factors), where=totals != 0)
        return sample, self.first_row + self.ids.reshape(-1).astype(np.int64), factors


@dataclass
class Case:
    """One slab with the state of an optimizer, and pieces whose vectors are columns of one array, as bits."""

    kind: str
    dtype: str  # of the vectors
    table_dtype: str
    weights: np.ndarray  # float32, or uint16 with the bits of bfloat16 [rows, width]
    slots: list[np.ndarray]
    pieces: list[Piece]
    vectors: np.ndarray  # [samples, pieces * width]
    step: int = 3
    key: int = 0x1234567890ABCDEF

    @property
    def width(self) -> int:
        return self.weights.shape[1]


# ---- the C interface -------------------------------------------------------------------------------------------------


def ready(library: ctypes.CDLL) -> ctypes.CDLL:
    for name, choices in (("lookup", [CHOICE]), ("update", [POINTER, CHOICE])):
        arrays = [POINTER, SIZE] * 2
        getattr(library, f"dlrm_embedding_{name}_cuda_bytes").argtypes = [*arrays, POINTER]
        getattr(library, f"dlrm_embedding_{name}_cuda").argtypes = [*arrays, *choices, POINTER, SIZE, POINTER, POINTER]
    of_slab = [POINTER, POINTER, SIZE]
    library.dlrm_embedding_sum_cuda.argtypes = [*of_slab, POINTER, SIZE, *[POINTER] * 3]
    library.dlrm_embedding_sums_cuda.argtypes = [*of_slab, CHOICE, POINTER, SIZE, *[POINTER] * 3]
    return library


class OnDevice:
    """A case in the GPU's memory, with what the calls need."""

    def __init__(self, device, kernels: gpu.Kernels, case: Case):
        self.device, self.library, self.case = device, ready(kernels.library), case
        self.weights, self.vectors = device.upload(case.weights), device.upload(case.vectors)
        self.slots = [device.upload(slot) for slot in case.slots]
        self.status = device.upload(np.zeros(4, np.int64))
        self._kept = []
        self._shard = CShard(0, 7, 5, case.key)
        addresses = [device.address(slot) for slot in self.slots] + [None] * (2 - len(self.slots))
        weights_type = gpu.DTYPES[case.table_dtype]
        self.slab = CSlab(device.address(self.weights), (POINTER * 2)(*addresses), *case.weights.shape, weights_type,
                          ctypes.pointer(self._shard), 1)  # fmt: skip
        self.bags = (CBags * len(case.pieces))(*(self._bags(i, piece) for i, piece in enumerate(case.pieces)))
        self.optimizer = COptimizer(KINDS[case.kind], LEARNING_RATE, EPSILON, *BETAS, case.step)

    def _put(self, values: np.ndarray | None) -> int | None:
        if values is None:
            return None
        self._kept.append(self.device.upload(values))
        return self.device.address(self._kept[-1])

    def _bags(self, number: int, piece: Piece) -> CBags:
        ragged, case = piece.splits is not None, self.case
        hotness = -1 if ragged else piece.ids.shape[1]
        vectors = self.device.address(self.vectors) + number * case.width * case.vectors.itemsize
        return CBags(0, piece.first_row, piece.num_rows, 0, piece.num_rows, self._put(piece.ids),
                     0 if piece.ids.dtype == np.int32 else 1, hotness, hotness, self._put(piece.splits),
                     self._put(piece.weights), piece.mean, vectors, case.vectors.shape[1], len(case.vectors),
                     len(piece.ids))  # fmt: skip

    def memory_for(self, name: str) -> tuple:
        """(memory that `name`, lookup or update, needs; its bytes)."""
        needed = SIZE()
        arrays = ctypes.byref(self.slab), 1, self.bags, len(self.bags)
        self._check(getattr(self.library, f"dlrm_embedding_{name}_cuda_bytes")(*arrays, ctypes.byref(needed)))
        return self.device.poisoned(needed.value + 256), needed.value

    def queue(self, name: str, memory: tuple) -> None:
        start = self.device.address(memory[0])
        optimizer = [ctypes.byref(self.optimizer)] if name == "update" else []
        arrays = ctypes.byref(self.slab), 1, self.bags, len(self.bags)
        self._check(getattr(self.library, f"dlrm_embedding_{name}_cuda")(
            *arrays, *optimizer, gpu.DTYPES[self.case.dtype], start + -start % 256, memory[1],
            self.device.address(self.status), None,
        ))  # fmt: skip

    def sums(self) -> tuple[np.ndarray, np.ndarray]:
        """(rows that occur, ascending; the sums of their gradients, float32)."""
        memory, num_bytes = self.memory_for("update")
        start, count = self.device.address(memory), self.device.upload(np.full(1, -1, np.int64))
        arrays = ctypes.byref(self.slab), self.bags, len(self.bags)
        given, status = (start + -start % 256, num_bytes), self.device.address(self.status)
        self._check(self.library.dlrm_embedding_sum_cuda(*arrays, *given, self.device.address(count), status, None))
        self.device.wait()
        num_rows = int(self.device.download(count).view(np.int64)[0])
        rows, sums = self.device.poisoned(8 * num_rows), self.device.poisoned(4 * num_rows * self.case.width)
        self._check(self.library.dlrm_embedding_sums_cuda(
            *arrays, gpu.DTYPES[self.case.dtype], *given, self.device.address(rows), self.device.address(sums), None
        ))  # fmt: skip
        self.device.wait()
        found = self.device.download(rows).view(np.int64)
        order = np.argsort(found)
        return found[order], self.device.download(sums).view(np.float32).reshape(-1, self.case.width)[order]

    def _check(self, code: int) -> None:
        if code != 0:
            raise RuntimeError(f"the kernels could not be queued: {self.library.dlrm_error_text(code).decode()}")
