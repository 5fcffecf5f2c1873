"""Preprocessing on one machine: every row is parsed once, every column is counted and encoded on its own.

    parse    input files -> label and numericals in final form, and 26 raw columns in a work folder
    columns  raw column -> counts -> vocabulary -> ids in final form; then the raw column is deleted

Memory: a few blocks of text while parsing; then the distinct values of one large column, and up to 2 * _LARGE_SLOTS
table slots for each other worker. It does not grow with the rows. The bytes written are the same for any number
of workers and any block size.
"""

import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from criteo_prep.feature_spec import Feature, FeatureSpec
from criteo_prep.manifest import ChecksummedFile, file_entry
from criteo_prep.preprocess.blocks import text_blocks
from criteo_prep.preprocess.count import ValueCounts
from criteo_prep.preprocess.encode import IdTable
from criteo_prep.preprocess.raw_columns import RawColumns
from criteo_prep.preprocess.threshold import Vocabulary, make_vocabulary
from criteo_prep.preprocess.tsv import REASONS, BadRowError, Rows, parse
from criteo_prep.progress import Progress
from criteo_prep.schema import CATEGORICAL, log_numerical

# A column whose count table has more slots than this (12 bytes each) is worked on alone.
_LARGE_SLOTS = 1 << 24
_COPY_BYTES = 4 << 20


@dataclass
class ParsedFile:
    """What one input file held.

    Attributes:
      num_rows: good rows.
      skipped: reason -> bad rows that were left out, for the reasons that occurred.
      first_skipped: the first of them for each reason, in words.
    """

    path: Path
    num_rows: int
    skipped: dict[str, int]
    first_skipped: dict[str, str]


@dataclass(frozen=True)
class _ParsedBlock:
    rows: Rows
    numerical: np.ndarray  # float16 [n, 13]
    packed_missing: np.ndarray  # see RawColumns.append


class RowWriter:
    """Takes the parsed rows of some files, in order: label and numericals of one split, and the raw columns.

    Args:
      root: the dataset folder in the making; the split's folder is created.
      spec: names the files.
      split: where the rows go until they are cut.
      raw: takes the categorical columns.
    """

    def __init__(self, root: Path, spec: FeatureSpec, split: str, raw: RawColumns):
        (root / split).mkdir()
        self._label = ChecksummedFile(root / label_file(spec, split))
        self._numerical = ChecksummedFile(root / numerical_file(spec, split))
        self._raw = raw

    def write(self, block: _ParsedBlock) -> None:
        if len(block.rows):
            self._label.write(block.rows.label)
            self._numerical.write(block.numerical)
            self._raw.append(block.rows.values, block.packed_missing)

    @property
    def entries(self) -> list[dict]:
        """The manifest's entries of the label and the numerical file."""
        return [self._label.entry, self._numerical.entry]

    def __enter__(self) -> "RowWriter":
        return self

    def __exit__(self, exception_type, exception, traceback) -> None:
        self._label.close()
        self._numerical.close()


def label_file(spec: FeatureSpec, split: str) -> str:
    return spec.chunk_of(split, spec.label.name).files[0]


def numerical_file(spec: FeatureSpec, split: str) -> str:
    return spec.chunk_of(split, spec.numerical[0].name).files[0]


def parse_files(
    paths: tuple[Path, ...],
    writer: RowWriter,
    skip_bad_rows: bool,
    workers: int,
    block_bytes: int,
    progress: "ReadProgress",
) -> list[ParsedFile]:
    """Parses files into `writer`, blocks in parallel, in order.

    Args:
      skip_bad_rows: leave bad rows out and count them; else the first one is an error.
      workers: blocks parsed at a time.
      block_bytes: text in a block.

    Raises:
      BadRowError: a bad row, by file, line and field, when they are not skipped.
      InputError, OSError: a file cannot be read.
    """
    parsed = []
    with ThreadPoolExecutor(workers) as pool:
        for path in paths:
            file = ParsedFile(path, 0, {}, {})
            first_line = 1
            texts = text_blocks(path, block_bytes, progress.read)
            for block in _in_order(pool, texts, workers):
                _take_bad_rows(file, block.rows, first_line, skip_bad_rows)
                writer.write(block)
                file.num_rows += len(block.rows)
                first_line += block.rows.num_lines
                progress.parsed(block.rows.num_lines)
            parsed.append(file)
    return parsed


def cut_rows(root: Path, spec: FeatureSpec, split: str, num_rows: int, tail_split: str) -> dict[str, dict]:
    """Moves the rows of a split's label and numericals from `num_rows` on to another, new split.

    Returns:
      The manifest's entries of the four files.
    """
    (root / tail_split).mkdir()
    entries = {}
    for file_of, row_bytes in ((label_file, 1), (numerical_file, 2 * len(spec.numerical))):
        head, tail = file_of(spec, split), file_of(spec, tail_split)
        with open(root / head, "r+b") as source, ChecksummedFile(root / tail) as target:
            source.seek(num_rows * row_bytes)
            while data := source.read(_COPY_BYTES):
                target.write(data)
            source.truncate(num_rows * row_bytes)
        entries |= {head: file_entry(root / head), tail: target.entry}
    return entries


