"""Parsing on one machine: every file is read and parsed once, blocks in parallel, and gone on with where it was
stopped. What it writes is told in row_writer.py.

Reading, parsing and writing overlap: a thread reads and writes, the workers parse. Memory is a few blocks of text.
The bytes written are the same for any number of workers and any block size.
"""

import contextlib
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from criteo_prep.preprocess.journal import Journal, ParsedFile
from criteo_prep.preprocess.parse import parquet_rows
from criteo_prep.preprocess.parse.numerical import log_of
from criteo_prep.preprocess.parse.row_writer import CHECKPOINT_BYTES, Checkpoints, ParsedBlock, RowWriter
from criteo_prep.preprocess.parse.text_blocks import BLOCK_BYTES, text_blocks
from criteo_prep.preprocess.parse.tsv import REASONS, BadRow, BadRowError, Rows, parse
from criteo_prep.progress import Progress
from criteo_prep.schema import NUM_CATEGORICAL
from criteo_prep.unchanged import check_unchanged


@dataclass(frozen=True)
class Parsing:
    """How files are parsed.

    Attributes:
      labelled: rows have labels.
      skip_bad_rows: leave bad rows out and count them; else the first one is an error.
      workers: blocks parsed at a time.
      block_bytes: text in a block.
      checkpoint_bytes: output after which the journal is written.
    """

    labelled: bool
    skip_bad_rows: bool
    workers: int
    block_bytes: int = BLOCK_BYTES
    checkpoint_bytes: int = CHECKPOINT_BYTES


def parse_files(
    paths: tuple[Path, ...], root: Path, *, journal: Journal, parsing: Parsing, progress: "ReadProgress"
) -> None:
    """Parses the files, from where the journal says on, into label, numericals and raw columns.

    Raises:
      BadRowError: a bad row, by file, line and field, when they are not skipped.
      InputError, OSError: a file cannot be read, or the disk is full.
    """
    with (
        RowWriter(root, journal) as writer,
        Checkpoints(writer, journal, parsing.checkpoint_bytes) as checkpoints,
        ThreadPoolExecutor(parsing.workers) as pool,
    ):
        progress.pass_over([file for file in journal.files if file.finished])
        try:
            for number, path in enumerate(paths):
                if number == len(journal.files):
                    journal.files.append(ParsedFile(str(path), num_zeros=journal.num_zeros))
                if not journal.files[number].finished:
                    _parse_file(
                        pool,
                        path,
                        writer=writer,
                        journal=journal,
                        parsing=parsing,
                        progress=progress,
                        checkpoints=checkpoints,
                    )
        except (ValueError, OSError):
            with contextlib.suppress(OSError):  # as on a full disk; an earlier checkpoint is there
                checkpoints.save()
            _check_last_file(
                paths[len(journal.files) - 1], journal
            )  # explains best why a row is bad or a stream ends early
            raise
        journal.parsed = True
        checkpoints.save()


def _parse_file(
    pool: ThreadPoolExecutor,
    path: Path,
    *,
    writer: RowWriter,
    journal: Journal,
    parsing: Parsing,
    progress: "ReadProgress",
    checkpoints: Checkpoints,
) -> None:
    """Parses the last file of the journal, from its position on."""
    file = journal.files[-1]
    for block, position in _in_order(
        pool, _block_parsers(path, file.position, parsing=parsing, progress=progress), parsing.workers
    ):
        if not parsing.skip_bad_rows:
            _refuse_bad_rows(file, block.rows)
        writer.write(block)
        _count_bad_rows(file, block.rows)
        file.num_rows += len(block.rows)
        file.num_lines += block.rows.num_lines
        file.position, file.num_zeros = position, writer.num_zeros
        progress.parsed(block.rows.num_lines)
        checkpoints.advance()
    _check_last_file(path, journal)
    file.finished = True
    checkpoints.save()


def _check_last_file(path: Path, journal: Journal) -> None:
    """Raises ChangedError where the last file of the journal is not as it was when the run began."""
    check_unchanged(path, journal.wanted["inputs"][len(journal.files) - 1])


