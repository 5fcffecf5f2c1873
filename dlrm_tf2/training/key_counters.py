"""KeyCounters: what has happened to the keys of dynamic tables, summed over the ranks, for the log."""

import contextlib
from collections.abc import Iterator, Sequence

import numpy as np

from dlrm_tf2.embedding.layer import DistributedEmbedding
from dlrm_tf2.ops.hash_table import COUNTERS
from dlrm_tf2.runtime.comm import Comm

# Counter -> its key in the log.
_LOGGED = {
    "inserted": "keys_inserted",
    "refused": "keys_refused",
    "evicted": "keys_evicted",
    "expired": "keys_expired",
    "erased": "keys_erased",
    "not_insertable": "keys_not_insertable",
}
_FOUND, _MISSED = COUNTERS.index("found"), COUNTERS.index("missed")


class KeyCounters:
    """Reads the counters of the dynamic tables. All ranks must make the same calls. Without dynamic tables, nothing.

    Args:
      embedding: the tables.
      comm: the ranks.
      before: the counts of the run before it was resumed, as `totals` gave them; None for a new run.

    Attributes:
      of_evaluation: the hit rates of the last evaluation, for its line of the log.
    """

    def __init__(self, embedding: DistributedEmbedding, comm: Comm, before: Sequence[Sequence[int]] | None = None):
        self._comm, self._parts = comm, embedding.dynamic_tables
        self._names = [table.name for table in embedding.tables if table.is_dynamic]
        counts = np.zeros((len(self._names), len(COUNTERS)), np.int64)
        if before and np.shape(before) == counts.shape:
            counts[:] = before
        self._other = self._read()[0] - counts  # what is not of this run's training
        self._logged = self.totals()
        self._caching = embedding.has_caches
        self._cache_logged = self._read_caches()
        self.of_evaluation = dict[str, list[float | None]]()

    def totals(self) -> np.ndarray:
        """The counts of the training so far, int64 [dynamic tables, counters of ops.hash_table.COUNTERS]."""
        return self._read()[0] - self._other

    def record(self) -> dict[str, list]:
        """The keys of a line of the log: for each a number for each dynamic table, in the order of the features.

        The hit rates count the lookups since the last call.
        """
        if not self._names:
            return {}
        found, sizes = self._read()
        totals = found - self._other
        hit_rate, self._logged = _hit_rates(totals - self._logged), totals
        counts = {key: totals[:, COUNTERS.index(counter)].tolist() for counter, key in _LOGGED.items()}
        record = {"keys_stored": sizes.tolist(), **counts, "hit_rate": hit_rate}
        if self._caching:
            counted = self._read_caches()
            record["cache_hit_rate"], self._cache_logged = _rates(counted - self._cache_logged), counted
        return record

    @contextlib.contextmanager
    def evaluating(self) -> Iterator[None]:
        """The lookups in this context are of an evaluation; `of_evaluation` is then for its line of the log."""
        before, caches_before = self._read()[0], self._read_caches()
        yield
        if self._names:
            difference = self._read()[0] - before
            self._other = self._other + difference
            self._cache_logged = self._cache_logged + self._read_caches() - caches_before
            self.of_evaluation = {"test_hit_rate": _hit_rates(difference)}

    def _read(self) -> tuple[np.ndarray, np.ndarray]:
        """(all counters [dynamic tables, counters], stored keys [dynamic tables]) of all ranks together."""
        own = np.zeros((1, len(self._names), len(COUNTERS) + 1), np.int64)
        if not self._names:
            return own[0, :, 1:], own[0, :, 0]
        for number, name in enumerate(self._names):
            if part := self._parts.get(name):
                own[0, number] = [part.size(), *part.counters().values()]
        of_all = self._comm.allgather(own, name="key_counters").sum(axis=0)
        return of_all[:, 1:], of_all[:, 0]

    def _read_caches(self) -> np.ndarray:
        """(rows that were in memory, rows that were read from the file) of all ranks: [dynamic tables, 2].

        0 without caches.
        """
        own = np.zeros((1, len(self._names), 2), np.int64)
        if not self._names or not self._caching:
            return own[0]
        for number, name in enumerate(self._names):
            if part := self._parts.get(name):
                counters = part.cache_counters()
                own[0, number] = counters["hits"], counters["misses"]
        return self._comm.allgather(own, name="cache_counters").sum(axis=0)


def _hit_rates(counters: np.ndarray) -> list[float | None]:
    """For each table, the part of its lookups that found their key; None without a lookup."""
    return _rates(counters[:, [_FOUND, _MISSED]])


def _rates(counts: np.ndarray) -> list[float | None]:
    """For each table, hits / (hits + misses) of counts [tables, 2]; None where both are 0."""
    return [hits / (hits + misses) if hits + misses else None for hits, misses in counts.tolist()]
