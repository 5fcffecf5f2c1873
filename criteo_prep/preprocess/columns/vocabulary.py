"""Vocabulary: which values of a column get an id, and which id. THE id rule, in one function: rank_by_count."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from criteo_prep.compiled import compiled

ID_RULE = (
    "id 0: missing, seen fewer than threshold times, or not seen; ids from 1 by (count descending, value ascending)"
)
CAP_RULE = "an id above max_cardinality - 1 becomes 1 + (id - 1) mod (max_cardinality - 1)"
WINDOW_IDS = 1 << 25  # ids of a vocabulary that are in memory at a time while it is written
_LIGHT = 1 << 16  # counts below are ranked by counting them, the others by sorting
_FILE_ROWS = 1 << 20  # rows in a row group; one is in memory at a time, for pre_buffer would keep all


class VocabularyError(ValueError):
    """A threshold makes no sense, or a vocabulary file is not one."""


@dataclass(frozen=True)
class Ranked:
    """Which ids there are, and how often their values were seen.

    Attributes:
      num_kept: ids go from 1 to this.
      first_ids: int64 [runs], ascending; counts: int64 [runs], falling: from first_ids[r] on, each was seen counts[r]
        times.
    """

    num_kept: int
    first_ids: np.ndarray
    counts: np.ndarray

    def counts_of(self, first: int, stop: int) -> np.ndarray:
        """int64 [stop - first]: how often the values of the ids first to stop - 1 were seen."""
        return self.counts[np.searchsorted(self.first_ids, np.arange(first, stop), side="right") - 1]


def rank_by_count(counts: np.ndarray, threshold: int, num_wraps: dict[int, int] | None = None) -> Ranked:
    """The id rule: a value seen `threshold` times or more has an id; ids from 1 by (count descending, value ascending).

    Counting how many values have each count ranks nearly all of them in two passes, without a sort.

    Args:
      counts: uint32 [distinct], how often each value was seen, by ascending value; overwritten with the ids, 0 for a
      value
        that has none. A count of 0 never has an id.
      threshold: 0 and 1 both keep every value that was seen.
      num_wraps: position -> how many times 2^32 its count is larger than what counts says.

    Source: NVIDIA's spark_data_utils.py keeps count >= threshold and ranks by descending count, ties in no order.
    """
    if threshold < 0:
        raise VocabularyError(f"threshold {threshold} is negative; 0 keeps every value.")
    histogram, num_heavy = _histogram(counts)
    heavy = np.empty(num_heavy, np.int64)
    _find_heavy(counts, heavy)
    wrapped = np.array(sorted(num_wraps or {}), np.int64)
    for position in wrapped.tolist():
        if counts[position] < _LIGHT:
            histogram[counts[position]] -= 1
    heavy = np.union1d(heavy, wrapped)
    totals = counts[heavy].astype(np.int64)
    for position, wraps in (num_wraps or {}).items():
        totals[np.searchsorted(heavy, position)] += wraps << 32
    order = np.lexsort((heavy, -totals))
    num_kept_heavy = int(np.count_nonzero(totals >= threshold))
    kept_light = np.arange(_LIGHT - 1, max(threshold, 1) - 1, -1) if threshold < _LIGHT else np.empty(0, np.int64)
    lengths = histogram[kept_light]
    firsts = 1 + num_kept_heavy + np.cumsum(lengths) - lengths
    next_id = np.zeros(_LIGHT, np.int64)
    next_id[kept_light] = firsts
    counts[heavy] = 0  # so that the light ones alone are given ids now
    _assign(counts, next_id)
    counts[heavy[order]] = np.where(np.arange(len(order)) < num_kept_heavy, np.arange(1, len(order) + 1), 0)
    used = lengths > 0
    return Ranked(
        num_kept_heavy + int(lengths.sum()),
        np.concatenate([np.arange(1, num_kept_heavy + 1), firsts[used]]),
        np.concatenate([totals[order][:num_kept_heavy], kept_light[used]]),
    )


@dataclass(frozen=True)
class Vocabulary:
    """The values of one column that have an id. The value at position i has id i + 1; id 0 stands for all others.

    Attributes:
      values: uint32 [kept].
      counts: int64 [kept], how often each was seen; never rising.
    """

    values: np.ndarray
    counts: np.ndarray

    @property
    def cardinality(self) -> int:
        """Number of ids, id 0 included: 1 for a column with no kept value."""
        return len(self.values) + 1

    def save(self, path: str | Path, cap: int | None = None) -> None:
        """Writes the file of `write_vocabulary`."""
        ranked = Ranked(len(self.values), np.arange(1, self.cardinality), self.counts)
        write_vocabulary(
            path,
            ranked,
            select=lambda first, out: np.copyto(out, self.values[first - 1 : first - 1 + len(out)]),
            cap=cap,
        )

    @classmethod
    def load(cls, path: str | Path, cap: int | None = None) -> "Vocabulary":
        """Reads all of a vocabulary file; raises what `read_vocabulary` does."""
        parts = [(values, counts) for values, counts in read_vocabulary(path, cap)]
        return cls(
            np.concatenate([np.empty(0, np.uint32), *(values for values, _ in parts)]),
            np.concatenate([np.empty(0, np.int64), *(counts for _, counts in parts)]),
        )


def make_vocabulary(values: np.ndarray, counts: np.ndarray, threshold: int) -> Vocabulary:
    """The vocabulary of values that were counted; the order of the arguments' rows does not matter.

    Args:
      values: uint32 [distinct], each once.
      counts: int64 [distinct], at least 1.
      threshold: see rank_by_count.
    """
    order = np.argsort(values)
    values, totals = values[order], counts[order].astype(np.int64)
    ids = (totals & 0xFFFFFFFF).astype(np.uint32)
    wraps = {int(place): int(totals[place] >> 32) for place in np.flatnonzero(totals >> 32)}
    ranked = rank_by_count(ids, threshold, wraps)
    kept = np.empty(ranked.num_kept, np.uint32)
    kept[ids[ids > 0].astype(np.int64) - 1] = values[ids > 0]
    return Vocabulary(kept, ranked.counts_of(1, ranked.num_kept + 1))


def capped(ids: np.ndarray, cap: int | None) -> np.ndarray:
    """CAP_RULE on ids from 1; `cap` None leaves them as they are."""
    return ids if cap is None else 1 + (ids - 1) % (cap - 1)


def capped_cardinality(num_kept: int, cap: int | None) -> int:
    """Number of ids of a vocabulary with num_kept values, id 0 included."""
    return num_kept + 1 if cap is None else min(num_kept + 1, cap)


def write_vocabulary(
    path: str | Path, ranked: Ranked, *, select: Callable[[int, np.ndarray], None], cap: int | None = None
) -> None:
    """Writes a parquet file of `value` (uint32), `id` (int32) and `count` (int64), the most frequent value first.

    Args:
      select: called as select(first, values): fills values, uint32 [n], with those whose ids before the cap are first,
        first + 1, ...
      cap: --max_cardinality; see CAP_RULE.
    """
    import pyarrow
    import pyarrow.parquet

    schema = _file_schema()
    with pyarrow.parquet.ParquetWriter(path, schema, use_dictionary=["count"]) as writer:
        for start in range(1, ranked.num_kept + 1, WINDOW_IDS):
            values = np.empty(min(WINDOW_IDS, ranked.num_kept + 1 - start), np.uint32)
            select(start, values)
            for first in range(start, start + len(values), _FILE_ROWS):
                part = values[first - start :][:_FILE_ROWS]
                stop = first + len(part)
                ids = capped(np.arange(first, stop, dtype=np.int64), cap).astype(np.int32)
                table = pyarrow.table([part, ids, ranked.counts_of(first, stop)], schema=schema)
                writer.write_table(table, row_group_size=_FILE_ROWS)


def read_vocabulary(path: str | Path, cap: int | None = None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields (values uint32 [n], counts int64 [n]) of a vocabulary file, in order.

    Raises:
      VocabularyError: it is no vocabulary, or its ids are not 1, 2, 3, ... (under the cap).
      OSError: it cannot be read.
    """
    import pyarrow
    import pyarrow.parquet

    first = 1
    try:
        with pyarrow.parquet.ParquetFile(path, pre_buffer=False) as file:
            for batch in file.iter_batches(_FILE_ROWS, columns=["value", "id", "count"]):
                ids = batch.column(1).to_numpy()
                if not np.array_equal(ids, capped(np.arange(first, first + len(ids)), cap)):
                    raise VocabularyError(
                        f"{path}: its ids are not 1 to {file.metadata.num_rows} in order; it is no vocabulary."
                    )
                first += len(ids)
                yield batch.column(0).to_numpy().astype(np.uint32), batch.column(2).to_numpy().astype(np.int64)
    except pyarrow.ArrowException as error:
        raise VocabularyError(f"{path}: is no vocabulary: {error}") from None


