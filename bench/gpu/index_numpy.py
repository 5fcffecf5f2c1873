"""What the hash table of dynamic tables must do, for the GPU check: a dict, and the first values of keys in numpy."""

from dataclasses import dataclass, field

import numpy as np

GAMMA, MASK = 0x9E3779B97F4A7C15, (1 << 64) - 1
SCORES = ("timestamp", "step", "lfu", "custom", "no_eviction")
KINDS = ("constant", "uniform", "normal", "truncated_normal")


def mix64(z: np.ndarray) -> np.ndarray:
    """SplitMix64's output function, uint64."""
    z = (z ^ z >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ z >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return z ^ z >> np.uint64(31)


def hashes(keys) -> np.ndarray:
    return mix64(np.asarray(keys, np.int64).view(np.uint64))


@dataclass
class Model:
    """A table of num_buckets * rows_per_bucket rows. `stored`: key -> [score, step]."""

    num_buckets: int
    rows_per_bucket: int
    score: str
    stored: dict[int, list[int]] = field(default_factory=dict)

    def find_or_insert(self, keys: np.ndarray, step: int, scores: np.ndarray) -> tuple[list[int], list[int]]:
        """(fresh keys, evicted keys), both in the order in which a call lists them."""
        given: dict[int, list[int]] = {}
        for key, score in zip(keys.tolist(), np.broadcast_to(scores, len(keys)).tolist(), strict=True):
            given.setdefault(key, []).append(score)
        touched = {key for key in given if key in self.stored}
        for key in touched:
            self.stored[key] = [self._score(given[key], step, self.stored[key][0]), step]
        fresh, evicted = [], []
        for key in _in_order([key for key in given if key not in touched]):
            bucket = self._members(key)
            if len(bucket) == self.rows_per_bucket:
                lowest = self._lowest([other for other in bucket if other not in touched])
                if lowest is None:
                    continue
                evicted.append(lowest)
                del self.stored[lowest]
            self.stored[key] = [self._score(given[key], step, 0), step]
            touched.add(key)
            fresh.append(key)
        return fresh, evicted

    def assign(self, keys: np.ndarray, scores: np.ndarray, steps: np.ndarray) -> None:
        """Keys that occur once each and are not stored."""
        order = np.lexsort((hashes(keys), scores))[::-1]
        for key, score, step in zip(keys[order].tolist(), scores[order].tolist(), steps[order].tolist(), strict=True):
            bucket = self._members(key)
            if len(bucket) == self.rows_per_bucket:
                lowest = self._lowest(bucket)
                if lowest is None or self._lowest([lowest, key], {key: score}) == key:
                    continue
                del self.stored[lowest]
            self.stored[key] = [score, step]

    def content(self) -> list[tuple[int, int, int]]:
        return sorted((key, *entry) for key, entry in self.stored.items())

    def _score(self, given: list[int], step: int, before: int) -> int:
        return {"step": step, "lfu": before + len(given), "no_eviction": 0}.get(self.score, max(given))

    def _members(self, key: int) -> list[int]:
        of_keys = bucket_of([key, *self.stored], self.num_buckets)
        return [other for other, bucket in zip(self.stored, of_keys[1:], strict=True) if bucket == of_keys[0]]

    def _lowest(self, keys: list[int], scores: dict[int, int] | None = None) -> int | None:
        if self.score == "no_eviction" or not keys:
            return None
        of = [(scores or {}).get(key, self.stored.get(key, [0])[0]) for key in keys]
        return keys[int(np.lexsort((hashes(keys), np.array(of)))[0])]


def bucket_of(keys, num_buckets: int) -> np.ndarray:
    return ((hashes(keys) >> np.uint64(32)) * np.uint64(num_buckets) >> np.uint64(32)).astype(np.int64)


def _in_order(keys: list[int]) -> list[int]:
    return [keys[i] for i in np.argsort(hashes(keys))] if keys else []


# ---- first values ----------------------------------------------------------------------------------------------------


def first_values(keys: np.ndarray, width: int, kind: str, low: float, high: float, seed: int) -> np.ndarray:
    """float32 [n, width], with the bits of ops/src/hash_table/initial_values.h."""
    stream = mix64(hashes(keys) ^ mix64(np.array([seed], np.uint64)))[:, None]
    column = np.arange(width, dtype=np.uint64)[None]
    if kind == "constant":
        return np.full((len(keys), width), low, np.float32)
    if kind == "uniform":
        bits = mix64(stream + (column + np.uint64(1)) * np.uint64(GAMMA)) >> np.uint64(40)
        f = np.float32
        return f(low) + (f(high) - f(low)) * (bits.astype(f) * f(2**-24))
    z, place = _normal(stream, column), column
    while kind == "truncated_normal" and (np.abs(z) > 2).any():
        place = place + np.uint64(1 << 32)
        z = np.where(np.abs(z) > 2, _normal(stream, place), z)
    return (np.float64(np.float32(low)) + np.float64(np.float32(high)) * z).astype(np.float32)


def _normal(stream, place):
    u, v = (
        (mix64(stream + (np.uint64(2) * place + np.uint64(i)) * np.uint64(GAMMA)) >> np.uint64(11)).astype(np.float64)
        * 2.0**-53
        for i in (1, 2)
    )
    return np.sqrt(-2 * _log(1 - u)) * _cosine_of_turn(v)


def _log(x):
    m, exponent = np.frexp(x)
    m, exponent = 2 * m, exponent - 1
    high = m > 1.4142135623730951
    m, exponent = np.where(high, m * 0.5, m), exponent + high
    s = (m - 1) / (m + 1)
    square, total = s * s, np.zeros_like(s)
    for i in range(23, 0, -2):
        total = total * square + 1.0 / i
    return exponent * 0.6931471805599453 + 2 * s * total


def _cosine_of_turn(v):
    quarter = np.floor(4 * v + 0.5).astype(np.int64)
    x = (4 * v - quarter) * 1.5707963267948966
    square, cosine, sine = x * x, np.ones_like(x), np.ones_like(x)
    for i in range(16, 1, -2):
        cosine = 1 - square * (1.0 / (i * (i - 1))) * cosine
    for i in range(17, 1, -2):
        sine = 1 - square * (1.0 / (i * (i - 1))) * sine
    value = np.where(quarter % 2 == 0, cosine, x * sine)
    return np.where((quarter == 1) | (quarter == 2), -value, value)
