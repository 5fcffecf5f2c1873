"""A checkpoint on its way to its place, over all ranks. No TensorFlow: variables are asked for `.numpy()`."""

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from functools import partial
from pathlib import Path

from dlrm_tf2.checkpoint.files import CheckpointError
from dlrm_tf2.checkpoint.manifest import Manifest, StoredTable
from dlrm_tf2.checkpoint.part import TablesCopy, dense_arrays, write_part
from dlrm_tf2.checkpoint.staging import Staging
from dlrm_tf2.runtime.agreement import on_all_ranks, on_rank_0


def save_checkpoint(path: str | Path, comm, *, dense: dict, embedding, document: dict, keep: int = 1) -> list[str]:
    """Saves the model; `path` then holds this checkpoint, or on any failure what it held before. All ranks call it.

    Args:
      path: folder on a file system that all ranks share; absent, empty, or an older checkpoint, which is replaced.
      comm: the ranks (dlrm_tf2.runtime.comm).
      dense: name -> variable, equal on all ranks; rank 0's are saved.
      embedding: the tables (see DistributedEmbedding: tables, plan, rank, slots, read_rows).
      document: JSON-able; what else a restart needs. Rank 0's is saved.
      keep: see Save.

    Returns:
      Lines for the user, on rank 0.

    Raises:
      CheckpointError: on every rank, if a rank could not write its part, with the ranks and their reasons.
    """
    save = CheckpointWriter(path, comm, document=document, keep=keep)
    save.write(dense, embedding)
    return save.commit()


class CheckpointWriter:
    """One checkpoint, from its beginning to its place. What is there stays until then. All ranks make the same calls.

        save = Save(path, comm, document)
        save.write(dense, embedding)                # or write_behind, and is_written until it says so
        save.commit()

    Where a call raises, nothing is left of the checkpoint.

    Args:
      path, comm, document: as in save_checkpoint.
      keep: how many checkpoints of one run stay: this one, and beside it as NAME.step-N those before it.

    Raises:
      CheckpointError: as save_checkpoint, in each of the calls.
    """

    def __init__(self, path: str | Path, comm, *, document: dict, keep: int = 1):
        self.path, self.step = path, document.get("step")
        self._comm, self._staging, self._part, self._tables = comm, Staging(path, keep), Future(), ()
        with self._or_nothing():
            self._document = on_rank_0(
                comm, "checkpoint.begin", work=lambda: _prepared(self._staging, document), error=CheckpointError
            )

    def write(self, dense: dict, embedding) -> None:
        """Writes this rank's part."""
        self._tables = embedding.tables
        with self._or_nothing():
            _settle(self._part, lambda: self._write(dense_arrays(dense, embedding.rank), embedding))

    def write_behind(self, dense: dict, embedding) -> None:
        """Copies this rank's part, and returns while a thread, which makes no exchange, writes the copy."""
        self._tables = embedding.tables
        with self._or_nothing():
            copies = []
            on_all_ranks(
                self._comm,
                "checkpoint.copy",
                work=lambda: copies.append(_copies(dense, embedding)),
                error=CheckpointError,
            )
        # The thread alone holds the copies, so that their memory is free again once they are written.
        work = partial(_settle, self._part, lambda: self._write(*copies.pop()))
        threading.Thread(target=work, name="checkpoint", daemon=True).start()

    def is_written(self) -> bool:
        """Whether every rank is done with its part, well or not, so that commit need not wait."""
        return all(self._comm.allgather_object(self._part.done(), name="checkpoint.is_written"))

    def commit(self) -> list[str]:
        """Waits until every rank has written its part, and puts the checkpoint in place.

        Returns:
          Lines for the user, on rank 0.
        """
        with self._or_nothing():
            parts = on_all_ranks(self._comm, "checkpoint.write", work=self._part.result, error=CheckpointError)
            notes = on_rank_0(
                self._comm,
                "checkpoint.commit",
                work=lambda: self._staging.commit(_assemble(self._document, self._tables, parts)),
                error=CheckpointError,
            )
        self._staging.unlock()
        return notes

    def discard(self) -> None:
        """Gives the checkpoint up."""
        self._staging.discard()

    def _write(self, arrays: dict, embedding) -> tuple:
        return write_part(self._staging.folder, arrays, embedding)

    @contextlib.contextmanager
    def _or_nothing(self) -> Iterator[None]:
        try:
            yield
        except BaseException as error:
            self.discard()
            if not isinstance(error, CheckpointError):
                raise
            which = "the checkpoint" if self.step is None else f"the checkpoint of step {self.step}"
            raise CheckpointError(
                f"{self.path}: {which} was not saved; what was there is unchanged.\n{error}"
            ) from error.__cause__


def _settle(future: Future, work: Callable) -> None:
    """Runs `work` and leaves in the future what it returns, or raises. What is no failure, such as Ctrl-C, goes on."""
    try:
        future.set_result(work())
    except Exception as error:
        future.set_exception(error)


def _copies(dense: dict, embedding) -> tuple[dict, TablesCopy]:
    return dense_arrays(dense, embedding.rank), TablesCopy(embedding)


def _prepared(staging: Staging, document: dict) -> dict:
    """Makes the staging folder. Returns the document as JSON gives it back."""
    document = json.loads(json.dumps(document))
    staging.prepare()
    return document


def _assemble(document: dict, tables, parts: list) -> Manifest:
    return Manifest(
        document,
        tuple(
            StoredTable(table.name, table.num_rows, embedding_dim=table.embedding_dim, features=tuple(table.features))
            for table in tables
        ),
        shards=tuple(shard for shards, _ in parts for shard in shards),
        dense={name: file for _, files in parts for name, file in files.items()},
    )