def cut_vocabulary(path: str | Path, target: str | Path, threshold: int) -> int:
    """Writes the file that a threshold which is not lower would have given; the ids in it do not change.

    Returns:
      The number of values that are kept.
    """
    import pyarrow
    import pyarrow.parquet

    kept = 0
    with (
        pyarrow.parquet.ParquetFile(path, pre_buffer=False) as file,
        pyarrow.parquet.ParquetWriter(target, _file_schema(), use_dictionary=["count"]) as writer,
    ):
        for batch in file.iter_batches(_FILE_ROWS):
            here = int(np.count_nonzero(batch.column(2).to_numpy() >= threshold))
            if not here:
                break
            writer.write_table(pyarrow.Table.from_batches([batch.slice(0, here)]), row_group_size=_FILE_ROWS)
            kept += here
    return kept


def _file_schema():
    import pyarrow

    return pyarrow.schema([("value", pyarrow.uint32()), ("id", pyarrow.int32()), ("count", pyarrow.int64())])


def num_kept(path: str | Path) -> int:
    """Number of values in a vocabulary file; reads only its footer."""
    import pyarrow
    import pyarrow.parquet

    try:
        return pyarrow.parquet.read_metadata(path).num_rows
    except pyarrow.ArrowException as error:
        raise VocabularyError(f"{path}: is no vocabulary: {error}") from None


@compiled
def _histogram(counts):
    """(int64 [_LIGHT]: how many values have each light count, number of heavy ones)."""
    histogram = np.zeros(_LIGHT, np.int64)
    num_heavy = 0
    for position in range(counts.size):
        if counts[position] < _LIGHT:
            histogram[counts[position]] += 1
        else:
            num_heavy += 1
    return histogram, num_heavy


@compiled
def _find_heavy(counts, heavy):
    """Fills heavy with the positions of the heavy counts."""
    found = 0
    for position in range(counts.size):
        if counts[position] >= _LIGHT:
            heavy[found] = position
            found += 1


@compiled
def _assign(counts, next_id):
    """Replaces every light count by the next id of that count; next_id is 0 where the count is below the threshold."""
    for position in range(counts.size):
        count = counts[position]
        id_ = next_id[count]
        counts[position] = np.uint32(id_)
        if id_ > 0:
            next_id[count] = id_ + 1
