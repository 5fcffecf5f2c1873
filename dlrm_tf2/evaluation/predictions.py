"""The scores of a split as a Parquet file: row, score, label; in the split's order, for any number of ranks.

row    int64    the sample's place in the split, from 0
score  float32  the probability of a click that the model gives it
label  bool     whether it was clicked
"""

import contextlib
import fcntl
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from dlrm_tf2.evaluation.auc import probabilities
from dlrm_tf2.runtime.agreement import on_rank_0
from dlrm_tf2.sharding.plan import samples_of_rank

_BLOCK = 1 << 20  # samples of all ranks that rank 0 gets and writes at a time: a row group of the file
_BATCHES = 4096  # of which there are no more than this
_MAGIC = b"PAR1"


class PredictionsError(ValueError):
    """The file cannot be written."""


def check_predictions_path(path: str, comm) -> None:
    """Raises PredictionsError, on every rank, if rank 0 cannot write predictions at `path`."""
    _on_rank_0(comm, path, lambda: _check_destination(Path(path)))


class PredictionsFile:
    """The file, written beside its destination by rank 0 and renamed on a clean exit; on another it is removed.

    What was at the destination stays until then. All ranks make it, feed it the same batches, and leave it; what goes
    wrong on rank 0 is raised on all of them. Memory: a block of samples, about 40 MiB on rank 0 and 10 on the others.

    Args:
      path: the file to write. A Parquet file that is there is replaced.
      comm: the ranks (dlrm_tf2.runtime.comm).
    """

    def __init__(self, path: str, comm):
        self._path, self._comm = Path(path), comm
        self._partial = self._path.with_name(f".{self._path.name}.partial")
        self._lock = self._writer = None  # a descriptor of the partial file, and what writes it
        self._row = 0  # of the first sample that is not written
        self._batches: list[int] = []  # samples of the batches that are not written, all ranks together
        self._logits: list[np.ndarray] = []
        self._labels: list[np.ndarray] = []

    def __enter__(self) -> "PredictionsFile":
        try:
            _on_rank_0(self._comm, self._path, self._open)
        except PredictionsError:
            self._discard()
            raise
        return self

    def __exit__(self, error_type: type | None, *_: object) -> None:
        try:
            if error_type is None:
                self._write_block()
                _on_rank_0(self._comm, self._path, self._commit)
        finally:
            self._discard()

    def add(self, logits: np.ndarray, labels: np.ndarray, global_batch: int) -> None:
        """Takes in this rank's samples of the next batch.

        Args:
          logits: float32 [local batch].
          labels: bool [local batch].
          global_batch: samples of the batch, all ranks together.
        """
        self._batches.append(global_batch)
        self._logits.append(logits)
        self._labels.append(labels)
        if sum(self._batches) >= _BLOCK or len(self._batches) == _BATCHES:
            self._write_block()

    def _write_block(self) -> None:
        if not self._batches:
            return
        logits = self._comm.allgather(np.concatenate(self._logits), name="predictions_logits")
        labels = self._comm.allgather(np.concatenate(self._labels), name="predictions_labels")
        _on_rank_0(self._comm, self._path, lambda: self._write(logits, labels))
        self._row += sum(self._batches)
        self._batches, self._logits, self._labels = [], [], []

    def _write(self, logits: np.ndarray, labels: np.ndarray) -> None:
        """Appends a row group.

        Args:
          logits, labels: of all ranks, one after the other.
        """
        import pyarrow as pa

        scores, clicked = np.empty(len(logits), np.float32), np.empty(len(labels), bool)
        order = _order(self._batches, self._comm.size)
        scores[order] = probabilities(logits.astype(np.float64))
        clicked[order] = labels
        rows = np.arange(self._row, self._row + len(scores), dtype=np.int64)
        self._writer.write_table(pa.table([rows, scores, clicked], names=["row", "score", "label"]))

    def _open(self) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        _check_destination(self._path)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = _locked(self._partial, self._path)
        schema = pa.schema([("row", pa.int64()), ("score", pa.float32()), ("label", pa.bool_())])
        self._writer = pq.ParquetWriter(self._partial, schema, compression="zstd", use_dictionary=False)

    def _commit(self) -> None:
        self._writer.close()
        os.fsync(self._lock)
        os.replace(self._partial, self._path)
        os.close(self._lock)
        self._lock = None

    def _discard(self) -> None:
        """Removes what is not in place."""
        if self._lock is None:
            return
        with contextlib.suppress(OSError):
            os.truncate(self._lock, 0)  # room on a full disk, so that the writer can end
            if self._writer is not None:
                self._writer.close()
        self._partial.unlink(missing_ok=True)
        os.close(self._lock)
        self._lock = None


def _order(batches: list[int], num_ranks: int) -> np.ndarray:
    """The place in the block of each of its samples, given rank by rank, and those of a rank batch by batch."""
    starts = np.cumsum([0, *batches])
    places = []
    for rank in range(num_ranks):
        for start, size in zip(starts, batches, strict=False):
            first, last = samples_of_rank(size, num_ranks, rank)
            places.append(np.arange(start + first, start + last))
    return np.concatenate(places)


def _locked(partial: Path, path: Path) -> int:
    """A descriptor of the file `partial`, which is this process's alone until it is closed; it is to become `path`."""
    lock = os.open(partial, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Between our open and our lock the other process may have renamed the file into place.
        if not partial.exists() or partial.stat().st_ino != os.fstat(lock).st_ino:
            raise BlockingIOError
    except BlockingIOError:
        os.close(lock)
        raise PredictionsError(f"{path}: another process is writing it. Wait for it, or name another file.") from None
    return lock


def _check_destination(path: Path) -> None:
    if path.is_dir():
        raise PredictionsError(f"{path}: is a folder. Name a file in it.")
    if path.exists():
        with open(path, "rb") as file:
            if file.read(len(_MAGIC)) != _MAGIC:
                raise PredictionsError(
                    f"{path}: is there and no Parquet file; predictions would replace it. Name another file."
                )
    parent = next(parent for parent in path.absolute().parents if parent.exists())
    if not parent.is_dir():
        raise PredictionsError(f"{path}: {parent} is not a folder. Name a file in one.")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise PredictionsError(f"{path}: {parent} is not writable for this user. Name another file.")


def _on_rank_0(comm, path: str | Path, work: Callable[[], None]) -> None:
    """Runs `work` on rank 0; raises PredictionsError on all ranks, naming the flag, if it fails there."""

    def named() -> None:
        try:
            work()
        except PredictionsError as error:
            raise PredictionsError(f"--predictions_path {error}") from error
        except OSError as error:
            reason = f"cannot be written: {error.strerror or error}."
            raise PredictionsError(f"--predictions_path {path}: {reason}") from error

    on_rank_0(comm, "predictions", work=named, error=PredictionsError)