class ReadProgress:
    """Progress of parsing in rows. How many there are is not known, so the part of the bytes read stands for it.

    Args:
      progress: counts rows.
      sizes: bytes of each input file, as stored.
    """

    def __init__(self, progress: Progress, sizes: list[int]):
        self._progress, self._sizes, self._read_bytes = progress, sizes, 0
        self._left_bytes = sum(sizes)

    def pass_over(self, files: list[ParsedFile]) -> None:
        """Those are parsed already."""
        self._left_bytes -= sum(self._sizes[: len(files)])

    def read(self, num_bytes: int) -> None:
        self._read_bytes += num_bytes

    def parsed(self, rows: int) -> None:
        if self._read_bytes:
            done = self._progress.done + rows
            self._progress.total = max(done, int(done * self._left_bytes / self._read_bytes))
        self._progress.advance(rows)


def _block_parsers(
    path: Path, position: int, *, parsing: Parsing, progress: ReadProgress
) -> Iterator[tuple[Callable[[], ParsedBlock], int]]:
    """Yields (what parses a block, the position after it) of one file, from a position on."""
    if parquet_rows.is_parquet(path):
        size, num_rows = path.stat().st_size, max(1, parquet_rows.num_rows_of(path))
        for batch, stop in parquet_rows.row_blocks(path, parsing.labelled, position):
            progress.read(size * batch.num_rows // num_rows)
            yield partial(_parse_batch, batch, parsing.labelled), stop
    else:
        at_a_time = parsing.workers + 2  # more than are on their way
        for text, stop in text_blocks(
            path, parsing.block_bytes, on_read=progress.read, skip_bytes=position, at_a_time=at_a_time
        ):
            yield partial(_parse_text, text, parsing.labelled), stop


def _parse_text(text: np.ndarray, labelled: bool) -> ParsedBlock:
    return _finished(parse(text, labelled))


def _parse_batch(batch, labelled: bool) -> ParsedBlock:
    return _finished(parquet_rows.rows_of(batch, labelled))


def _finished(rows: Rows) -> ParsedBlock:
    zero_rows = [rows.zero_rows(column) for column in range(NUM_CATEGORICAL)]
    return ParsedBlock(rows, log_of(rows.numbers, rows.missing), zero_rows)


def _in_order(
    pool: ThreadPoolExecutor, parsers: Iterator[tuple[Callable[[], ParsedBlock], int]], workers: int
) -> Iterator[tuple[ParsedBlock, int]]:
    """Parses blocks in `pool`, at most workers + 1 of them on their way, the one being read included, and yields them
    in order. What was parsed before an input failed is yielded before the error is raised, so that it is kept."""
    pending: deque[tuple[Future, int]] = deque()
    failure = None
    while True:
        try:
            parser, position = next(parsers)
        except StopIteration:
            break
        except (ValueError, OSError) as error:
            failure = error
            break
        pending.append((pool.submit(parser), position))
        if len(pending) > workers:
            future, position = pending.popleft()
            yield future.result(), position
    while pending:
        future, position = pending.popleft()
        yield future.result(), position
    if failure:
        raise failure


def _refuse_bad_rows(file: ParsedFile, rows: Rows) -> None:
    for bad in sorted(rows.first_bad, key=lambda bad: bad.line):
        raise BadRowError(f"{_where(file, bad)}. Correct the row, or add --on_bad_row skip to leave such rows out.")


def _count_bad_rows(file: ParsedFile, rows: Rows) -> None:
    """Adds the bad rows of a block to the file's account."""
    for bad in sorted(rows.first_bad, key=lambda bad: bad.line):
        reason = REASONS[bad.reason]
        file.skipped[reason] = file.skipped.get(reason, 0) + int(rows.num_bad[bad.reason])
        file.first_skipped.setdefault(reason, _where(file, bad))


def _where(file: ParsedFile, bad: BadRow) -> str:
    return f"{file.path}: line {file.num_lines + bad.line + 1}: {bad.found}"
