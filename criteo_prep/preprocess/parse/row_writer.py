"""The files that parsing writes, and the checkpoints: how far the files are written, recorded in the journal.

<root>/work/label.bin, numerical.bin     all rows in order; `arrange` makes the splits from them
<root>/raw/cat_<i>.raw                   see raw_columns.py
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from criteo_prep.durable import force
from criteo_prep.preprocess.journal import Journal
from criteo_prep.preprocess.parse.raw_columns import RawColumns, append, open_to_append
from criteo_prep.preprocess.parse.tsv import Rows
from criteo_prep.schema import NUM_CATEGORICAL, NUM_NUMERICAL

CHECKPOINT_BYTES = 256 << 20  # output between two checkpoints
FORCE_BYTES = 4 << 30  # output from which on a run survives a power cut; see journal.py
OUTPUT_ROW_BYTES = 1 + 2 * NUM_NUMERICAL + 4 * NUM_CATEGORICAL


@dataclass(frozen=True)
class ParsedBlock:
    """A parsed block, ready to be written."""

    rows: Rows
    numerical: np.ndarray  # float16 [n, 13]
    zero_rows: list[np.ndarray]  # see RawColumns.append


class RowWriter:
    """Writes the parsed rows, in order; a context manager that closes its files.

    Args:
      root: the dataset folder in the making.
      journal: record of the rows that are written already.
    """

    def __init__(self, root: Path, journal: Journal):
        self._root, rows = root, journal.num_rows
        (root / "raw").mkdir(exist_ok=True)
        self._raw = RawColumns(root / "raw", rows, num_zeros=journal.num_zeros, writable=True)
        self._label = open_to_append(root / "work" / "label.bin", rows)
        self._numerical = open_to_append(root / "work" / "numerical.bin", 2 * NUM_NUMERICAL * rows)

    def write(self, block: ParsedBlock) -> None:
        if len(block.rows):
            append(self._label, block.rows.label)
            append(self._numerical, block.numerical)
            self._raw.append(block.rows.values, block.zero_rows)

    @property
    def num_zeros(self) -> list[int]:
        return list(self._raw.num_zeros)

    def force(self) -> None:
        """Returns when everything written so far is on the disk; writing may continue meanwhile."""
        folders = [self._root, self._root / "work", self._root / "raw"]
        force([*(path for folder in folders[1:] for path in folder.glob("*.*")), *folders])

    def __enter__(self) -> "RowWriter":
        return self

    def __exit__(self, exception_type, exception, traceback) -> None:
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
