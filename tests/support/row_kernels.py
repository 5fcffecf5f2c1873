"""The embedding rows' kernels through ctypes, and the same computations in numpy, occurrence by occurrence."""

import ctypes
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import ml_dtypes
import numpy as np

from dlrm_tf2 import ops

POINTER, SIZE, CHOICE = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int
ELEMENT_TYPES = {"float32": 0, "float16": 1, "bfloat16": 2}
KINDS = {"sgd": 0, "adagrad": 1, "rowwise_adagrad": 2, "adam": 3}
CHUNK = 256  # occurrences of a row that are summed one after the other
GAMMA = 0x9E3779B97F4A7C15
WORD = 2**64 - 1


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


class CBadId(ctypes.Structure):
    _fields_ = [("bags", SIZE), ("sample", SIZE), ("id", SIZE)]


class COptimizer(ctypes.Structure):
    _fields_ = [
        ("kind", CHOICE), ("learning_rate", ctypes.c_float), ("epsilon", ctypes.c_float),
        ("beta1", ctypes.c_double), ("beta2", ctypes.c_double), ("step", SIZE),
    ]  # fmt: skip


TASK = ctypes.CFUNCTYPE(None, POINTER, SIZE)
PARALLEL_FOR = ctypes.CFUNCTYPE(None, POINTER, SIZE, POINTER, POINTER)


class BadId(Exception):
    """args: bags, sample, id."""


def dtype_of(name: str) -> np.dtype:
    return np.dtype(ml_dtypes.bfloat16 if name == "bfloat16" else name)


@dataclass
class Shard:
    first_row: int
    table_row: int
    table_column: int
    key: int


@dataclass
class Rows:
    """A slab: weights [rows, width] and its slots, each [rows, width], for rowwise_adagrad [rows, 1]."""

    weights: np.ndarray
    slots: list = field(default_factory=list)
    shards: list = field(default_factory=list)


@dataclass
class Bags:
    """The bags of one piece; vectors [samples, width] may be a part of the columns of an array."""

    slab: int
    ids: np.ndarray  # [samples, hotness], any strides between samples; with row_splits [n]
    vectors: np.ndarray
    num_ids: int
    first_row: int = 0
    shard: tuple = None  # (first, last) ids of the shard, all if None
    row_splits: np.ndarray = None
    weights: np.ndarray = None
    mean: bool = False

    @property
    def ids_of_shard(self):
        return self.shard or (0, self.num_ids)

    def of_samples(self):
        """(ids, weights or None) of each sample."""
        if self.row_splits is not None:
            bounds = list(zip(self.row_splits, self.row_splits[1:], strict=False))
            ids = [self.ids[a:b] for a, b in bounds]
        else:
            hotness = self.ids.shape[1]
            ids, bounds = list(self.ids), [(s * hotness, (s + 1) * hotness) for s in range(len(self.ids))]
        return [(i, None if self.weights is None else self.weights[a:b]) for i, (a, b) in zip(ids, bounds, strict=True)]


@dataclass
class Step:
    kind: str
    learning_rate: float = 0.1
    epsilon: float = 1e-8
    beta1: float = 0.9
    beta2: float = 0.999
    step: int = 1


def library() -> ctypes.CDLL:
    found = ops.kernels()
    found.dlrm_embedding_workspace_new.restype = POINTER
    found.dlrm_embedding_workspace_delete.argtypes = [POINTER]
    arrays = [ctypes.POINTER(CSlab), SIZE, ctypes.POINTER(CBags), SIZE]
    found.dlrm_embedding_lookup_cpu.argtypes = [*arrays, SIZE, SIZE, CHOICE, CHOICE, ctypes.POINTER(CBadId)]
    found.dlrm_embedding_update_cpu.argtypes = [
        *arrays, ctypes.POINTER(COptimizer), CHOICE, CHOICE, POINTER, PARALLEL_FOR, POINTER, SIZE,
        ctypes.POINTER(CHOICE), ctypes.POINTER(CBadId),
    ]  # fmt: skip
    found.dlrm_embedding_sum_cpu.argtypes = [
        ctypes.POINTER(CSlab), ctypes.POINTER(CBags), SIZE, CHOICE, CHOICE, POINTER, PARALLEL_FOR, POINTER, SIZE,
        ctypes.POINTER(SIZE), ctypes.POINTER(CBadId),
    ]  # fmt: skip
    found.dlrm_embedding_sums.argtypes = [POINTER] * 3
    found.dlrm_embedding_sums.restype = None
    return found


