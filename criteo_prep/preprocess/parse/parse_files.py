"""Parsing on one machine: every file is read and parsed once, blocks in parallel; a stopped run resumes.

One thread reads and writes while the workers parse. Memory is a few blocks of text. The written bytes are the same for
any number of workers and any block size; row_writer.py says which files are written.
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from criteo_prep.parallel import in_order
from criteo_prep.preprocess.journal import Journal, ParsedFile
from criteo_prep.preprocess.locations import Location, RemoteError, check_unchanged, size_of
from criteo_prep.preprocess.parse import parquet_rows
from criteo_prep.preprocess.parse.labels import refuse_unlabelled
from criteo_prep.preprocess.parse.numerical import log_numbers
from criteo_prep.preprocess.parse.row_writer import CHECKPOINT_BYTES, Checkpoints, ParsedBlock, RowWriter
from criteo_prep.preprocess.parse.text_blocks import BLOCK_BYTES, text_blocks
from criteo_prep.preprocess.parse.text_stream import TruncatedError
from criteo_prep.preprocess.parse.tsv import REASONS, BadRow, BadRowError, Rows, parse
from criteo_prep.progress import Progress
from criteo_prep.schema import NUM_CATEGORICAL

_AHEAD = 4  # blocks that are parsed or wait for a worker while one is written; fewer leave workers without work


@dataclass(frozen=True)
class Parsing:
    """How files are parsed.

    Attributes:
      labelled: whether rows have labels.
      skip_bad_rows: whether bad rows are left out and counted; else the first bad row is an error.
      keep_truncated: whether the whole rows of a truncated file are used; else such a file is an error.
      workers: blocks parsed at a time.
      block_bytes: text in a block.
      checkpoint_bytes: output between two checkpoints.
    """

    labelled: bool
    skip_bad_rows: bool
    keep_truncated: bool
    workers: int
    block_bytes: int = BLOCK_BYTES
    checkpoint_bytes: int = CHECKPOINT_BYTES


def parse_files(
    paths: tuple[Location, ...], root: Path, *, journal: Journal, parsing: Parsing, progress: "ReadProgress"
) -> None:
    """Parses the files into label, numericals and raw columns, starting at the position that the journal has.

    Args:
      paths: the input files, in order.
      root: the dataset folder in the making.
      journal: record of the files and rows that are parsed already.
      parsing: how files are parsed.
      progress: the progress to advance.

    Raises:
      BadRowError: a row is bad, and bad rows are not skipped; the error names file, line and field.
      InputError, OSError: a file cannot be read or has no labels, or the disk is full.
    """
    if parsing.labelled:
        refuse_unlabelled(paths[sum(file.finished for file in journal.files) :])
    with (
        RowWriter(root, journal) as writer,
        Checkpoints(writer, journal, parsing.checkpoint_bytes) as checkpoints,
    ):
        progress.skip_files(sum(file.finished for file in journal.files))
        try:
            for number, path in enumerate(paths):
                if number == len(journal.files):
                    journal.files.append(ParsedFile(str(path), num_zeros=journal.num_zeros))
                if not journal.files[number].finished:
                    _parse_file(
                        path,
                        writer=writer,
                        journal=journal,
                        parsing=parsing,
                        progress=progress,
                        checkpoints=checkpoints,
                    )
        except (ValueError, OSError):
            with contextlib.suppress(OSError):  # on a full disk, for example; the earlier checkpoint remains
                checkpoints.save()
            with contextlib.suppress(RemoteError):  # then nobody knows whether the file has changed
                # A change of the file explains best why a row is bad or a stream ends early.
                _check_last_file(paths[len(journal.files) - 1], journal)
            raise
        journal.parsed = True
        checkpoints.save()


def _parse_file(
    path: Location,
    *,
    writer: RowWriter,
    journal: Journal,
    parsing: Parsing,
    progress: "ReadProgress",
    checkpoints: Checkpoints,
) -> None:
    """Parses the last file of the journal, starting at its position."""
    file = journal.files[-1]
    with contextlib.closing(_parsed_blocks(path, file, parsing=parsing, progress=progress)) as blocks:
        for block, position in blocks:
            if not parsing.skip_bad_rows:
                _refuse_bad_rows(file, block.rows)
            writer.write(block)
            _count_bad_rows(file, block.rows)
            file.num_rows += len(block.rows)
            file.num_lines += block.rows.num_lines
            file.position, file.num_zeros = position, writer.num_zeros
            progress.add_rows(block.rows.num_lines)
            checkpoints.advance()
    _check_last_file(path, journal)
    file.finished = True
    checkpoints.save()


def _parsed_blocks(
    path: Location, file: ParsedFile, *, parsing: Parsing, progress: "ReadProgress"
) -> Iterator[tuple[ParsedBlock, int]]:
    """Yields (the parsed block, the position after it) of a file, starting at the position of `file`.

    A file that ends early is an error, unless parsing.keep_truncated; then it is recorded in `file`.
    """
    parsers = _block_parsers(path, file.position, parsing=parsing, progress=progress)
    with contextlib.closing(
        in_order(lambda parser: parser(), parsers, workers=parsing.workers, ahead=_AHEAD)
    ) as blocks:
        try:
            yield from blocks
        except TruncatedError as error:
            if not parsing.keep_truncated:
                raise
            file.skipped["truncated"] = 1 if error.lost_bytes else 0
            file.first_skipped["truncated"] = (
                f"{file.path}: the file ends early, after line {file.num_lines}; {error.lost_bytes} bytes of the next "
                "row, and all rows behind it, are lost"
            )


def _check_last_file(path: Location, journal: Journal) -> None:
    """Raises ChangedError where the last file of the journal is not as it was when the run began."""
    check_unchanged(path, journal.wanted["inputs"][len(journal.files) - 1])


class ReadProgress:
    """Progress of parsing, in rows. The total is estimated from the part of the bytes that is read.

    Args:
      progress: the progress to advance, in rows.
      sizes: stored bytes of each input file.
    """

    def __init__(self, progress: Progress, sizes: list[int]):
        self._progress, self._sizes, self._read_bytes = progress, sizes, 0
        self._left_bytes = sum(sizes)

    def skip_files(self, num_files: int) -> None:
        """The first files are parsed already."""
        self._left_bytes -= sum(self._sizes[:num_files])

    def add_bytes(self, num_bytes: int) -> None:
        """More stored bytes are read."""
        self._read_bytes += num_bytes

    def add_rows(self, rows: int) -> None:
        """More rows are parsed."""
        if self._read_bytes:
            done = self._progress.done + rows
            self._progress.total = max(done, int(done * self._left_bytes / self._read_bytes))
        self._progress.advance(rows)


def _block_parsers(
    path: Location, position: int, *, parsing: Parsing, progress: ReadProgress
) -> Iterator[Callable[[], tuple[ParsedBlock, int]]]:
    """Yields a function for each block of a file, starting at `position`, that parses the block.

    The function returns (the parsed block, the position after it).
    """
    if parquet_rows.is_parquet(path):
        size, num_rows = size_of(path), max(1, parquet_rows.num_rows_of(path))
        for batch, stop in parquet_rows.row_blocks(path, parsing.labelled, position):
            progress.add_bytes(size * batch.num_rows // num_rows)
            yield partial(_parse_batch, batch, parsing.labelled, stop)
    else:
        num_buffers = parsing.workers + _AHEAD + 1  # one more than in_order holds
        for text, stop in text_blocks(
            path, parsing.block_bytes, on_read=progress.add_bytes, skip_bytes=position, num_buffers=num_buffers
        ):
            yield partial(_parse_text, text, parsing.labelled, stop)


def _parse_text(text: np.ndarray, labelled: bool, stop: int) -> tuple[ParsedBlock, int]:
    return _parsed_block(parse(text, labelled)), stop


def _parse_batch(batch, labelled: bool, stop: int) -> tuple[ParsedBlock, int]:
    return _parsed_block(parquet_rows.rows_of(batch, labelled)), stop


def _parsed_block(rows: Rows) -> ParsedBlock:
    zero_rows = [rows.zero_rows(column) for column in range(NUM_CATEGORICAL)]
    return ParsedBlock(rows, log_numbers(rows.numbers, rows.missing), zero_rows)


def _refuse_bad_rows(file: ParsedFile, rows: Rows) -> None:
    for bad in sorted(rows.first_bad, key=lambda bad: bad.line):
        raise BadRowError(f"{_where(file, bad)}. Correct the row, or add --on_bad_row skip to leave such rows out.")


def _count_bad_rows(file: ParsedFile, rows: Rows) -> None:
    """Adds the bad rows of a block to the counts of the file."""
    for bad in sorted(rows.first_bad, key=lambda bad: bad.line):
        reason = REASONS[bad.reason]
        file.skipped[reason] = file.skipped.get(reason, 0) + int(rows.num_bad[bad.reason])
        file.first_skipped.setdefault(reason, _where(file, bad))


def _where(file: ParsedFile, bad: BadRow) -> str:
    return f"{file.path}: line {file.num_lines + bad.line + 1}: {bad.found}"
