"""The categorical columns, each on its own: raw column -> counts -> vocabulary -> ids in their final files.

With raw ids, a raw column becomes keys, without counts and vocabulary.

Several threads encode columns at a time. A column with many distinct values takes much memory, so the memory limit says
how many such columns are encoded at a time. The journal records each finished column, whose raw file is then deleted.
"""

import contextlib
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from criteo_prep.durable import force
from criteo_prep.feature_spec import Feature, FeatureSpec
from criteo_prep.intact import check_file
from criteo_prep.manifest import BlockChecksums, block_entry
from criteo_prep.preprocess.columns import hash_table, vocabulary
from criteo_prep.preprocess.columns.count import LargeCounts, count_small
from criteo_prep.preprocess.columns.id_table import IdTable
from criteo_prep.preprocess.columns.keys import Keys
from criteo_prep.preprocess.columns.memory import MemoryPlan
from criteo_prep.preprocess.journal import Journal
from criteo_prep.preprocess.parse.raw_columns import RawColumns, append
from criteo_prep.preprocess.shuffle import ShuffledFile
from criteo_prep.progress import Progress
from criteo_prep.schema import CATEGORICAL, NUM_CATEGORICAL


@dataclass(frozen=True)
class GivenVocabularies:
    """The vocabularies of a finished dataset.

    Attributes:
      folder: holds cat_<i>.parquet.
      entries: name of a column -> the entry of its vocabulary in the manifest.
    """

    folder: Path
    entries: dict[str, dict]


@dataclass(frozen=True)
class ColumnWork:
    """What the encoder reads, and what it makes.

    Attributes:
      root: the dataset folder in the making, with a folder for each split and, except for keys, `vocabularies`.
      spec: feature spec that names the files to write.
      raw: the raw columns.
      splits: split -> the rows of the split.
      counted: the rows whose values the vocabularies are made from.
      thresholds: threshold of each column; see rules.Rules.
      caps: largest cardinality of each column, or None; see rules.Rules.
      seed: seed of the random order of the train rows; None keeps their order.
      keep_raw: whether the raw columns stay when the columns are finished.
      given: existing vocabularies to use; None to count the values.
      keys: whether the columns become keys in place of ids.
      on_finished: called with the files of each column that is finished.
    """

    root: Path
    spec: FeatureSpec
    raw: RawColumns
    splits: dict[str, range]
    counted: range
    thresholds: tuple[int, ...]
    caps: tuple[int | None, ...]
    seed: int | None = None
    keep_raw: bool = False
    given: GivenVocabularies | None = None
    keys: bool = False
    on_finished: Callable[[list[Path]], None] = lambda paths: None