class ColumnEncoder:
    """Turns the raw columns into the dataset's categorical files, several columns at a time.

    Args:
      root: the dataset folder in the making, with a folder for each split and `vocabularies`.
      spec: names the files.
      raw: the raw columns; each is deleted when it is done.
      splits: split -> its rows.
      counted: the rows that the vocabularies are made from.
      threshold: see make_vocabulary.
      progress: advances by 2 for every value, counted and encoded.
    """

    def __init__(
        self, root: Path, spec: FeatureSpec, raw: RawColumns, splits: dict[str, range], counted: range, threshold: int,
        progress: Progress,
    ):  # fmt: skip
        self._root, self._spec, self._raw, self._splits = root, spec, raw, splits
        self._counted, self._threshold, self._progress = counted, threshold, progress
        self._progress_lock = threading.Lock()
        self._large_column = threading.Lock()
        self._stop = threading.Event()

    def run(self, workers: int) -> tuple[list[Feature], dict[str, dict]]:
        """Does all columns.

        Returns:
          The features in column order, and the manifest's entries of the files that were written.
        """
        entries: dict[str, dict] = {}
        features: dict[int, Feature] = {}
        pool = ThreadPoolExecutor(workers)
        try:
            columns = {pool.submit(self._do_column, column): column for column in range(len(CATEGORICAL))}
            for future in as_completed(columns):
                features[columns[future]], files = future.result()
                entries |= files
        except BaseException:
            self._stop.set()
            pool.shutdown(cancel_futures=True)
            raise
        pool.shutdown()
        return [features[column] for column in sorted(features)], entries

    def _do_column(self, column: int) -> tuple[Feature, dict[str, dict]]:
        name = CATEGORICAL[column]
        alone = False
        try:
            counts = ValueCounts()
            for values, missing in self._frames(column, self._counted):
                counts.add(values, missing)
                if counts.num_slots > _LARGE_SLOTS and not alone:
                    alone = self._large_column.acquire()
            vocabulary = make_vocabulary(*counts.result(), self._threshold)
            del counts
            path = f"vocabularies/{name}.parquet"
            vocabulary.save(self._root / path)
            entries = {path: file_entry(self._root / path), **self._encode(column, vocabulary)}
        finally:
            if alone:
                self._large_column.release()
        self._raw.delete(column)
        return Feature(name, "", vocabulary.cardinality), entries

    def _encode(self, column: int, vocabulary: Vocabulary) -> dict[str, dict]:
        """Writes the ids of every split. Returns the manifest's entries."""
        ids_of = IdTable(vocabulary)
        entries = {}
        for split, rows in self._splits.items():
            path = self._spec.chunk_of(split, CATEGORICAL[column]).files[0]
            with ChecksummedFile(self._root / path) as file:
                for values, missing in self._frames(column, rows):
                    file.write(ids_of.encode(values, missing))
            entries[path] = file.entry
        return entries

    def _frames(self, column: int, rows: range) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yields (values, missing) of the given rows of a column, and counts them as progress."""
        for values, missing in self._raw.frames(column, rows):
            if self._stop.is_set():
                raise InterruptedError("the work was stopped")
            yield values, missing
            with self._progress_lock:
                self._progress.advance(len(values))


class ReadProgress:
    """Progress of parsing in rows. How many there are is not known, so the part of the bytes read stands for it.

    Args:
      progress: counts rows.
      total_bytes: of all input files, as stored.
    """

    def __init__(self, progress: Progress, total_bytes: int):
        self._progress, self._total_bytes, self._read_bytes = progress, total_bytes, 0

    def read(self, num_bytes: int) -> None:
        self._read_bytes += num_bytes

    def parsed(self, rows: int) -> None:
        if self._read_bytes:
            done = self._progress.done + rows
            self._progress.total = max(done, int(done * self._total_bytes / self._read_bytes))
        self._progress.advance(rows)


def _parse_block(text: bytes) -> _ParsedBlock:
    rows = parse(text)
    return _ParsedBlock(
        rows, log_numerical(rows.numbers, rows.numbers_missing), np.packbits(rows.values_missing, axis=1)
    )


def _in_order(pool: ThreadPoolExecutor, texts: Iterator[bytes], workers: int) -> Iterator[_ParsedBlock]:
    """Parses blocks in `pool`, at most workers + 1 of them on their way, and yields them in order."""
    pending: deque[Future] = deque()
    for text in texts:
        pending.append(pool.submit(_parse_block, text))
        if len(pending) > workers:
            yield pending.popleft().result()
    while pending:
        yield pending.popleft().result()


def _take_bad_rows(file: ParsedFile, rows: Rows, first_line: int, skip: bool) -> None:
    """Adds the bad rows of a block to the file's account, or raises BadRowError for the first of them."""
    for bad in sorted(rows.first_bad, key=lambda bad: bad.line):
        where = f"{file.path}: line {first_line + bad.line}: {bad.found}"
        if not skip:
            raise BadRowError(f"{where}. Correct the row, or add --on_bad_row skip to leave such rows out.")
        reason = REASONS[bad.reason]
        file.skipped[reason] = file.skipped.get(reason, 0) + int(rows.num_bad[bad.reason])
        file.first_skipped.setdefault(reason, where)
