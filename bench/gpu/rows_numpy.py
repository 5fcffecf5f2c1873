"""What lookup, update and sums of embedding rows give, in numpy, in the order of the kernels: the same bits."""

import numpy as np

CHUNK = 256  # occurrences of a row that are summed one after the other
LEARNING_RATE, EPSILON, BETAS = 0.1, 1e-8, (0.9, 0.999)
GAMMA = np.uint64(0x9E3779B97F4A7C15)


def stored(values: np.ndarray, dtype: str) -> np.ndarray:
    if dtype != "bfloat16":
        return values.astype(dtype)
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)


def widened(values: np.ndarray) -> np.ndarray:
    if values.dtype == np.uint16:
        return (values.astype(np.uint32) << 16).view(np.float32)
    return values.astype(np.float32)


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


def lookup(case) -> np.ndarray:
    """What the vectors of a rows.Case become, as bits."""
    result = np.empty_like(case.vectors)
    for number, piece in enumerate(case.pieces):
        sample, row, factor = piece.occurrences()
        pooled = ordered_sums(
            sample, len(result), lambda i, row=row, factor=factor: widened(case.weights[row[i]]) * factor[i, None]
        )
        columns = slice(number * case.width, (number + 1) * case.width)
        result[:, columns] = stored(np.broadcast_to(pooled, (len(result), case.width)), case.dtype)
    return result


def sums(case) -> tuple[np.ndarray, np.ndarray]:
    """(rows of a rows.Case that occur, ascending; the sums of their gradients)."""
    found = [piece.occurrences() for piece in case.pieces]
    sample, row, factor = (np.concatenate(parts) for parts in zip(*found, strict=True))
    piece = np.repeat(np.arange(len(found)), [len(part[0]) for part in found])
    vectors = case.vectors.reshape(len(case.vectors), len(case.pieces), case.width)
    rows, group = np.unique(row, return_inverse=True)
    order = np.argsort(group, kind="stable")
    starts = np.searchsorted(group[order], np.arange(len(rows)))
    position = np.empty(len(order), np.int64)
    position[order] = np.arange(len(order)) - starts[group[order]]
    # The chunks of a row have consecutive numbers.
    chunks = (np.bincount(group, minlength=len(rows)) + CHUNK - 1) // CHUNK
    first_chunk = np.concatenate([[0], np.cumsum(chunks)])
    of_chunks = ordered_sums(first_chunk[group] + position // CHUNK, first_chunk[-1],
                             lambda i: widened(vectors[sample[i], piece[i]]) * factor[i, None])  # fmt: skip
    return rows, ordered_sums(np.repeat(np.arange(len(rows)), chunks), len(rows), lambda i: of_chunks[i])


def update(case) -> tuple[np.ndarray, list[np.ndarray]]:
    """(weights, slots) of a rows.Case after the step."""
    rows, gradients = sums(case)
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
