"""The hash table's CUDA kernels on a GPU: what a dict would hold over a grid of cases, and times next to a copy."""

import itertools

import device as gpu
import index
import index_numpy
import numpy as np
import times

SHAPES = ((1, 1), (1, 50), (4, 40), (16, 300))  # buckets, rows of each
TABLE_ROWS, BUCKETS = 8 << 20, 256  # of the times: the published table
CALLS_BETWEEN = 4  # batches in turn, so that no call finds the memory of the one before in a cache


def grid():
    """(shape, score, keys of a call)"""
    for shape, score in itertools.product(SHAPES, index_numpy.SCORES):
        yield shape, score, 3 * shape[0] * shape[1] // 4
        yield shape, score, 3 * shape[0] * shape[1]


def small_grid():
    for score in index_numpy.SCORES:
        yield (4, 40), score, 300


def check_grid(device, kernels: gpu.Kernels, cases) -> dict:
    """Checks each case. Returns the number of checks and a line for every wrong one."""
    rng, checked, wrong = np.random.default_rng(), 0, []
    for shape, score, num_keys in cases:
        checked += 1
        wrong += [f"index {shape} {score} {num_keys}: {c}" for c in check(device, kernels, rng, shape, score, num_keys)]
    for kind, bfloat16 in itertools.product(index_numpy.KINDS, (False, True)):
        checked += 1
        wrong += [f"first values, {kind}: {c}" for c in check_first_values(device, kernels, rng, kind, bfloat16)]
    for complaint in wrong:
        print(f"WRONG {complaint}")
    return {"checked": checked, "wrong": wrong}


def check(device, kernels, rng, shape, score, num_keys) -> list[str]:
    """What is wrong with a table after some calls; a second table gets the same calls."""
    tables = [index.OnDevice(device, kernels, shape, score=score, most_keys=num_keys) for _ in range(2)]
    model = index_numpy.Model(*shape, score)
    for step in range(1, 5):
        keys = rng.integers(-num_keys, num_keys, num_keys)
        scores = rng.integers(-9, 9, num_keys) if score == "custom" else np.array([step])
        wanted = model.find_or_insert(keys, step, scores if score == "custom" else scores[0])
        on_device, given = device.upload(keys), device.upload(scores)
        answers = []
        for table in tables:
            rows, found = (device.poisoned(8 * num_keys) for _ in range(2))
            table.queue_find_or_insert(on_device, num_keys, step, given, rows, stride=int(score == "custom"))
            lists = [part.tolist() for part in table.fresh_and_evicted(on_device, num_keys)]
            table.queue_find(on_device, num_keys, found)
            device.wait()
            answers.append((device.download(rows), lists))
            if (answers[-1][0] != device.download(found)).any():
                return [f"step {step}: find gives other rows than find_or_insert"]
        if answers[0][1] != list(wanted) or (answers[0][0] != answers[1][0]).any() or answers[0][1] != answers[1][1]:
            return [f"step {step}: other keys were stored or evicted than expected, or two tables differ"]
        if ((answers[0][0].view(np.int64) >= 0) != np.isin(keys, list(model.stored))).any():
            return [f"step {step}: a stored key has no row, or another one has"]
    return checked_upkeep(device, rng, tables[0], model)


def checked_upkeep(device, rng, table, model) -> list[str]:
    """Erases some keys, assigns others, and compares what is stored."""
    some = np.array(list(model.stored)[::3], np.int64)
    was_stored, rows = device.poisoned(max(1, len(some))), device.poisoned(8 * max(1, len(some)))
    table.queue_erase(device.upload(some), len(some), was_stored)
    device.wait()
    for key in some.tolist():
        del model.stored[key]
    if (device.download(was_stored)[: len(some)] != 1).any():
        return ["erase: a stored key was not erased"]
    others = 10**12 + np.arange(len(some))
    scores, steps = rng.integers(-9, 9, len(some)), rng.integers(0, 2**32, len(some))
    table.queue_assign(*(device.upload(others), len(some)), *map(device.upload, (scores, steps)), rows)
    model.assign(others, scores, steps)
    return [] if table.content() == model.content() else ["the stored keys, scores or steps differ from the dict's"]


