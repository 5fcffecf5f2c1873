"""The scores of a split as a Parquet file, in the order of the split for any number of ranks.

row    int64    number of the sample in the split, from 0
score  float32  predicted probability of a click
logit  float32  log(p / (1 - p)) of that probability p, as the model computes it. Scores near 1 tie, logits do not
label  bool     whether the sample was clicked
"""

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from dlrm_tf2.evaluation.auc import probabilities
from dlrm_tf2.runtime.agreement import on_rank_0
from dlrm_tf2.runtime.staging import StagedPath, StagingError
from dlrm_tf2.sharding.plan import samples_of_rank

_BLOCK = 1 << 20  # samples of all ranks that rank 0 receives and writes at a time, as a row group
_BATCHES = 4096  # most batches of a row group
_MAGIC = b"PAR1"


class PredictionsError(ValueError):
    """The predictions file cannot be written."""


def check_predictions_path(path: str, comm) -> None:
    """Raises PredictionsError, on every rank, if rank 0 cannot write predictions at `path`."""
    _on_rank_0(comm, path, lambda: _check_destination(Path(path)))


class PredictionsFile:
    """Collects scores and labels; rank 0 writes them next to the destination, and renames the file on a clean exit.

    On another exit the new file is removed, and the destination stays as it is. All ranks must make the same calls; an
    error on rank 0 is raised on all ranks. Memory: a block of samples, about 40 MiB on rank 0 and 10 MiB on the others.

    Args:
      path: the file to write. A file of predictions is replaced, and no other file.
      comm: the ranks (dlrm_tf2.runtime.comm).
    """

    def __init__(self, path: str, comm):
        self._path, self._comm = Path(path), comm
        self._staged, self._writer = StagedPath(self._path, is_folder=False), None
        self._row = 0  # row of the first sample that is not written
        self._batches: list[int] = []  # samples of each batch that is not written, all ranks together
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
        """Adds this rank's samples of the next batch.

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
          logits, labels: arrays of all ranks, one rank after the other.
        """
        import pyarrow as pa

        in_order, clicked = np.empty(len(logits), np.float32), np.empty(len(labels), bool)
        order = _order(self._batches, self._comm.size)
        in_order[order], clicked[order] = logits, labels
        scores = probabilities(in_order.astype(np.float64)).astype(np.float32)
        rows = np.arange(self._row, self._row + len(scores), dtype=np.int64)
        self._writer.write_table(pa.table([rows, scores, in_order, clicked], names=["row", "score", "logit", "label"]))

    def _open(self) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        _check_destination(self._path)
        self._staged.claim()
        schema = pa.schema(
            [("row", pa.int64()), ("score", pa.float32()), ("logit", pa.float32()), ("label", pa.bool_())]
        )
        self._writer = pq.ParquetWriter(self._staged.path, schema, compression="zstd", use_dictionary=False)

    def _commit(self) -> None:
        self._writer.close()
        os.fsync(self._staged.descriptor)
        self._staged.rename()

    def _discard(self) -> None:
        """Removes a file that is not in place."""
        if self._staged.descriptor is None:
            return
        with contextlib.suppress(OSError):
            os.truncate(self._staged.descriptor, 0)  # makes room on a full disk, so that the writer can close
            if self._writer is not None:
                self._writer.close()
        self._staged.discard()


def _order(batches: list[int], num_ranks: int) -> np.ndarray:
    """Positions in the block of its samples, which are ordered by rank, and within a rank by batch."""
    starts = np.cumsum([0, *batches])
    places = []
    for rank in range(num_ranks):
        for start, size in zip(starts, batches, strict=False):
            first, last = samples_of_rank(size, num_ranks, rank)
            places.append(np.arange(start + first, start + last))
    return np.concatenate(places)


def _check_destination(path: Path) -> None:
    if path.is_dir():
        raise PredictionsError(f"{path}: is a folder. Name a file in it.")
    if path.exists() and not _has_predictions(path):
        raise PredictionsError(
            f"{path}: exists and has no predictions of this program, which would replace it. Name another file."
        )
    parent = next(parent for parent in path.absolute().parents if parent.exists())
    if not parent.is_dir():
        raise PredictionsError(f"{path}: {parent} is not a folder. Name a file in a folder.")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise PredictionsError(f"{path}: {parent} is not writable for this user. Name another file.")


def _has_predictions(path: Path) -> bool:
    """Whether a file is Parquet with the columns of predictions; without logits, an older version wrote it."""
    import pyarrow.parquet as pq

    with open(path, "rb") as file:
        if file.read(len(_MAGIC)) != _MAGIC:
            return False
    try:
        names = pq.read_schema(path).names
    except (ValueError, OSError):
        return False
    return [name for name in names if name != "logit"] == ["row", "score", "label"]


def _on_rank_0(comm, path: str | Path, work: Callable[[], None]) -> None:
    """Runs `work` on rank 0; raises PredictionsError on all ranks, naming the flag, if it fails there."""

    def named() -> None:
        try:
            work()
        except (PredictionsError, StagingError) as error:
            raise PredictionsError(f"--predictions_path {error}") from error
        except OSError as error:
            reason = f"cannot be written: {error.strerror or error}."
            raise PredictionsError(f"--predictions_path {path}: {reason}") from error

    on_rank_0(comm, "predictions", work=named, error=PredictionsError)
