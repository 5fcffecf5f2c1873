"""The hash table of dynamic tables in plain Python: what a key index must answer, and what it must have stored.

Which row of its bucket a key gets is left open; everything else is decided here, from the rules alone.
"""

from dataclasses import dataclass, field
from functools import cache

from dlrm_tf2.ops.hash_table import COUNTERS, IndexRules
from dlrm_tf2.sharding.buckets import Buckets

GAMMA, MASK = 0x9E3779B97F4A7C15, (1 << 64) - 1
LINES, MOST_IN_SKETCH = 4, 65535


@cache
def mix64(bits: int) -> int:
    """criteo_prep/splitmix64.py, for one number."""
    bits = (bits ^ bits >> 30) * 0xBF58476D1CE4E5B9 & MASK
    bits = (bits ^ bits >> 27) * 0x94D049BB133111EB & MASK
    return bits ^ bits >> 31


@dataclass
class Stored:
    score: int
    step: int


@dataclass
class Twin:
    buckets: Buckets
    rules: IndexRules
    stored: dict[int, Stored] = field(default_factory=dict)
    counts: dict[int, int] = field(default_factory=dict)  # of keys, or of the cells of a sketch
    log: list[tuple[int, int]] = field(default_factory=list)  # (key, step)
    counters: dict[str, int] = field(default_factory=lambda: dict.fromkeys(COUNTERS, 0))
    step: int = 0

    def __post_init__(self):
        self.members: list[set[int]] = [set() for _ in range(self.buckets.num_buckets)]  # stored keys of each bucket

    # ---- the verbs -----------------------------------------------------------------------------------------------

    def find(self, keys) -> list[bool]:
        found = [key in self.stored for key in keys]
        self.counters["found"] += sum(found)
        self.counters["missed"] += len(found) - sum(found)
        return found

    def find_or_insert(self, keys, step, scores):
        """(stored or not of each key, fresh keys in order, [(evicted key, score)])."""
        self.step = max(self.step, step)
        self.find(keys)
        occurrences: dict[int, list[int]] = {}
        for key, score in zip(keys, scores, strict=True):
            occurrences.setdefault(key, []).append(score)
        touched = {key for key in occurrences if key in self.stored}
        for key in touched:
            self._touch(key, occurrences[key], step)
        fresh, evicted = [], []
        for key in sorted((key for key in occurrences if key not in touched), key=self._hash):
            if not self._admits(key, len(occurrences[key]), step):
                self.counters["refused"] += 1
                continue
            if self._is_full(key):
                lowest = self._lowest(key, touched)
                if lowest is None:
                    self.counters["not_insertable"] += 1
                    continue
                evicted.append((lowest, self.stored[lowest].score))
                self._erase(lowest, "evicted")
            self._store(key, Stored(self._first_score(occurrences[key], step), step))
            if self.rules.admit_after > 1 and self.rules.counter[0] == "exact":
                self.counts.pop(key, None)
            self.counters["admitted"] += self.rules.admit_after > 1 or self.rules.admit_probability < 1
            touched.add(key)
            fresh.append(key)
        return [key in self.stored for key in keys], fresh, evicted

    def assign(self, keys, scores, steps) -> list[bool]:
        last = dict(zip(keys, zip(scores, steps, strict=True), strict=True))
        for key in [key for key in last if key in self.stored]:
            self.stored[key] = Stored(*last.pop(key))
        for key in sorted(last, key=lambda key: (last[key][0], self._hash(key)), reverse=True):
            if self._is_full(key):
                lowest = self._lowest(key, set())
                if lowest is None or self._order(lowest) > (last[key][0], self._hash(key)):
                    self.counters["not_insertable"] += 1
                    continue
                self._erase(lowest, "evicted")
            self._store(key, Stored(*last[key]))
        return [key in self.stored for key in keys]

    def erase(self, keys) -> list[bool]:
        were_stored = []
        for key in keys:
            were_stored.append(key in self.stored)
            if key in self.stored:
                self._erase(key, "erased")
        return were_stored

    def expire(self, before_step) -> int:
        old = [key for key, stored in self.stored.items() if stored.step < before_step]
        for key in old:
            self._erase(key, "expired")
        return len(old)

    def clear(self) -> None:
        self.stored, self.counts, self.log = {}, {}, []
        self.__post_init__()

    def erased(self, since_step) -> list[tuple[int, int]]:
        return sorted((key, step) for key, step in self.log if step >= since_step)

    def trim_erased(self, before_step) -> None:
        self.log = [(key, step) for key, step in self.log if step >= before_step]

    def content(self) -> list[tuple[int, int, int]]:
        return sorted((key, stored.score, stored.step) for key, stored in self.stored.items())

    # ---- scores and eviction ---------------------------------------------------------------------------------------

    def _touch(self, key, scores, step) -> None:
        stored = self.stored[key]
        stored.step = step
        if self.rules.score == "lfu":
            stored.score += len(scores)
        else:
            stored.score = self._first_score(scores, step)

    def _first_score(self, scores, step) -> int:
        return {"lfu": len(scores), "no_eviction": 0, "step": step}.get(self.rules.score, max(scores))

    def _hash(self, key) -> int:
        return mix64(key & MASK)

    def bucket(self, key) -> int:
        return (self._hash(key) >> 32) * self.buckets.num_buckets >> 32

    def _is_full(self, key) -> bool:
        return len(self.members[self.bucket(key)]) == self.buckets.rows_per_bucket

    def _order(self, key) -> tuple[int, int]:
        return self.stored[key].score, self._hash(key)

    def _lowest(self, key, touched) -> int | None:
        """The key to evict for a key."""
        if self.rules.score == "no_eviction":
            return None
        return min(self.members[self.bucket(key)] - touched, key=self._order, default=None)

    def _store(self, key, stored) -> None:
        self.stored[key] = stored
        self.members[self.bucket(key)].add(key)
        self.counters["inserted"] += 1

    def _erase(self, key, why) -> None:
        del self.stored[key]
        self.members[self.bucket(key)].remove(key)
        self.counters[why] += 1
        if self.rules.log_erased:
            self.log.append((key, self.step))

    # ---- admission -------------------------------------------------------------------------------------------------

    def _admits(self, key, occurrences, step) -> bool:
        rules = self.rules
        if rules.admit_probability < 1:
            bits = mix64(mix64((mix64(rules.seed) + step * GAMMA) & MASK) ^ self._hash(key))
            if (bits >> 11) * 2.0**-53 >= rules.admit_probability:
                return False
        if rules.admit_after == 1:
            return True
        if rules.counter[0] == "sketch":
            return self._count_in_sketch(key, occurrences) >= rules.admit_after
        count = self.counts.get(key, 0) + occurrences
        if count >= rules.admit_after:
            return True
        room = max(1, rules.counter[1] // self.buckets.num_buckets)
        counted = [other for other in self.counts if self.bucket(other) == self.bucket(key)]
        if key not in self.counts and len(counted) == room:
            del self.counts[min(counted, key=lambda key: (self.counts[key], self._hash(key)))]
        self.counts[key] = count
        return False

    def _count_in_sketch(self, key, occurrences) -> int:
        width = max(1, self.rules.counter[1] // self.buckets.num_buckets // LINES // 2)
        cells = []
        for line in range(LINES):
            bits = mix64((self._hash(key) + (line + 1) * GAMMA) & MASK)
            cells.append((self.bucket(key) * LINES + line) * width + ((bits >> 32) * width >> 32))
        lowest = min(self.counts.get(cell, 0) for cell in cells)
        count = min(MOST_IN_SKETCH, lowest + occurrences)
        for cell in cells:
            self.counts[cell] = max(self.counts.get(cell, 0), count)
        return count
