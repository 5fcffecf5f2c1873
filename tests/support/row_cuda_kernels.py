"""The embedding rows' CUDA kernels through ctypes, run on the processor by cuda_emulator.h, and cases for them."""

import ctypes
import subprocess
from pathlib import Path

import numpy as np
from support.row_kernels import (
    CHOICE,
    KINDS,
    POINTER,
    SIZE,
    BadId,
    Bags,
    CBadId,
    CBags,
    COptimizer,
    CSlab,
    Rows,
    Shard,
    Step,
    c_arrays,
    dtype_of,
    type_of,
)

HERE, SOURCE = Path(__file__).parent, Path(__file__).parents[2] / "dlrm_tf2" / "ops" / "src"
SHARED_BYTES = 227 * 1024
GUARD = 256


class CStatus(ctypes.Structure):
    _fields_ = [("found_bad_id", ctypes.c_int32), ("not_finite", ctypes.c_int32), ("bad_id", CBadId)]


class Refused(Exception):
    """args: the code."""


def build(folder: Path) -> ctypes.CDLL:
    """Compiles the kernels' own text for the processor; some seconds."""
    path = folder / "librows.so"
    engine = SOURCE / "embedding_rows"
    sources = [
        HERE / "cuda_emulator" / "emulated_rows.cc", engine / "lookup_cpu.cc", engine / "embedding_rows_cpu_scalar.cc",
        SOURCE / "instruction_sets.cc", SOURCE / "errors.cc",
    ]  # fmt: skip
    # A GPU refuses a pack that is not aligned; so does this.
    strict = ["-ffp-contract=off", "-fsanitize=alignment", "-fsanitize-undefined-trap-on-error"]
    options = ["-O1", "-std=c++17", "-fPIC", "-shared", *strict]
    subprocess.run(["g++", *options, "-I", SOURCE, "-o", path, *sources], check=True)
    found = ctypes.CDLL(str(path))
    arrays = [ctypes.POINTER(CSlab), SIZE, ctypes.POINTER(CBags), SIZE]
    last = [POINTER, SIZE, ctypes.POINTER(CStatus), POINTER]
    found.dlrm_embedding_lookup_cuda.argtypes = [*arrays, CHOICE, *last]
    found.dlrm_embedding_update_cuda.argtypes = [*arrays, ctypes.POINTER(COptimizer), CHOICE, *last]
    for name in ("lookup", "update"):
        getattr(found, f"dlrm_embedding_{name}_cuda_bytes").argtypes = [*arrays, ctypes.POINTER(SIZE)]
    of_slab = [ctypes.POINTER(CSlab), ctypes.POINTER(CBags), SIZE]
    found.dlrm_embedding_sum_cuda.argtypes = [*of_slab, POINTER, SIZE, POINTER, ctypes.POINTER(CStatus), POINTER]
    found.dlrm_embedding_sums_cuda.argtypes = [*of_slab, CHOICE, POINTER, SIZE, *[POINTER] * 3]
    found.dlrm_embedding_row_splits_cuda.argtypes = [POINTER, *[SIZE] * 3, POINTER, ctypes.POINTER(CStatus), POINTER]
    found.dlrm_embedding_check_cuda.argtypes = [ctypes.POINTER(CStatus), POINTER, POINTER]
    found.emulate_gpu(SHARED_BYTES, 1)
    return found


class Memory:
    """Temporary memory as the kernels ask for it: not a byte more, and full of NaN."""

    def __init__(self, num_bytes: int):
        self.all = np.full(num_bytes + 2 * GUARD + 256, 0xFF, np.uint8)
        self.start = GUARD + -(self.all.ctypes.data + GUARD) % 256
        self.end, self.num_bytes = self.start + num_bytes, num_bytes
        self.address = self.all.ctypes.data + self.start

    def check(self):
        assert (self.all[: self.start] == 0xFF).all() and (self.all[self.end :] == 0xFF).all()


def call(library, name: str, slabs, bags, *, step: Step | None = None, status: CStatus | None = None) -> bool:
    """Runs lookup or update. Returns whether all updated numbers are finite.

    Raises:
      BadId: the status names one.
      Refused: the call returned a code.
    """
    c_slabs, c_bags, kept = c_arrays(slabs, bags)
    arrays, needed = (c_slabs, len(slabs), c_bags, len(bags)), SIZE()
    code = getattr(library, f"dlrm_embedding_{name}_cuda_bytes")(*arrays, ctypes.byref(needed))
    if code != 0:
        raise Refused(code)
    memory, status = Memory(needed.value), status or CStatus()
    optimizer = []
    if step is not None:
        optimizer = [COptimizer(KINDS[step.kind], step.learning_rate, step.epsilon, step.beta1, step.beta2, step.step)]
    code = getattr(library, f"dlrm_embedding_{name}_cuda")(
        *arrays, *optimizer, type_of(bags), memory.address, memory.num_bytes, status, None
    )
    del kept
    if code != 0:
        raise Refused(code)
    memory.check()
    if status.found_bad_id:
        raise BadId(status.bad_id.bags, status.bad_id.sample, status.bad_id.id)
    return not status.not_finite