def check_first_values(device, kernels, rng, kind: str, bfloat16: bool) -> list[str]:
    keys, initializer = rng.integers(-(2**63), 2**63 - 1, 700), (kind, -0.25, 0.5, int(rng.integers(2**63)))
    table = index.OnDevice(device, kernels, (1, 1), score="step", most_keys=1)
    found = table.first_values(keys, 19, initializer=initializer, bfloat16=bfloat16)
    wanted = index_numpy.first_values(keys, 19, *initializer).view(np.uint32)
    if bfloat16:
        wanted = ((wanted + 0x7FFF + (wanted >> 16 & 1)) >> 16).astype(np.uint16)
    bad = found != wanted
    return [f"{bad.sum()} of {bad.size} values differ"] if bad.any() else []


# ---- times -----------------------------------------------------------------------------------------------------------


def keys_of(rng, law: str, count: int) -> np.ndarray:
    """int64 [count] of 4 * TABLE_ROWS keys, spread over all 64 bits: uniform, or by a power law of 1.05."""
    most = 4 * TABLE_ROWS
    if law == "uniform":
        places = rng.integers(0, most, count)
    else:
        exponent = 1 - 1.05
        places = (1 + rng.random(count) * (float(most) ** exponent - 1)) ** (1 / exponent) - 1
    return places.astype(np.int64) * 0x9E3779B97F4A7


def measure(device, kernels: gpu.Kernels, batches=(65_536, 1_048_576)) -> list[dict]:
    """Prints a table and returns its rows: ms and keys per second of calls on a full table of TABLE_ROWS rows.

    `evict`: every key of the call is new, so that each one takes the row of another key.
    """
    print(f"hash table, {TABLE_ROWS} rows in {BUCKETS} buckets, full")
    print(f"{'keys':>8} {'law':>8} {'call':>14} | {'ms':>8} {'M keys/s':>9}")
    table, found = full_table(device, kernels, max(batches)), []
    for batch, law in itertools.product(batches, ("uniform", "power")):
        for name, milliseconds in timed(device, table, law, batch).items():
            rate = batch / milliseconds / 1e3
            found.append({"keys": batch, "law": law, "call": name, "ms": milliseconds, "million_keys_per_s": rate})
            print(f"{batch:>8} {law:>8} {name:>14} | {milliseconds:>8.3f} {rate:>9.1f}", flush=True)
    return found


def full_table(device, kernels, most_keys: int) -> index.OnDevice:
    table = index.OnDevice(device, kernels, (BUCKETS, TABLE_ROWS // BUCKETS), score="step", most_keys=most_keys)
    score, rows = device.upload(np.zeros(1, np.int64)), device.poisoned(8 * most_keys)
    for start in range(0, TABLE_ROWS + TABLE_ROWS // 8, most_keys):
        keys = np.arange(start, start + most_keys) * 0x9E3779B97F4A7
        table.queue_find_or_insert(device.upload(keys), most_keys, 1, score, rows)
        device.wait()
    return table


def timed(device, table: index.OnDevice, law: str, batch: int) -> dict:
    """{call: median ms}"""
    rng, turn = np.random.default_rng(0), itertools.count(2)
    known = [device.upload(keys_of(rng, law, batch)) for _ in range(CALLS_BETWEEN)]
    new = itertools.cycle([device.upload(rng.integers(-(2**63), 0, batch)) for _ in range(30)])
    score, rows = device.upload(np.zeros(1, np.int64)), device.poisoned(8 * batch)

    def insert(keys):
        table.queue_find_or_insert(keys, batch, next(turn), score, rows)

    calls = {
        "find": lambda: table.queue_find(known[next(turn) % CALLS_BETWEEN], batch, rows),
        "find_or_insert": lambda: insert(known[next(turn) % CALLS_BETWEEN]),
    }
    if law == "uniform":
        calls["evict"] = lambda: insert(next(new))
    return {name: times.median_ms(device, call) for name, call in calls.items()}
