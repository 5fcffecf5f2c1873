"""Saves a checkpoint over all ranks. No TensorFlow: of a variable only `.numpy()` is called."""

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from functools import partial
from pathlib import Path

from dlrm_tf2.checkpoint.files import CheckpointError
from dlrm_tf2.checkpoint.manifest import Manifest
from dlrm_tf2.checkpoint.manifest_entries import StoredTable
from dlrm_tf2.checkpoint.part import TablesCopy, dense_arrays, write_part
from dlrm_tf2.checkpoint.remote_folder import DiskOfRank0
from dlrm_tf2.checkpoint.staging import Staging
from dlrm_tf2.runtime.agreement import on_all_ranks, on_rank_0


def save_checkpoint(path: str | Path, comm, *, dense: dict, embedding, document: dict, keep: int = 1) -> list[str]:
    """Saves the model in `path`. After a failure, `path` holds what it held before. All ranks call it.

    Args:
      path: folder on a file system that all ranks share; absent, empty, or an older checkpoint, which is replaced.
      comm: the ranks (dlrm_tf2.runtime.comm).
      dense: name -> variable, equal on all ranks; rank 0 saves them.
      embedding: the tables (see DistributedEmbedding: tables, plan, rank, slots, table_dtype, read_rows,
        dynamic_tables).
      document: further values that a restart needs, JSON-able; rank 0 saves it.
      keep: see CheckpointWriter.

    Returns:
      Lines for the user, on rank 0.

    Raises:
      CheckpointError: on every rank, if a rank cannot write its part; names the ranks and their reasons.
    """
    writer = CheckpointWriter(path, comm, document=document, keep=keep)
    writer.write(dense, embedding)
    return writer.commit()


class CheckpointWriter:
    """Writes one checkpoint. The checkpoint before it stays in place until `commit`. All ranks make the same calls.

        writer = CheckpointWriter(path, comm, document=document)
        writer.write(dense, embedding)                # or write_behind, and is_written until it returns True
        writer.commit()

    Each call may raise CheckpointError, as save_checkpoint does. Then the files of this checkpoint are deleted.

    Args:
      path, comm, document: as in save_checkpoint.
      keep: how many checkpoints of one run stay: this one, and older ones next to it as NAME.step-N.
      disk: on a rank that does not see the folder, the disk of rank 0 (folder_server.gathered); None for other ranks.
    """

    def __init__(self, path: str | Path, comm, *, document: dict, keep: int = 1, disk: DiskOfRank0 | None = None):
        self.path, self.step = path, document.get("step")
        self._comm, self._staging, self._part, self._tables = comm, Staging(path, keep), Future(), ()
        with self._discarded_on_error():
            self._document, staged = on_rank_0(
                comm, "checkpoint.begin", work=lambda: _prepared(self._staging, document), error=CheckpointError
            )
        self._folder = disk.folder(staged) if disk else self._staging.folder

    def write(self, dense: dict, embedding) -> None:
        """Writes this rank's part of the checkpoint."""
        self._tables = embedding.tables
        with self._discarded_on_error():
            _settle(self._part, lambda: self._write(dense_arrays(dense, embedding.rank), embedding))

    def write_behind(self, dense: dict, embedding) -> None:
        """Copies this rank's part and returns. A thread writes the copy; it makes no exchange with other ranks."""
        self._tables = embedding.tables
        with self._discarded_on_error():
            copies = []
            on_all_ranks(
                self._comm,
                "checkpoint.copy",
                work=lambda: copies.append(_copies(dense, embedding)),
                error=CheckpointError,
            )
        # Only the thread holds the copies, so their memory is free as soon as they are written.
        work = partial(_settle, self._part, lambda: self._write(*copies.pop()))
        threading.Thread(target=work, name="checkpoint", daemon=True).start()

    def is_written(self) -> bool:
        """Whether every rank has written its part or failed, so that `commit` does not wait."""
        return all(self._comm.allgather_object(self._part.done(), name="checkpoint.is_written"))

    def commit(self) -> list[str]:
        """Waits until every rank has written its part, and puts the checkpoint in `path`.

        Returns:
          Lines for the user, on rank 0.
        """
        with self._discarded_on_error():
            parts = on_all_ranks(self._comm, "checkpoint.write", work=self._part.result, error=CheckpointError)
            notes = on_rank_0(
                self._comm,
                "checkpoint.commit",
                work=lambda: self._staging.commit(_assemble(self._document, self._tables, parts)),
                error=CheckpointError,
            )
        self._staging.release()
        return notes

    def discard(self) -> None:
        """Deletes the files of this checkpoint."""
        self._staging.discard()

    def _write(self, arrays: dict, embedding) -> tuple:
        return write_part(self._folder, arrays, embedding)

    @contextlib.contextmanager
    def _discarded_on_error(self) -> Iterator[None]:
        try:
            yield
        except BaseException as error:
            self.discard()
            if not isinstance(error, CheckpointError):
                raise
            which = "the checkpoint" if self.step is None else f"the checkpoint of step {self.step}"
            raise CheckpointError(
                f"{self.path}: {which} was not saved; the content of the folder is unchanged.\n{error}"
            ) from error.__cause__


def _settle(future: Future, work: Callable) -> None:
    """Runs `work`, and puts its result or its exception into the future. Ctrl-C is raised."""
    try:
        future.set_result(work())
    except Exception as error:
        future.set_exception(error)


def _copies(dense: dict, embedding) -> tuple[dict, TablesCopy]:
    return dense_arrays(dense, embedding.rank), TablesCopy(embedding)


def _prepared(staging: Staging, document: dict) -> tuple[dict, Path]:
    """Makes the staging folder. Returns the document as it reads back from JSON, and the folder."""
    document = json.loads(json.dumps(document))
    staging.prepare()
    return document, staging.folder


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
