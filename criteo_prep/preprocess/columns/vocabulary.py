"""Vocabulary: which values of a column get an id, and which id. The id rule stands in one function, rank_by_count."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from criteo_prep.compiled import compiled
from criteo_prep.preprocess.parquet_file import integers_of, open_parquet

ID_RULE = (
    "id 0: missing, seen fewer than threshold times, or not seen; ids from 1 by (count descending, value ascending)"
)
CAP_RULE = "an id above max_cardinality - 1 becomes 1 + (id - 1) mod (max_cardinality - 1)"
WINDOW_IDS = 1 << 25  # ids of a vocabulary that are in memory at a time while the file is written
_LIGHT = 1 << 16  # counts below this are light: ranked by counting them; heavy counts are ranked by sorting
FILE_ROWS = 1 << 20  # rows in a row group; one row group is in memory at a time (pre_buffer would keep all)


class VocabularyError(ValueError):
    """A threshold is not valid, or a file is not a vocabulary."""


@dataclass(frozen=True)
class Ranking:
    """The ids of a column, and how often their values were seen, as runs of ids with equal counts.

    Attributes:
      num_kept: number of values with an id; the ids are 1 to num_kept.
      first_ids: int64 [runs], ascending: the first id of each run.
      counts: int64 [runs], descending: how often each value of the run was seen.
    """

    num_kept: int
    first_ids: np.ndarray
    counts: np.ndarray

    def counts_of(self, first: int, stop: int) -> np.ndarray:
        """int64 [stop - first], how often the values with the ids first to stop - 1 were seen."""
        return self.counts[np.searchsorted(self.first_ids, np.arange(first, stop), side="right") - 1]


def rank_by_count(counts: np.ndarray, threshold: int, num_wraps: dict[int, int] | None = None) -> Ranking:
    """The id rule: a value seen `threshold` times or more has an id; ids from 1 by (count descending, value ascending).

    A histogram of the counts ranks nearly all values in two passes, without a sort.

    Args:
      counts: uint32 [distinct], how often each value was seen, by ascending value. Overwritten with the ids; 0 for a
        value without an id. A value with count 0 never has an id.
      threshold: least count of a value with an id; 0 and 1 both keep every value that was seen.
      num_wraps: position in counts -> multiples of 2^32 that are missing from that count.

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
    counts[heavy] = 0  # so that _assign gives ids to the light counts alone
    _assign(counts, next_id)
    counts[heavy[order]] = np.where(np.arange(len(order)) < num_kept_heavy, np.arange(1, len(order) + 1), 0)
    used = lengths > 0
    return Ranking(
        num_kept_heavy + int(lengths.sum()),
        np.concatenate([np.arange(1, num_kept_heavy + 1), firsts[used]]),
        np.concatenate([totals[order][:num_kept_heavy], kept_light[used]]),
    )


@dataclass(frozen=True)
class Vocabulary:
    """The values of one column that have an id. The value at position i has id i + 1; id 0 stands for all other values.

    Attributes:
      values: uint32 [kept].
      counts: int64 [kept], how often each value was seen; descending.
    """

    values: np.ndarray
    counts: np.ndarray

    @property
    def cardinality(self) -> int:
        """Number of ids, id 0 included: 1 for a column without kept values."""
        return len(self.values) + 1

    def save(self, path: str | Path, cap: int | None = None) -> None:
        """Writes the file that `write_vocabulary` describes."""
        ranking = Ranking(len(self.values), np.arange(1, self.cardinality), self.counts)
        write_vocabulary(
            path,
            ranking,
            select=lambda first, out: np.copyto(out, self.values[first - 1 : first - 1 + len(out)]),
            cap=cap,
        )

    @classmethod
    def load(cls, path: str | Path, cap: int | None = None) -> "Vocabulary":
        """Reads a whole vocabulary file; raises what `read_vocabulary` raises."""
        parts = [(values, counts) for values, counts in read_vocabulary(path, cap)]
        return cls(
            np.concatenate([np.empty(0, np.uint32), *(values for values, _ in parts)]),
            np.concatenate([np.empty(0, np.int64), *(counts for _, counts in parts)]),
        )


def make_vocabulary(values: np.ndarray, counts: np.ndarray, threshold: int) -> Vocabulary:
    """The vocabulary of counted values, which may be in any order.

    Args:
      values: uint32 [distinct], each value once.
      counts: int64 [distinct], how often each value was seen, at least 1.
      threshold: see rank_by_count.
    """
    order = np.argsort(values)
    values, totals = values[order], counts[order].astype(np.int64)
    ids = (totals & 0xFFFFFFFF).astype(np.uint32)
    wraps = {int(place): int(totals[place] >> 32) for place in np.flatnonzero(totals >> 32)}
    ranking = rank_by_count(ids, threshold, wraps)
    kept = np.empty(ranking.num_kept, np.uint32)
    kept[ids[ids > 0].astype(np.int64) - 1] = values[ids > 0]
    return Vocabulary(kept, ranking.counts_of(1, ranking.num_kept + 1))


def capped(ids: np.ndarray, cap: int | None) -> np.ndarray:
    """The ids under CAP_RULE, for ids from 1; a cap of None leaves the ids as they are."""
    return ids if cap is None else 1 + (ids - 1) % (cap - 1)


