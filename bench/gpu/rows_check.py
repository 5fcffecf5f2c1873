"""The embedding rows' CUDA kernels on a GPU: the bits of numpy over a grid of cases, and times next to a copy."""

import itertools

import device as gpu
import numpy as np
import rows
import rows_numpy
import times

WIDTHS = (1, 3, 8, 16, 17, 64, 128, 129, 256)
FORMS = ("one", "fixed", "ragged", "ragged_mean", "fixed_weighted_mean", "hot")
PIECES, WIDTH, TABLE_ROWS = 26, 128, 100_000  # of the times
GOALS = {"lookup": 0.75, "update": 0.6}  # shares of a copy's bytes per second


def grid():
    """(width, type of the vectors, type of the table, optimizer, samples)"""
    for width, kind, table in itertools.product(WIDTHS, rows.KINDS, ("float32", "bfloat16")):
        yield width, ("float32", "float16", "bfloat16")[len(kind) % 3], table, kind, 300
    for dtype in gpu.DTYPES:
        yield 16, dtype, "float32", "adagrad", 0
        yield 128, dtype, "bfloat16", "adagrad", 8192


def small_grid():
    for width, kind in itertools.product((3, 16, 128), rows.KINDS):
        yield width, "bfloat16", "bfloat16", kind, 40


def make_case(rng, width, dtype, table_dtype, kind, num_samples, forms=FORMS, table_rows=500) -> rows.Case:
    num_rows = table_rows * len(forms)
    pieces = [make_piece(rng, form, i * table_rows, table_rows, num_samples) for i, form in enumerate(forms)]
    slot_width = 1 if kind == "rowwise_adagrad" else width
    slots = [rng.uniform(0.1, 2, (num_rows, slot_width)).astype(np.float32) for _ in range(rows.SLOTS[kind])]
    weights = rows_numpy.stored(rng.standard_normal((num_rows, width), np.float32), table_dtype)
    vectors = rows_numpy.stored(rng.standard_normal((num_samples, width * len(forms)), np.float32), dtype)
    return rows.Case(kind, dtype, table_dtype, weights, slots, pieces, vectors)


def make_piece(rng, form: str, first_row: int, num_rows: int, num_samples: int) -> rows.Piece:
    dtype = rng.choice([np.int32, np.int64])
    if form.startswith("ragged"):
        splits = np.concatenate([[0], np.cumsum(rng.integers(0, 6, num_samples))]).astype(np.int64)
        ids = rng.integers(0, num_rows, splits[-1], dtype)
        return rows.Piece(first_row, num_rows, ids, splits, mean="mean" in form)
    hotness = {"one": 1, "hot": 1}.get(form, 5)
    ids = rng.integers(0, 2 if form == "hot" else num_rows, (num_samples, hotness), dtype)
    weights = rng.choice([0, 0.5, -2, 1.25], ids.size).astype(np.float32) if "weighted" in form else None
    return rows.Piece(first_row, num_rows, ids, weights=weights, mean="mean" in form)


def check_grid(device, kernels: gpu.Kernels, cases) -> dict:
    """Checks each case. Returns the number of checks and a line for every wrong one."""
    rng, checked, wrong = np.random.default_rng(), 0, []
    for choices in cases:
        case = make_case(rng, *choices)
        checked += 3
        for complaint in check(device, kernels, case):
            wrong.append(f"rows {choices}: {complaint}")
            print(f"WRONG {wrong[-1]}")
    return {"checked": checked, "wrong": wrong}


def check(device, kernels: gpu.Kernels, case: rows.Case) -> list[str]:
    """What is wrong with the sums by row, the update and then the lookup of a case."""
    there = rows.OnDevice(device, kernels, case)
    complaints = compared_sums(there.sums(), rows_numpy.sums(case))
    memory = there.memory_for("update")
    there.queue("update", memory)
    device.wait()
    weights, slots = rows_numpy.update(case)
    complaints += compared(device, there.weights, weights, "weights")
    for number, slot in enumerate(slots):
        complaints += compared(device, there.slots[number], slot, f"state {number}")
    there.queue("lookup", there.memory_for("lookup"))
    device.wait()
    case.weights = device.download(there.weights).view(weights.dtype).reshape(weights.shape)
    complaints += compared(device, there.vectors, rows_numpy.lookup(case), "vectors")
    if device.download(there.status).any():
        complaints.append("the status says that an id or a number was wrong")
    return complaints


def compared_sums(found: tuple[np.ndarray, np.ndarray], wanted: tuple[np.ndarray, np.ndarray]) -> list[str]:
    if not np.array_equal(found[0], wanted[0]):
        return [f"sums: {len(found[0])} rows occur, expected {len(wanted[0])}, or others"]
    return differences(found[1], wanted[1].reshape(found[1].shape), "sums")


