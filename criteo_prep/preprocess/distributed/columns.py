"""The columns, some at a time: counted, ranked, written as vocabularies, encoded, checked, recorded as finished."""

import functools
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from criteo_prep.feature_spec import Feature, minimal_dtype
from criteo_prep.preprocess.columns.keys import Keys
from criteo_prep.preprocess.columns.vocabulary import capped_cardinality
from criteo_prep.preprocess.distributed import counts, ranking
from criteo_prep.preprocess.distributed.checksums import file_entries
from criteo_prep.preprocess.distributed.cluster import Tasks
from criteo_prep.preprocess.distributed.encode_rows import ColumnFiles, SplitFile, encode_column, encode_in_order
from criteo_prep.preprocess.distributed.row_ranges import PartRows, make_file, row_ranges
from criteo_prep.preprocess.distributed.shared_folder import SharedFolder
from criteo_prep.preprocess.distributed.shuffled_rows import RandomOrder, ShuffledFiles, collect_rows
from criteo_prep.preprocess.distributed.task_sizes import TaskSizes
from criteo_prep.preprocess.request import DatasetRequest
from criteo_prep.preprocess.stages import EncodedColumns
from criteo_prep.progress import Progress
from criteo_prep.schema import CATEGORICAL, NUM_CATEGORICAL

_TASKS_PER_CORE = 16  # columns are made together until this many tasks are there for each core


@dataclass(frozen=True)
class ParsedRows:
    """All rows, as the tasks after the parse see them.

    Attributes:
      parts: the parts that have rows, in order.
      splits: split -> its rows.
      order: the random order of the train rows; None for the order of the inputs.
    """

    parts: tuple[PartRows, ...]
    splits: dict[str, range]
    order: RandomOrder | None

    @property
    def num_rows(self) -> int:
        return sum(map(len, self.splits.values()))

    def order_of(self, split: str) -> RandomOrder | None:
        return self.order if split == "train" else None


@dataclass(frozen=True)
class _Column:
    """A column in the making; its cardinality is None for keys."""

    number: int
    cardinality: int | None

    @property
    def name(self) -> str:
        return CATEGORICAL[self.number]

    @property
    def dtype(self) -> np.dtype:
        return Keys.dtype if self.cardinality is None else np.dtype(minimal_dtype(self.cardinality))