def sum_by_row(library, slab: Rows, bags, *, misaligned: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(rows, sums) of one slab, which the call gets without its weights.

    Raises:
      BadId, Refused: as `call`.
    """
    c_slabs, c_bags, kept = c_arrays([slab], bags)
    of_slab, needed = CSlab(num_rows=c_slabs[0].num_rows, width=c_slabs[0].width), SIZE()
    code = library.dlrm_embedding_update_cuda_bytes(of_slab, 1, c_bags, len(bags), ctypes.byref(needed))
    if code != 0:
        raise Refused(code)
    memory, status, count = Memory(needed.value), CStatus(), np.full(1, -1, np.int64)
    arrays, temporary = (of_slab, c_bags, len(bags)), (memory.address, memory.num_bytes)
    code = library.dlrm_embedding_sum_cuda(*arrays, *temporary, count.ctypes.data, status, None)
    if code != 0:
        raise Refused(code)
    rows, guarded = np.full(count[0], -1), np.full((count[0] + 1, of_slab.width), np.nan, np.float32)
    sums = aligned(guarded, misaligned)
    code = library.dlrm_embedding_sums_cuda(
        *arrays, type_of(bags), *temporary, rows.ctypes.data, sums.ctypes.data, None
    )
    del kept
    if code != 0:
        raise Refused(code)
    memory.check()
    assert np.isnan(sums[-1]).all()
    if status.found_bad_id:
        raise BadId(status.bad_id.bags, status.bad_id.sample, status.bad_id.id)
    return rows, sums[:-1]


# ---- cases -----------------------------------------------------------------------------------------------------------


def bits(values: np.ndarray) -> np.ndarray:
    return values.view(np.uint32 if values.itemsize == 4 else np.uint16)


def aligned(values: np.ndarray, misaligned: int = 0) -> np.ndarray:
    """The same values at an address that is a multiple of 16, plus `misaligned`."""
    buffer = np.full(values.nbytes + 48, 0xFF, np.uint8)
    start = -buffer.ctypes.data % 16 + misaligned
    copy = buffer[start : start + values.nbytes].view(values.dtype).reshape(values.shape)
    copy[...] = values
    return copy


def random_slab(rng, num_rows: int, *, width: int, table_dtype: str, kind: str, misaligned: int = 0) -> Rows:
    """A slab with the state of an optimizer, whose rows belong to three shards."""
    weights = aligned(rng.normal(size=(num_rows, width)).astype(dtype_of(table_dtype)), misaligned)
    slot_width = 1 if kind == "rowwise_adagrad" else width
    count = {"sgd": 0, "adam": 2}.get(kind, 1)
    slots = [aligned(rng.uniform(0.1, 2, (num_rows, slot_width)).astype(np.float32)) for _ in range(count)]
    firsts = [0, num_rows // 3, num_rows // 2]
    shards = [Shard(first, int(rng.integers(1000)), 16 * number, int(rng.integers(2**62)))
              for number, first in enumerate(firsts)]  # fmt: skip
    return Rows(weights, slots, shards)


def random_bags(rng, slab: int, rows: Rows, vectors: np.ndarray, *, form: str) -> Bags:
    """Bags of a form: one, fixed, ragged, and these with _mean and _weighted; ids of a shard and of other shards."""
    num_samples, num_rows = len(vectors), len(rows.weights)
    first_row = int(rng.integers(0, num_rows))
    here = num_rows - first_row
    first = int(rng.integers(0, 3))
    bags = Bags(slab, None, vectors, num_ids=first + here + 2, first_row=first_row - first, shard=(first, first + here))
    kinds = np.dtype(rng.choice(["int32", "int64"]))
    if form.startswith("ragged"):
        sizes = rng.choice([0, 1, 2, 3, 9], num_samples)
        bags.row_splits = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        bags.ids = rng.integers(0, bags.num_ids, bags.row_splits[-1]).astype(kinds)
        count = len(bags.ids)
    else:
        hotness = 1 if form.startswith("one") else int(rng.integers(2, 7))
        wide = rng.integers(0, bags.num_ids, (num_samples, hotness + 3)).astype(kinds)
        bags.ids, count = wide[:, 1 : 1 + hotness], num_samples * hotness
    bags.mean = "mean" in form
    if "weighted" in form:
        bags.weights = rng.choice([0, 0.5, 1.25, -2], count).astype(np.float32)
    return bags


FORMS = [kind + rest for kind in ("one", "fixed", "ragged") for rest in ("", "_mean", "_weighted", "_mean_weighted")]


def random_case(rng, widths, *, table_dtype: str, vectors_dtype: str, kind: str = "sgd", forms=None, num_samples=23,
                num_rows=40, misaligned=0):  # fmt: skip
    """A slab for each width, with bags of the forms in one wide array. Returns (slabs, bags, the array)."""
    forms = forms or rng.choice(FORMS, 4)
    slabs = [random_slab(rng, num_rows, width=width, table_dtype=table_dtype, kind=kind, misaligned=misaligned)
             for width in widths]  # fmt: skip
    pieces = [(number, form) for form in forms for number in range(len(widths))]
    places, column = [], 0
    for number, _ in pieces:
        places.append(column)
        column += widths[number]
    array = aligned(rng.normal(size=(num_samples, -(-column // 8) * 8)).astype(dtype_of(vectors_dtype)))
    bags = [
        random_bags(rng, number, slabs[number], array[:, start : start + widths[number]], form=form)
        for (number, form), start in zip(pieces, places, strict=True)
    ]
    return slabs, bags, array
