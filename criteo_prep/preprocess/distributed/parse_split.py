"""One split -> its parts, by the parser of the local engine. A file that ends early, and a bad row, end the split."""

import contextlib
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from criteo_prep.preprocess.distributed.input_splits import COMPRESSED, PARQUET, InputSplit, lines_of
from criteo_prep.preprocess.distributed.part_file import PartFacts, write_part
from criteo_prep.preprocess.locations import RemoteError, check_unchanged
from criteo_prep.preprocess.parse import parquet_rows
from criteo_prep.preprocess.parse.numerical import log_numbers
from criteo_prep.preprocess.parse.row_writer import ParsedBlock
from criteo_prep.preprocess.parse.text_blocks import text_blocks
from criteo_prep.preprocess.parse.text_stream import InputError, TruncatedError
from criteo_prep.preprocess.parse.tsv import REASONS, Rows, parse
from criteo_prep.schema import NUM_CATEGORICAL


@dataclass(frozen=True)
class SplitParsing:
    """How splits are parsed.

    Attributes:
      folder: the folder of the parts.
      labelled: rows have labels.
      skip_bad_rows: bad rows are left out and counted; else the first bad row ends its split.
      keep_truncated: the whole rows of a compressed file that ends early are used; else such a file is an error.
      block_bytes: text that is parsed at a time.
      part_rows: rows after which a part is written.
    """

    folder: Path
    labelled: bool
    skip_bad_rows: bool
    keep_truncated: bool
    block_bytes: int
    part_rows: int


@dataclass(frozen=True)
class SplitOutcome:
    """What became of a split.

    Attributes:
      parts: facts of its parts, in order; of all its parts unless there is an error or a bad row.
      bad_row: (line of the split, from 0; the fault in words) where a bad row ended the split, else None.
      error: why the file cannot be read, else None.
    """

    parts: tuple[PartFacts, ...]
    bad_row: tuple[int, str] | None = None
    error: ValueError | None = None


def parse_split(parsing: SplitParsing, split: InputSplit) -> SplitOutcome:
    """Parses a split into its parts.

    Args:
      parsing: how splits are parsed.
      split: the split.

    Raises:
      OSError: a file cannot be read or written, for example on a full disk.
    """
    writer = _PartWriter(parsing, split)
    try:
        _check_visible(split)
        try:
            for rows in _rows_of(parsing, split):
                if not parsing.skip_bad_rows and rows.first_bad:
                    check_unchanged(split.path, split.state)
                    bad = min(rows.first_bad, key=lambda bad: bad.line)
                    return SplitOutcome(tuple(writer.written), bad_row=(writer.num_lines + bad.line, bad.found))
                writer.add(rows)
        except TruncatedError as error:
            check_unchanged(split.path, split.state)
            if not parsing.keep_truncated:
                raise
            writer.lost_bytes = error.lost_bytes
        check_unchanged(split.path, split.state)
    except ValueError as error:
        return SplitOutcome(tuple(writer.written), error=_best_reason(split, error))
    writer.write(last=True)
    return SplitOutcome(tuple(writer.written))


class _PartWriter:
    """Collects parsed blocks and writes a part when there are enough rows."""

    def __init__(self, parsing: SplitParsing, split: InputSplit):
        self._parsing, self._split, self._blocks = parsing, split, []
        self.written: list[PartFacts] = []
        self.num_lines, self.lost_bytes = 0, None
        self._begin()

    def _begin(self) -> None:
        self._blocks, self._lines, self._rows = [], 0, 0
        self._skipped: dict[str, int] = {}
        self._first: dict[str, tuple[int, str]] = {}

    def add(self, rows: Rows) -> None:
        for bad in sorted(rows.first_bad, key=lambda bad: bad.line):
            reason = REASONS[bad.reason]
            self._skipped[reason] = self._skipped.get(reason, 0) + int(rows.num_bad[bad.reason])
            self._first.setdefault(reason, (self._lines + bad.line, bad.found))
        zero_rows = [rows.zero_rows(column) for column in range(NUM_CATEGORICAL)]
        self._blocks.append(ParsedBlock(rows, log_numbers(rows.numbers, rows.missing), zero_rows))
        self._lines, self._rows = self._lines + rows.num_lines, self._rows + len(rows)
        self.num_lines += rows.num_lines
        if self._rows >= self._parsing.part_rows:
            self.write(last=False)

    def write(self, last: bool) -> None:
        facts = PartFacts(
            self._split.number,
            len(self.written),
            num_rows=self._rows,
            num_lines=self._lines,
            skipped=self._skipped,
            first_skipped=self._first,
            num_zeros=tuple(sum(len(b.zero_rows[column]) for b in self._blocks) for column in range(NUM_CATEGORICAL)),
            lost_bytes=self.lost_bytes,
            last=last,
        )
        write_part(self._parsing.folder, facts, self._blocks)
        self.written.append(facts)
        self._begin()


def _rows_of(parsing: SplitParsing, split: InputSplit) -> Iterator[Rows]:
    """Yields the parsed rows of a split, in order."""
    if split.kind == PARQUET:
        for batch, stop in parquet_rows.row_blocks(split.path, parsing.labelled, split.start):
            yield parquet_rows.rows_of(batch, parsing.labelled)
            if stop >= split.stop:
                return
        return
    start, stop = (0, None) if split.kind == COMPRESSED else lines_of(split)
    if stop is not None and start >= stop and split.start:
        return
    for text, _ in text_blocks(split.path, parsing.block_bytes, skip_bytes=start, stop_bytes=stop):
        yield parse(text, parsing.labelled)


def _check_visible(split: InputSplit) -> None:
    """Raises InputError where this machine does not see the input."""
    if isinstance(split.path, Path) and not split.path.exists():
        raise InputError(
            f"{split.path}: does not exist on the machine {socket.gethostname()}. All machines of the cluster must see "
            "the inputs by the same paths."
        )


def _best_reason(split: InputSplit, error: ValueError) -> ValueError:
    """A change of the file explains best why it cannot be read."""
    try:
        with contextlib.suppress(RemoteError):  # then nobody knows whether the file has changed
            check_unchanged(split.path, split.state)
    except ValueError as changed:
        return changed
    return error