class ColumnStage:
    """Makes the categorical columns of a dataset.

    Args:
      shared: the staging folder.
      request: what to make.
      rows: all rows.
      tasks: runs tasks.
      sizes: sizes of tasks.
    """

    def __init__(
        self, shared: SharedFolder, request: DatasetRequest, *, rows: ParsedRows, tasks: Tasks, sizes: TaskSizes
    ):
        self._shared, self._request, self._rows, self._tasks, self._sizes = shared, request, rows, tasks, sizes
        self._ranges = row_ranges(rows.parts, sizes.task_rows)
        self._keys = request.rules.keys

    def run(self, progress: Progress) -> EncodedColumns:
        """Makes the columns that are not finished. The progress counts values."""
        root = self._shared.root
        if not self._keys:
            (root / "vocabularies").mkdir(exist_ok=True)
        if self._request.keep_raw:
            (root / "raw").mkdir(exist_ok=True)
        pending = [number for number, name in enumerate(CATEGORICAL) if self._shared.document(name) is None]
        progress.advance(self._rows.num_rows * (NUM_CATEGORICAL - len(pending)))
        at_a_time = int(np.clip(-(-_TASKS_PER_CORE * self._tasks.parallelism // len(self._ranges)), 1, NUM_CATEGORICAL))
        for start in range(0, len(pending), at_a_time):
            columns = pending[start : start + at_a_time]
            self._make(columns)
            progress.advance(self._rows.num_rows * len(columns))
        features, files = [], {}
        for name in CATEGORICAL:
            document = self._shared.document(name)
            features.append(Feature(name, "", document["cardinality"], key=self._keys))
            files |= document["files"]
        return EncodedColumns(features, files)

    def _make(self, numbers: Sequence[int]) -> None:
        cardinalities = [None] * len(numbers) if self._keys else self._make_vocabularies(numbers)
        columns = [_Column(number, cardinality) for number, cardinality in zip(numbers, cardinalities, strict=True)]
        self._encode(columns)
        files = {column.name: [self._file(column, split) for split in self._rows.splits] for column in columns}
        if not self._keys:
            for name, names in files.items():
                names.append(f"vocabularies/{name}.parquet")
        entries = file_entries(self._tasks, self._shared.root, [name for names in files.values() for name in names])
        for column in columns:
            document = {
                "cardinality": column.cardinality,
                "files": {name: entries[name] for name in files[column.name]},
            }
            self._shared.finish(column.name, document)

    def _make_vocabularies(self, numbers: Sequence[int]) -> list[int]:
        """Makes the vocabulary files of some columns. Returns their cardinalities."""
        rules, splits, scratch = self._request.rules, self._rows.splits, self._shared.scratch
        only_train = rules.vocabulary_days == "train" and "train" in splits
        counted = splits["train"] if only_train else range(self._rows.num_rows)
        job = self._count_job(numbers, counted)
        job.folder.mkdir()
        ranges = [each for each in self._ranges if each.rows.start < counted.stop]
        buckets = self._tasks.exchange(
            functools.partial(counts.deal_counts, job),
            ranges,
            collect=functools.partial(counts.collect_counts, job),
            num_partitions=int(job.first_buckets[-1]),
        )
        jobs, cardinalities = [], []
        for number, first, stop in zip(numbers, job.first_buckets, job.first_buckets[1:], strict=False):
            ids, ranked = ranking.rank_buckets(buckets[first:stop])
            path = scratch / f"{CATEGORICAL[number]}.parquet"
            jobs.append(ranking.VocabularyJob(path, job.folder, ranking=ids, buckets=ranked, cap=rules.caps[number]))
            cardinalities.append(capped_cardinality(ids.num_kept, rules.caps[number]))
        self._tasks.run(ranking.write_column_vocabulary, jobs)
        for each in jobs:
            os.replace(each.path, self._shared.root / "vocabularies" / each.path.name)
        shutil.rmtree(job.folder, ignore_errors=True)  # the duplicate of a task may still write into it
        return cardinalities

    def _count_job(self, numbers: Sequence[int], counted: range) -> counts.CountJob:
        num_buckets = max(1, -(-len(counted) // self._sizes.bucket_rows))
        parts = [part for part in self._rows.parts if part.first_row < counted.stop]
        boundaries = counts.choose_boundaries(self._shared.parts, parts, num_buckets=num_buckets)
        return counts.CountJob(
            self._shared.parts,
            tuple(numbers),
            tuple(boundaries[number] for number in numbers),
            thresholds=tuple(self._request.rules.thresholds[number] for number in numbers),
            counted=counted,
            folder=self._shared.scratch / f"counts-{numbers[0]}",
        )

    def _encode(self, columns: Sequence[_Column]) -> None:
        """Makes the id files of some columns, which get their names when they are complete."""
        root, scratch = self._shared.root, self._shared.scratch
        targets: dict[Path, Path] = {}
        works = []
        for place, column in enumerate(columns):
            files = []
            for split, rows in self._rows.splits.items():
                name = self._file(column, split)
                targets[scratch / name] = root / name
                files.append(SplitFile(scratch / name, rows, self._rows.order_of(split)))
                _make(scratch / name, len(rows) * column.dtype.itemsize)
            works.append(
                ColumnFiles(
                    self._shared.parts,
                    place,
                    column.number,
                    files=tuple(files),
                    vocabulary=None if self._keys else root / "vocabularies" / f"{column.name}.parquet",
                    cap=None if self._keys else self._request.rules.caps[column.number],
                    raw=self._raw_files(column, targets) if self._request.keep_raw else None,
                    run=self._shared.run,
                )
            )
        work = [(each, rows) for each in works for rows in self._ranges]
        if self._rows.order:
            shuffled = tuple(file.path for each in works for file in each.files if file.order)
            self._tasks.exchange(
                encode_column,
                work,
                collect=functools.partial(collect_rows, ShuffledFiles(self._rows.order, shuffled)),
                num_partitions=len(columns) * self._rows.order.num_buckets,
            )
        else:
            self._tasks.run(encode_in_order, work)
        for path, target in targets.items():
            os.replace(path, target)

    def _raw_files(self, column: _Column, targets: dict[Path, Path]) -> tuple[Path, Path]:
        """Makes the empty files of a raw column, and adds them to the targets."""
        last = self._rows.parts[-1]
        num_zeros = last.zeros_before[column.number] + last.num_zeros[column.number]
        sizes = {f"raw/{column.name}.raw": 4 * self._rows.num_rows, f"raw/{column.name}.zeros": 8 * num_zeros}
        for name, size in sizes.items():
            _make(self._shared.scratch / name, size)
            targets[self._shared.scratch / name] = self._shared.root / name
        raw, zeros = (self._shared.scratch / name for name in sizes)
        return raw, zeros

    def _file(self, column: _Column, split: str) -> str:
        return self._request.layout.chunk_of(split, column.name).files[0]


def _make(path: Path, num_bytes: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    make_file(path, num_bytes)
