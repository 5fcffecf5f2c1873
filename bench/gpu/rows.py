"""Embedding rows for the GPU check: cases, the C interface that takes them, and the same computations in numpy."""

import ctypes
from dataclasses import dataclass

import device as gpu
import numpy as np

SIZE, CHOICE, POINTER = ctypes.c_int64, ctypes.c_int, ctypes.c_void_p
KINDS = {"sgd": 0, "adagrad": 1, "rowwise_adagrad": 2, "adam": 3}
SLOTS = {"sgd": 0, "adagrad": 1, "rowwise_adagrad": 1, "adam": 2}
CHUNK = 256  # occurrences of a row that are summed one after the other
LEARNING_RATE, EPSILON, BETAS = 0.1, 1e-8, (0.9, 0.999)
GAMMA = np.uint64(0x9E3779B97F4A7C15)


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


def stored(values: np.ndarray, dtype: str) -> np.ndarray:
    if dtype != "bfloat16":
        return values.astype(dtype)
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)


def widened(values: np.ndarray) -> np.ndarray:
    if values.dtype == np.uint16:
        return (values.astype(np.uint32) << 16).view(np.float32)
    return values.astype(np.float32)


# ---- the C interface -------------------------------------------------------------------------------------------------


def ready(library: ctypes.CDLL) -> ctypes.CDLL:
    for name, choices in (("lookup", [CHOICE]), ("update", [POINTER, CHOICE])):
        arrays = [POINTER, SIZE] * 2
        getattr(library, f"dlrm_embedding_{name}_cuda_bytes").argtypes = [*arrays, POINTER]
        getattr(library, f"dlrm_embedding_{name}_cuda").argtypes = [*arrays, *choices, POINTER, SIZE, POINTER, POINTER]
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

    def _check(self, code: int) -> None:
        if code != 0:
            raise RuntimeError(f"the kernels could not be queued: {self.library.dlrm_error_text(code).decode()}")


# ---- numpy -----------------------------------------------------------------------------------------------------------


def ordered_sums(group: np.ndarray, num_groups: int, vectors) -> np.ndarray:
    """float32 [num_groups, width]: for each group the sum of its vectors(indices), one after the other."""
    order = np.argsort(group, kind="stable")
    counts = np.bincount(group, minlength=num_groups)
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]]).astype(np.int64)
    width = vectors(order[:1]).shape[1] if len(order) else 1
    sums = np.zeros((num_groups, width), np.float32)
    for k in range(counts.max(initial=0)):
        busy = np.flatnonzero(counts > k)
        values = vectors(order[starts[busy] + k])
        sums[busy] = values if k == 0 else sums[busy] + values
    return sums


def lookup(case: Case) -> np.ndarray:
    """What the vectors become, as bits."""
    result = np.empty_like(case.vectors)
    for number, piece in enumerate(case.pieces):
        sample, row, factor = piece.occurrences()
        pooled = ordered_sums(
            sample, len(result), lambda i, row=row, factor=factor: widened(case.weights[row[i]]) * factor[i, None]
        )
        columns = slice(number * case.width, (number + 1) * case.width)
        result[:, columns] = stored(np.broadcast_to(pooled, (len(result), case.width)), case.dtype)
    return result


def update(case: Case) -> tuple[np.ndarray, list[np.ndarray]]:
    """(weights, slots) after the step."""
    found = [piece.occurrences() for piece in case.pieces]
    sample, row, factor = (np.concatenate(parts) for parts in zip(*found, strict=True))
    piece = np.repeat(np.arange(len(found)), [len(part[0]) for part in found])
    vectors = case.vectors.reshape(len(case.vectors), len(case.pieces), case.width)
    rows, group = np.unique(row, return_inverse=True)
    order = np.argsort(group, kind="stable")
    starts = np.searchsorted(group[order], np.arange(len(rows)))
    position = np.empty(len(order), np.int64)
    position[order] = np.arange(len(order)) - starts[group[order]]
    # Chunks are numbered so that those of a row follow each other.
    chunks = (np.bincount(group, minlength=len(rows)) + CHUNK - 1) // CHUNK
    first_chunk = np.concatenate([[0], np.cumsum(chunks)])
    sums = ordered_sums(first_chunk[group] + position // CHUNK, first_chunk[-1],
                        lambda i: widened(vectors[sample[i], piece[i]]) * factor[i, None])  # fmt: skip
    gradients = ordered_sums(np.repeat(np.arange(len(rows)), chunks), len(rows), lambda i: sums[i])
    weights, slots = case.weights.copy(), [slot.copy() for slot in case.slots]
    before = widened(weights[rows])
    after = before - _changes(case, rows, gradients, slots)
    weights[rows] = after if weights.dtype == np.float32 else _rounded(case, rows, after)
    return weights, slots


def _changes(case, rows, g, slots):
    f = np.float32
    if case.kind == "sgd":
        return g * f(LEARNING_RATE)
    if case.kind == "adam":
        b1, b2 = BETAS
        first = f(b1) * slots[0][rows] + f(1 - b1) * g
        second = f(b2) * slots[1][rows] + f(1 - b2) * (g * g)
        slots[0][rows], slots[1][rows] = first, second
        c1, c2 = (f(-np.expm1(case.step * np.log(beta))) for beta in BETAS)
        return first / c1 / (np.sqrt(second / c2) + f(EPSILON)) * f(LEARNING_RATE)
    squares = g * g
    if case.kind == "rowwise_adagrad":
        sums = np.zeros((len(rows), 16), f)
        for column in range(g.shape[1]):
            sums[:, column % 16] += squares[:, column]
        for half in (8, 4, 2, 1):
            sums[:, :half] += sums[:, half : 2 * half]
        squares = sums[:, :1] / f(g.shape[1])
    slots[0][rows] += squares
    return g / (np.sqrt(slots[0][rows]) + f(EPSILON)) * f(LEARNING_RATE)


def _mix64(z):
    z = (z ^ z >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ z >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return z ^ z >> np.uint64(31)


def _rounded(case, rows, values):
    """Finite float32 -> bits of bfloat16, with the random bits of the case's only shard."""
    with np.errstate(over="ignore"):
        of_step = _mix64(np.array([case.key], np.uint64) + np.uint64(case.step) * GAMMA)
        keys = _mix64(of_step + (rows + 7).astype(np.uint64) * GAMMA).astype(np.uint32)
        h = (np.arange(case.width, dtype=np.uint32) + np.uint32(5)) * np.uint32(0x9E3779B9) + keys[:, None]
        h = (h ^ h >> np.uint32(16)) * np.uint32(0x85EBCA6B)
        h = (h ^ h >> np.uint32(13)) * np.uint32(0xC2B2AE35)
        bits = values.view(np.uint32) + ((h ^ h >> np.uint32(16)) >> np.uint32(16))
    return (bits >> np.uint32(16)).astype(np.uint16)
