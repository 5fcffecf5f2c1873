"""PendingDump: a folder that all ranks write, now or while training continues, and that appears when it is complete.

No TensorFlow.
"""

import os
import re
import shutil
import threading
import time as clock
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

from dlrm_tf2.dump.arguments import DumpError, read_arguments
from dlrm_tf2.dump.changes import set_name
from dlrm_tf2.dump.files import parts_in
from dlrm_tf2.runtime.agreement import on_all_ranks, on_rank_0
from dlrm_tf2.runtime.staging import StagedPath, StagingError

_OF_DUMP = re.compile(r".+_(emb|counter)_\w+\.rank_\d+\.world_size_\d+|.+_opt_args\.json")


class PendingDump:
    """A dump that is being written. All ranks make the same calls, between the same steps.

        pending = begin_dump(layer, folder, comm=comm, step=step)
        ...                                  # more steps of the training
        pending.commit()                     # the folder appears, or DumpError says why not

    A dump without `commit` never appears.

    Args:
      folder: the folder that appears: absent, empty, or a dump of the same steps, which is replaced.
      comm: the ranks (dlrm_tf2.runtime.comm).
      next_step: the step after the last one that the dump has.
      time: nanoseconds; the clock of rank 0 when not given.

    Attributes:
      folder: as given, absolute.
      time: of the dump, the same on all ranks.

    Raises:
      DumpError: on every rank: the folder holds something else, or cannot be written.
    """

    def __init__(self, folder: str | Path, comm, *, next_step: int, time: int | None = None):
        self.folder, self._comm = Path(folder).absolute(), comm
        self._staged, self._next_step = StagedPath(self.folder, is_folder=True), next_step
        self._old = self.folder.with_name(f".{self.folder.name}.old")
        self._part: Future = Future()
        self.time = on_rank_0(comm, "dump.begin", work=lambda: self._begin(time), error=DumpError)

    def write(self, write: Callable[[Path], None]) -> None:
        """Writes this rank's files: calls `write` with the folder to write in."""
        try:
            self._part.set_result(write(self._staged.path))
        except Exception as error:
            self._part.set_exception(error)

    def write_behind(self, copy: Callable[[], Callable[[Path], None]]) -> None:
        """Calls `copy`, and on a thread what it returns, as `write` does. The thread makes no exchange between ranks.

        Raises:
          DumpError: on every rank: a rank has no copy.
        """
        copies: list[Callable[[Path], None]] = []
        try:
            on_all_ranks(self._comm, "dump.copy", work=lambda: copies.append(copy()), error=DumpError)
        except DumpError:
            self._staged.discard()
            raise
        # Only the thread holds the copy, so its memory is free as soon as it is written.
        threading.Thread(target=lambda: self.write(copies.pop()), name="dump", daemon=True).start()

    def is_written(self) -> bool:
        """Whether every rank has written its files or failed, so that `commit` does not wait."""
        return all(self._comm.allgather_object(self._part.done(), name="dump.is_written"))

    def commit(self) -> None:
        """Waits until every rank has written its files, and lets the folder appear.

        Raises:
          DumpError: on every rank: a rank could not write. The folder holds what it held before.
        """
        try:
            on_all_ranks(self._comm, "dump.write", work=self._part.result, error=DumpError)
            on_rank_0(self._comm, "dump.end", work=self._rename, error=DumpError)
        except BaseException:
            self._staged.discard()
            raise

    def _begin(self, time: int | None) -> int:
        """Makes the folder to write in, and repairs what a killed rename left. Returns the time of the dump."""
        try:
            self._staged.claim()
            if self._old.exists():
                if self.folder.exists():
                    shutil.rmtree(self._old)
                else:
                    os.rename(self._old, self.folder)
        except (OSError, StagingError) as error:
            self._staged.discard()
            raise DumpError(f"{self.folder}: cannot be written: {error}.") from error
        if self._holds_something() and not self._is_replaceable():
            self._staged.discard()
            raise DumpError(f"{self.folder}: holds other files than a dump of the same steps. Name another folder.")
        return clock.time_ns() if time is None else time

    def _holds_something(self) -> bool:
        return self.folder.exists() and (not self.folder.is_dir() or any(self.folder.iterdir()))

    def _is_replaceable(self) -> bool:
        """Whether the folder holds a dump, or changes, up to the same step and nothing else."""
        if not self.folder.is_dir():
            return False
        names = os.listdir(self.folder)
        if set_name(self.folder.name) is not None:
            return all(name.endswith(".parquet") for name in names)
        try:
            steps = {read_arguments(self.folder, table, embedding_dim=0).next_step for table in parts_in(self.folder)}
        except DumpError:
            return False
        return steps == {self._next_step} and all(map(_OF_DUMP.fullmatch, names))

    def _rename(self) -> None:
        try:
            _force(self._staged.path)
            if self._holds_something():
                os.rename(self.folder, self._old)
            self._staged.rename()
            _force(self.folder.parent)
            shutil.rmtree(self._old, ignore_errors=True)
        except OSError as error:
            if self._old.exists() and not self.folder.exists():
                os.rename(self._old, self.folder)
            raise DumpError(f"{self.folder}: cannot be renamed into place: {error.strerror or error}.") from error


def _force(folder: Path) -> None:
    """The names in a folder outlive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