def c_arrays(slabs, bags):
    """The structures of the C interface, and what must live as long as they."""
    kept = []
    c_slabs, c_bags = (CSlab * max(1, len(slabs)))(), (CBags * max(1, len(bags)))()
    for to, slab in zip(c_slabs, slabs, strict=False):
        shards = (CShard * max(1, len(slab.shards)))(
            *(CShard(s.first_row, s.table_row, s.table_column, s.key) for s in slab.shards)
        )
        kept.append(shards)
        to.weights, to.num_rows, to.width = slab.weights.ctypes.data, *slab.weights.shape
        for number, slot in enumerate(slab.slots):
            to.slots[number] = slot.ctypes.data
        to.weights_type = 0 if slab.weights.dtype == np.float32 else 2
        to.shards, to.num_shards = shards, len(slab.shards)
    for to, of in zip(c_bags, bags, strict=False):
        first, last = of.ids_of_shard
        to.slab, to.first_row, to.num_ids, to.first_id, to.last_id = of.slab, of.first_row, of.num_ids, first, last
        to.ids, to.ids_type = of.ids.ctypes.data, 0 if of.ids.dtype == np.int32 else 1
        if of.row_splits is None:
            to.hotness, to.sample_stride = of.ids.shape[1], of.ids.strides[0] // of.ids.itemsize
            assert of.ids.shape[1] == 1 or not len(of.ids) or of.ids.strides[1] == of.ids.itemsize
        else:
            to.hotness, to.row_splits, to.all_ids = -1, of.row_splits.ctypes.data, of.row_splits[-1]
        to.weights = None if of.weights is None else of.weights.ctypes.data
        to.mean, to.vectors = of.mean, of.vectors.ctypes.data
        to.vector_stride, to.num_samples = of.vectors.strides[0] // of.vectors.itemsize, len(of.vectors)
    return c_slabs, c_bags, kept


def type_of(bags):
    dtype = bags[0].vectors.dtype if bags else np.dtype("float32")
    return ELEMENT_TYPES[dtype.name]


def lookup(slabs, bags, *, samples=None, instruction_set=-1):
    """Fills the vectors of the bags, of samples (first, last) or of all."""
    c_slabs, c_bags, kept = c_arrays(slabs, bags)
    first, last = samples or (0, len(bags[0].vectors))
    bad = CBadId()
    code = library().dlrm_embedding_lookup_cpu(
        c_slabs, len(slabs), c_bags, len(bags), first, last, type_of(bags), instruction_set, bad
    )
    del kept
    if code == 5:
        raise BadId(bad.bags, bad.sample, bad.id)
    assert code == 0, code


class Workspace:
    def __enter__(self):
        self.library = library()
        self.pointer = self.library.dlrm_embedding_workspace_new()
        return self

    def __exit__(self, *_):
        self.library.dlrm_embedding_workspace_delete(self.pointer)

    def update(self, slabs, bags, step: Step, *, instruction_set=-1, num_threads=1) -> bool:
        """Updates the slabs by the gradients in the bags' vectors; returns whether all numbers are finite."""
        c_slabs, c_bags, kept = c_arrays(slabs, bags)
        bad, finite = CBadId(), CHOICE(-1)
        optimizer = COptimizer(KINDS[step.kind], step.learning_rate, step.epsilon, step.beta1, step.beta2, step.step)

        def parallel_for(_, count, task, state):
            call = ctypes.cast(task, TASK)
            if num_threads == 1:
                for index in range(count):
                    call(state, index)
            else:
                with ThreadPoolExecutor(num_threads) as pool:
                    list(pool.map(lambda index: call(state, index), range(count)))

        code = self.library.dlrm_embedding_update_cpu(
            c_slabs, len(slabs), c_bags, len(bags), optimizer, type_of(bags), instruction_set, self.pointer,
            PARALLEL_FOR(parallel_for), None, num_threads, ctypes.byref(finite), bad,
        )  # fmt: skip
        del kept
        if code == 5:
            raise BadId(bad.bags, bad.sample, bad.id)
        assert code == 0, code
        return bool(finite.value)

    def sum_by_row(self, slab, bags) -> tuple[np.ndarray, np.ndarray]:
        """(rows, sums) of the gradients in the bags' vectors."""
        c_slabs, c_bags, kept = c_arrays([slab], bags)
        bad, count = CBadId(), SIZE()

        def one_by_one(_, count, task, state):
            for index in range(count):
                ctypes.cast(task, TASK)(state, index)

        code = self.library.dlrm_embedding_sum_cpu(
            c_slabs, c_bags, len(bags), type_of(bags), -1, self.pointer, PARALLEL_FOR(one_by_one), None, 1,
            ctypes.byref(count), bad,
        )  # fmt: skip
        del kept
        assert code == 0, code
        rows, sums = np.empty(count.value, np.int64), np.empty((count.value, c_slabs[0].width), np.float32)
        self.library.dlrm_embedding_sums(self.pointer, rows.ctypes.data, sums.ctypes.data)
        return rows, sums


# ---- the same in numpy -----------------------------------------------------------------------------------------------


def factors_of(bag: Bags, weights, count: int) -> np.ndarray:
    """float32 [count], the factors of a sample's ids."""
    each = np.ones(count, np.float32) if weights is None else weights.astype(np.float32)
    if not bag.mean:
        return each
    total = np.float32(0)
    for weight in each:
        total += weight
    return np.zeros(count, np.float32) if total == 0 else each / total