class ColumnEncoder:
    """Turns the raw columns into the dataset's categorical files.

    Args:
      work: the columns and the files to make.
      journal: record of the columns that are finished.
      memory: memory limit and number of threads.
      progress: advanced for every value that is read.
    """

    def __init__(self, work: ColumnWork, journal: Journal, *, memory: MemoryPlan, progress: Progress):
        self._work, self._journal, self._memory, self._progress = work, journal, memory, progress
        self._progress_lock = threading.Lock()
        self._num_large = memory.large_columns(work.raw.num_rows)
        self._large_column = threading.Semaphore(self._num_large)
        self._stop = threading.Event()

    def run(self, columns: Iterable[int] = range(NUM_CATEGORICAL)) -> tuple[list[Feature], dict[str, dict]]:
        """Encodes the columns that are not finished.

        Args:
          columns: numbers of the columns, all by default.

        Returns:
          The features in column order, and the manifest's entries for the files of the columns.
        """
        entries: dict[str, dict] = {}
        features: dict[int, Feature] = {}
        pool = ThreadPoolExecutor(self._memory.workers)
        try:
            pending = {pool.submit(self._do_column, column): column for column in columns}
            for future in as_completed(pending):
                column, finished = pending[future], future.result()
                features[column] = Feature(CATEGORICAL[column], "", finished["cardinality"], key=self._work.keys)
                entries |= finished["files"]
                self._work.on_finished([self._work.root / file for file in finished["files"]])
        except BaseException:
            self._stop.set()
            pool.shutdown(cancel_futures=True)
            raise
        pool.shutdown()
        return [features[column] for column in sorted(features)], entries

    def _do_column(self, column: int) -> dict:
        """Makes the files of a column, unless the journal has them. Returns the journal's document."""
        name = CATEGORICAL[column]
        document = self._journal.column(name)
        if document is None:
            if self._work.keys:
                document = {"cardinality": None, "files": self._encode(column, Keys())}
            else:
                document = self._vocabulary_and_ids(column)
            if self._journal.forced:
                paths = [self._work.root / file for file in document["files"]]
                force([*paths, *{path.parent for path in paths}])
            self._journal.finish_column(name, document)
        if not self._work.keep_raw:
            self._work.raw.delete(column)
        return document

    def _vocabulary_and_ids(self, column: int) -> dict:
        """Makes the vocabulary and the ids of a column. Returns the journal's document."""
        name = CATEGORICAL[column]
        with contextlib.ExitStack() as large:
            wait_for_memory = lambda: large.enter_context(self._large_column)  # noqa: E731
            path = self._work.root / "vocabularies" / f"{name}.parquet"
            if self._work.given:
                source = self._work.given.folder / path.name
                shutil.copyfile(source, path)
                check_file(path, self._work.given.entries[name], stands_for=source)
            elif not self._count_small(column, path):
                wait_for_memory()
                self._count_large(column, path)
            kept = vocabulary.num_kept(path)
            if kept > hash_table.MAX_VALUES and self._work.given:
                wait_for_memory()
                self._memory.check_distinct(name, kept, self._num_large)
            ids_of = IdTable.load(path, self._work.caps[column])
            files = {f"vocabularies/{path.name}": block_entry(path), **self._encode(column, ids_of)}
            return {"cardinality": ids_of.cardinality, "files": files}

    def _count_small(self, column: int, path: Path) -> bool:
        """Writes the vocabulary of a column with few distinct values. Returns whether the column has few."""
        work = self._work
        values = (values for values, _ in self._blocks(column, work.counted))
        counted = count_small(values, work.raw.num_zeros_in(column, work.counted))
        if counted is None:
            return False
        vocabulary.make_vocabulary(*counted, work.thresholds[column]).save(path, work.caps[column])
        return True

    def _count_large(self, column: int, path: Path) -> None:
        """Writes the vocabulary of a column with many distinct values."""
        work, counts = self._work, LargeCounts()
        for values, _ in self._blocks(column, work.counted):
            counts.mark(values)
        counts.index()
        self._memory.check_distinct(CATEGORICAL[column], counts.members.num_values, self._num_large)
        counts.allocate()
        for values, _ in self._blocks(column, work.counted):
            counts.count(values)
        counts.set_zeros(work.raw.num_zeros_in(column, work.counted))
        ranking = vocabulary.rank_by_count(counts.counts, work.thresholds[column], counts.num_wraps)
        select = lambda first, values: counts.members.select(counts.counts, first, values)  # noqa: E731
        vocabulary.write_vocabulary(path, ranking, select=select, cap=work.caps[column])

    def _encode(self, column: int, ids_of: IdTable | Keys) -> dict[str, dict]:
        """Writes the ids or keys of a column in every split. Returns the manifest's entries for the files."""
        entries = {}
        for split, rows in self._work.splits.items():
            path = self._work.spec.chunk_of(split, CATEGORICAL[column]).files[0]
            blocks = (ids_of.encode(values, zero_rows) for values, zero_rows in self._blocks(column, rows))
            seed = self._work.seed if split == "train" else None
            entries[path] = write_ids(self._work.root / path, blocks, num_rows=len(rows), dtype=ids_of.dtype, seed=seed)
        return entries

    def _blocks(self, column: int, rows: range) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yields (values, zero rows) of the given rows of a column, and advances the progress."""
        for values, zero_rows in self._work.raw.blocks(column, rows):
            if self._stop.is_set():
                raise InterruptedError("the work was stopped")
            yield values, zero_rows
            with self._progress_lock:
                self._progress.advance(len(values))


def write_ids(path: Path, blocks: Iterator[np.ndarray], *, num_rows: int, dtype: np.dtype, seed: int | None) -> dict:
    """Writes one id file: in the given order or, with a seed, in a random order.

    Args:
      path: the file to write.
      blocks: ids of consecutive rows.
      num_rows: rows of all blocks together.
      dtype: dtype of the ids in the file.
      seed: seed of the random order; None keeps the order.

    Returns:
      The manifest's entry for the file.
    """
    if seed is not None:
        scratch = path.parent.parent / "work" / f"{path.stem}.scratch"
        with ShuffledFile(path, scratch, num_rows=num_rows, dtype=dtype, width=1, seed=seed) as file:
            for ids in blocks:
                file.write(ids)
        return block_entry(path)
    checksums = BlockChecksums()
    with open(path, "wb", buffering=0) as file:
        for ids in blocks:
            append(file, ids)
            checksums.update(ids)
    return checksums.entry
