"""The files that parsing writes, and the checkpoints: how far the files are written, recorded in the journal.

<root>/work/label.bin, numerical.bin     all rows in order; `arrange` makes the splits from them
<root>/raw/cat_<i>.raw                   see raw_columns.py
"""

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from criteo_prep.durable import force
from criteo_prep.preprocess.journal import Journal
from criteo_prep.preprocess.parse.raw_columns import RawColumns, open_to_append, write_at
from criteo_prep.preprocess.parse.tsv import Rows
from criteo_prep.schema import NUM_CATEGORICAL, NUM_NUMERICAL

CHECKPOINT_BYTES = 256 << 20  # output between two checkpoints
FORCE_BYTES = 4 << 30  # output from which on a run survives a power cut; see journal.py
_AT_A_TIME = 4  # blocks that wait to be written; more would only take memory
_THREADS = 2
_NUMERICAL_BYTES = 2 * NUM_NUMERICAL
OUTPUT_ROW_BYTES = 1 + _NUMERICAL_BYTES + 4 * NUM_CATEGORICAL


@dataclass(frozen=True)
class ParsedBlock:
    """A parsed block, ready to be written.

    Attributes:
      rows: what was found in the text.
      numerical: float16 [n, 13].
      zero_rows: for every categorical column int64 [k], rows whose value is 0 and not missing.
    """

    rows: Rows
    numerical: np.ndarray
    zero_rows: list[np.ndarray]


class RowWriter:
    """Writes the parsed rows to their places, while others are parsed; a context manager that closes its files.

    Args:
      root: the dataset folder in the making.
      journal: record of the rows that are written already.

    Attributes:
      num_rows: rows of all blocks that were taken, and of the journal.
      num_zeros: zero rows of each column among these rows; see RawColumns.
    """

    def __init__(self, root: Path, journal: Journal):
        self._root, self.num_rows, self.num_zeros = root, journal.num_rows, list(journal.num_zeros)
        (root / "raw").mkdir(exist_ok=True)
        self._raw = RawColumns(root / "raw", self.num_rows, num_zeros=self.num_zeros, writable=True)
        self._label = open_to_append(root / "work" / "label.bin", self.num_rows)
        self._numerical = open_to_append(root / "work" / "numerical.bin", _NUMERICAL_BYTES * self.num_rows)
        self._pool, self._writes, self._failed = ThreadPoolExecutor(_THREADS), deque[Future](), None

    def write(self, block: ParsedBlock) -> None:
        """Takes the next block, which is in the files after the next `flush`."""
        self._writes.append(self._pool.submit(self._write, block, row=self.num_rows, zeros=self.num_zeros))
        self.num_rows += len(block.rows)
        self.num_zeros = [before + len(rows) for before, rows in zip(self.num_zeros, block.zero_rows, strict=True)]
        self._wait_until_left(_AT_A_TIME)

    def flush(self) -> None:
        """Returns when all blocks are in the files. After a failed write it always raises the write's error."""
        self._wait_until_left(0)

    def _wait_until_left(self, most: int) -> None:
        while len(self._writes) > most:
            error = self._writes.popleft().exception()
            self._failed = self._failed or error
        if self._failed:
            raise self._failed

    def _write(self, block: ParsedBlock, *, row: int, zeros: list[int]) -> None:
        write_at(self._label, row, block.rows.label)
        write_at(self._numerical, _NUMERICAL_BYTES * row, block.numerical)
        self._raw.write(block.rows.values, block.zero_rows, row=row, zeros=zeros)

    def force(self) -> None:
        """Returns when everything written so far is on the disk; writing may continue meanwhile."""
        folders = [self._root, self._root / "work", self._root / "raw"]
        force([*(path for folder in folders[1:] for path in folder.glob("*.*")), *folders])

    def __enter__(self) -> "RowWriter":
        return self

    def __exit__(self, exception_type, exception, traceback) -> None:
        self._pool.shutdown(cancel_futures=True)
        self._raw.close()
        self._label.close()
        self._numerical.close()


class Checkpoints:
    """Saves the journal at intervals. In a large run, all files are forced to the disk first, while parsing continues.

    A context manager, whose exit waits for the last checkpoint.

    Args:
      writer: the files to force to the disk.
      journal: the journal to save.
      every_bytes: output between two checkpoints.
    """

    def __init__(self, writer: RowWriter, journal: Journal, every_bytes: int):
        self._writer, self._journal, self._every_bytes = writer, journal, every_bytes
        self._saved_rows = journal.num_rows
        self._pool, self._pending = ThreadPoolExecutor(1), None

    def advance(self) -> None:
        """Makes a checkpoint if enough rows were added to the journal since the last one."""
        if (self._journal.num_rows - self._saved_rows) * OUTPUT_ROW_BYTES >= self._every_bytes:
            self.save()

    def save(self) -> None:
        """Makes a checkpoint now."""
        journal, self._saved_rows = self._journal, self._journal.num_rows
        self._writer.flush()
        self.wait()
        journal.forced = journal.forced or journal.num_rows * OUTPUT_ROW_BYTES >= FORCE_BYTES
        if journal.forced:
            self._pending = self._pool.submit(self._force_and_save, journal.document())
        else:
            journal.save()

    def wait(self) -> None:
        """Waits for the checkpoint that is still being forced to the disk."""
        if self._pending:
            pending, self._pending = self._pending, None
            pending.result()

    def _force_and_save(self, document: dict) -> None:
        self._writer.force()
        self._journal.save(document)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, exception_type, exception, traceback) -> None:
        with self._pool:
            if exception_type is None:
                self.wait()