def numpy_lookup(slabs, bags) -> list[np.ndarray]:
    """The vectors of the bags, float32 [samples, width] each, before they are rounded to their type."""
    results = []
    for bag in bags:
        table = slabs[bag.slab].weights
        result = np.zeros((len(bag.vectors), table.shape[1]), np.float32)
        for sample, (ids, weights) in enumerate(bag.of_samples()):
            total = None
            for one, factor in zip(ids, factors_of(bag, weights, len(ids)), strict=True):
                if bag.ids_of_shard[0] <= one < bag.ids_of_shard[1]:
                    row = table[bag.first_row + one].astype(np.float32) * factor
                    total = row if total is None else total + row
            result[sample] = 0 if total is None else total
        results.append(result)
    return results


def numpy_update(slabs, bags, step: Step) -> None:
    """Updates the slabs in place."""
    for number, slab in enumerate(slabs):
        for row, gradient in numpy_sums(bags, number).items():
            _update_row(slab, row, gradient, step)


def numpy_sums(bags, slab: int) -> dict[int, np.ndarray]:
    """row of the slab -> the sum of its gradients, for the rows that occur."""
    occurrences = {}
    for bag in bags:
        if bag.slab != slab:
            continue
        gradients = bag.vectors.astype(np.float32)
        for sample, (ids, weights) in enumerate(bag.of_samples()):
            for one, factor in zip(ids, factors_of(bag, weights, len(ids)), strict=True):
                if bag.ids_of_shard[0] <= one < bag.ids_of_shard[1]:
                    of_row = occurrences.setdefault(int(bag.first_row + one), [])
                    of_row.append(gradients[sample] * factor)
    return {row: _chunked_sum(gradients) for row, gradients in occurrences.items()}


def _chunked_sum(gradients):
    total = None
    for start in range(0, len(gradients), CHUNK):
        part = gradients[start]
        for gradient in gradients[start + 1 : start + CHUNK]:
            part = part + gradient
        total = part if total is None else total + part
    return total


def _update_row(slab, row, g, step):
    f = np.float32
    rate, epsilon = f(step.learning_rate), f(step.epsilon)
    if step.kind == "sgd":
        change = g * rate
    elif step.kind == "adagrad":
        slab.slots[0][row] += g * g
        change = g / (np.sqrt(slab.slots[0][row]) + epsilon) * rate
    elif step.kind == "rowwise_adagrad":
        sums = np.zeros(16, f)
        for column, value in enumerate(g * g):
            sums[column % 16] += value
        for half in (8, 4, 2, 1):
            sums[:half] += sums[half : 2 * half]
        slab.slots[0][row] += sums[0] / f(len(g))
        change = g / (np.sqrt(slab.slots[0][row]) + epsilon) * rate
    else:
        first = f(step.beta1) * slab.slots[0][row] + f(1 - step.beta1) * g
        second = f(step.beta2) * slab.slots[1][row] + f(1 - step.beta2) * (g * g)
        slab.slots[0][row], slab.slots[1][row] = first, second
        corrections = [f(-np.expm1(step.step * np.log(beta))) for beta in (step.beta1, step.beta2)]
        change = first / corrections[0] / (np.sqrt(second / corrections[1]) + epsilon) * rate
    weights = slab.weights[row].astype(f) - change
    if slab.weights.dtype != f:
        weights = rounded(weights, random_of(slab, row, step.step))
    slab.weights[row] = weights


def mix64(z: int) -> int:
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & WORD
    z = (z ^ z >> 27) * 0x94D049BB133111EB & WORD
    return z ^ z >> 31


def random_of(slab, row: int, step: int) -> np.ndarray:
    """uint32 [width], the random bits of a row in a step."""
    shard = [shard for shard in slab.shards if shard.first_row <= row][-1]
    of_step = mix64(shard.key + step * GAMMA & WORD)
    row_key = mix64(of_step + (row - shard.first_row + shard.table_row) * GAMMA & WORD) & 0xFFFFFFFF
    bits = []
    for column in range(slab.weights.shape[1]):
        h = ((shard.table_column + column) * 0x9E3779B9 + row_key) & 0xFFFFFFFF
        h = (h ^ h >> 16) * 0x85EBCA6B & 0xFFFFFFFF
        h = (h ^ h >> 13) * 0xC2B2AE35 & 0xFFFFFFFF
        bits.append(h ^ h >> 16)
    return np.array(bits, np.uint32)


def rounded(weights: np.ndarray, random: np.ndarray) -> np.ndarray:
    """float32 finite -> bfloat16, up with the probability of what is cut off."""
    bits = weights.astype(np.float32).view(np.uint32) + (random >> 16)
    return (bits >> 16).astype(np.uint16).view(ml_dtypes.bfloat16)