def compared(device, memory, wanted: np.ndarray, what: str) -> list[str]:
    return differences(device.download(memory).view(wanted.dtype).reshape(wanted.shape), wanted, what)


def differences(found: np.ndarray, wanted: np.ndarray, what: str) -> list[str]:
    unsigned = np.uint32 if wanted.itemsize == 4 else np.uint16
    found = found.view(unsigned)
    bad = found != wanted.view(unsigned)
    if not bad.any():
        return []
    first = tuple(int(i) for i in np.argwhere(bad)[0])
    values = [hex(int(of[first])) for of in (found, wanted.view(unsigned))]
    return [f"{what}: {bad.sum()} of {bad.size} values, first at {first}: {values[0]}, expected {values[1]}"]


# ---- times -----------------------------------------------------------------------------------------------------------


def ids_of(rng, law: str, count: int) -> np.ndarray:
    """int32 [count, 1] below TABLE_ROWS: uniform, or by a power law of 1.05."""
    if law == "uniform":
        return rng.integers(0, TABLE_ROWS, (count, 1), np.int32)
    exponent = 1 - 1.05
    places = (1 + rng.random((count, 1)) * (float(TABLE_ROWS) ** exponent - 1)) ** (1 / exponent) - 1
    return np.minimum(places, TABLE_ROWS - 1).astype(np.int32)


def measure(device, kernels: gpu.Kernels, batch: int) -> list[dict]:
    """Prints a table and returns its rows: ms of lookup and of update with Adagrad, 26 tables of width 128, one-hot.

    The bytes of a lookup are its rows, ids and vectors once each; the bytes of an update are its gradients, its ids and
    every row that occurs with its state, read and written. `of copy` is their rate as a share of a copy's on this GPU.
    """
    copy_rate = rate_of_copy(device, batch * PIECES * WIDTH * 4)
    print(f"embedding rows, batch {batch}, {PIECES} x {TABLE_ROWS} x {WIDTH}; a copy: {copy_rate:.0f} GB/s")
    print(f"{'table':>9} {'vectors':>9} {'ids':>8} {'kernel':>7} | {'ms':>8} {'GB/s':>6} {'of copy':>7} {'goal':>5}")
    found = []
    for table, dtype, law in itertools.product(("float32", "bfloat16"), ("float32", "bfloat16"), ("uniform", "power")):
        for name, (milliseconds, moved) in timed(device, kernels, (table, dtype, law), batch).items():
            rate = moved / milliseconds / 1e6
            row = {"table": table, "vectors": dtype, "ids": law, "kernel": name, "ms": milliseconds, "gb_per_s": rate,
                   "of_copy": rate / copy_rate, "goal": GOALS[name]}  # fmt: skip
            found.append(row)
            print(f"{table:>9} {dtype:>9} {law:>8} {name:>7} | {milliseconds:>8.3f} {rate:>6.0f} "
                  f"{row['of_copy']:>7.2f} {GOALS[name]:>5.2f}", flush=True)  # fmt: skip
    return found


def rate_of_copy(device, num_bytes: int) -> float:
    """GB/s, read and written."""
    source, target = device.random(num_bytes, "float32"), device.poisoned(num_bytes)
    return 2 * num_bytes / times.median_ms(device, lambda: device.copy(target, source)) / 1e6


def timed(device, kernels: gpu.Kernels, choices: tuple[str, str, str], batch: int) -> dict:
    """{kernel: (median ms, bytes moved)}"""
    table, dtype, law = choices
    rng = np.random.default_rng(0)
    pieces = [rows.Piece(i * TABLE_ROWS, TABLE_ROWS, ids_of(rng, law, batch)) for i in range(PIECES)]
    count, num_rows = batch * PIECES, TABLE_ROWS * PIECES
    unique = sum(len(np.unique(piece.ids)) for piece in pieces)
    block = rng.standard_normal((4096, WIDTH), np.float32)
    weights = np.resize(rows_numpy.stored(block, table), (num_rows, WIDTH))
    vectors = np.resize(rows_numpy.stored(1e-3 * block, dtype), (batch, PIECES * WIDTH))
    case = rows.Case("adagrad", dtype, table, weights, [np.full((num_rows, WIDTH), 1, np.float32)], pieces, vectors)
    there = rows.OnDevice(device, kernels, case)
    bytes_of, found = gpu.ITEM_BYTES, {}
    vector_bytes = count * (WIDTH * bytes_of[dtype] + 4)
    moved = {
        "update": vector_bytes + unique * WIDTH * 2 * (bytes_of[table] + 4),
        "lookup": vector_bytes + count * WIDTH * bytes_of[table],
    }
    for name in ("update", "lookup"):  # in this order: the lookup overwrites the gradients
        memory = there.memory_for(name)
        found[name] = times.median_ms(device, lambda name=name, memory=memory: there.queue(name, memory)), moved[name]
    return found