def capped_cardinality(num_kept: int, cap: int | None) -> int:
    """Number of ids under the cap for a vocabulary of num_kept values, id 0 included."""
    return num_kept + 1 if cap is None else min(num_kept + 1, cap)


def write_vocabulary(
    path: str | Path, ranking: Ranking, *, select: Callable[[int, np.ndarray], None], cap: int | None = None
) -> None:
    """Writes a parquet file of `value` (uint32), `id` (int32) and `count` (int64), the most frequent value first.

    Args:
      path: the file to write.
      ranking: the ids and their counts.
      select: called as select(first, values); fills values, uint32 [n]: values[i] is the value whose id, before the
        cap, is first + i.
      cap: largest cardinality, or None; see CAP_RULE.
    """
    import pyarrow
    import pyarrow.parquet

    schema = file_schema()
    with pyarrow.parquet.ParquetWriter(path, schema, use_dictionary=["count"]) as writer:
        for start in range(1, ranking.num_kept + 1, WINDOW_IDS):
            values = np.empty(min(WINDOW_IDS, ranking.num_kept + 1 - start), np.uint32)
            select(start, values)
            for first in range(start, start + len(values), FILE_ROWS):
                part = values[first - start :][:FILE_ROWS]
                stop = first + len(part)
                ids = capped(np.arange(first, stop, dtype=np.int64), cap).astype(np.int32)
                columns = _arrow_arrays(schema, [part, ids, ranking.counts_of(first, stop)])
                writer.write_batch(pyarrow.RecordBatch.from_arrays(columns, schema=schema), FILE_ROWS)


def _arrow_arrays(schema, columns: list[np.ndarray]) -> list:
    """Numbers as pyarrow arrays. pyarrow.array would import an installed pandas first, which takes 0.15 s."""
    import pyarrow

    buffers = [pyarrow.py_buffer(np.ascontiguousarray(column)) for column in columns]
    return [
        pyarrow.Array.from_buffers(field.type, len(column), [None, buffer])
        for field, column, buffer in zip(schema, columns, buffers, strict=True)
    ]


def read_vocabulary(path: str | Path, cap: int | None = None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields (values uint32 [n], counts int64 [n]) of a vocabulary file, in order.

    Raises:
      VocabularyError: the file is not a vocabulary, or its ids are not 1, 2, 3, ... (under the cap).
      OSError: the file cannot be read.
    """
    first = 1
    with open_parquet(path, VocabularyError) as file:
        for batch in file.iter_batches(FILE_ROWS, columns=["value", "id", "count"]):
            ids = integers_of(batch.column(1))
            if not np.array_equal(ids, capped(np.arange(first, first + len(ids)), cap)):
                raise VocabularyError(
                    f"{path}: is not a vocabulary: its ids are not 1 to {file.metadata.num_rows} in order. "
                    "Name a dataset that criteo-prep preprocess made."
                )
            first += len(ids)
            yield integers_of(batch.column(0)).astype(np.uint32), integers_of(batch.column(2)).astype(np.int64)


def cut_vocabulary(path: str | Path, target: str | Path, threshold: int) -> int:
    """Writes the vocabulary that a higher threshold keeps; the ids of the kept values do not change.

    Args:
      path: a vocabulary file.
      target: the file to write.
      threshold: not lower than the threshold of the vocabulary.

    Returns:
      The number of values that are kept.
    """
    import pyarrow
    import pyarrow.parquet

    kept = 0
    with (
        open_parquet(path, VocabularyError) as file,
        pyarrow.parquet.ParquetWriter(
            target, file_schema(file.schema_arrow.field("value").type), use_dictionary=["count"]
        ) as writer,
    ):
        for batch in file.iter_batches(FILE_ROWS):
            num_kept_here = int(np.count_nonzero(integers_of(batch.column(2)) >= threshold))
            if not num_kept_here:
                break
            writer.write_table(pyarrow.Table.from_batches([batch.slice(0, num_kept_here)]), row_group_size=FILE_ROWS)
            kept += num_kept_here
    return kept


def file_schema(values=None):
    """The columns of a vocabulary file; `values` is the pyarrow type of the values, uint32 by default."""
    import pyarrow

    values = values or pyarrow.uint32()
    return pyarrow.schema([("value", values), ("id", pyarrow.int32()), ("count", pyarrow.int64())])


def num_kept(path: str | Path) -> int:
    """Number of values in a vocabulary file. Only the footer is read."""
    with open_parquet(path, VocabularyError) as file:
        return file.metadata.num_rows


@compiled
def _histogram(counts):
    """Returns (int64 [_LIGHT], how many values have each light count; number of heavy counts)."""
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
    """Fills `heavy` with the positions of the heavy counts."""
    found = 0
    for position in range(counts.size):
        if counts[position] >= _LIGHT:
            heavy[found] = position
            found += 1


@compiled
def _assign(counts, next_id):
    """Replaces every light count by the next id for that count; next_id is 0 for a count below the threshold."""
    for position in range(counts.size):
        count = counts[position]
        id_ = next_id[count]
        counts[position] = np.uint32(id_)
        if id_ > 0:
            next_id[count] = id_ + 1
