"""A file or folder that one process writes next to its destination, and renames when it is complete.

`NAME` is written as `.NAME.partial`. An flock on it keeps a second writer out, and ends with the process that holds it.
"""

import contextlib
import fcntl
import os
import shutil
from pathlib import Path


class StagingError(ValueError):
    """The place of the destination cannot be used for writing."""


class StagedPath:
    """The place where one process writes until the destination is complete.

    Args:
      destination: absolute path of the file or folder to write.
      is_folder: write a folder, not a file.

    Attributes:
      destination: as given.
      path: the file or folder to write into, between `claim` and `rename`.
      descriptor: open descriptor of `path`, which holds the lock; None without the lock.
    """

    def __init__(self, destination: Path, is_folder: bool):
        self.destination, self._is_folder = destination, is_folder
        self.path = destination.with_name(f".{destination.name}.partial")
        self.descriptor: int | None = None

    def claim(self) -> None:
        """Makes an empty `path` for this process alone. Deletes what a killed process left there.

        Raises:
          StagingError: another process is writing the destination, or the file system has no locks.
          OSError: `path` cannot be made.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        is_new = not self.path.exists()
        if self._is_folder:
            self.path.mkdir(exist_ok=True)
            descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        else:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            self._lock(descriptor)
            self._empty(descriptor)
        except BaseException as error:
            os.close(descriptor)
            if is_new and isinstance(error.__cause__, OSError):  # no lock, so nobody else can have it
                self._delete_empty()
            raise
        self.descriptor = descriptor

    def rename(self) -> None:
        """Gives `path` the name of the destination, in place of a file or an empty folder, and ends the lock."""
        os.replace(self.path, self.destination)
        self.release()

    def discard(self) -> None:
        """Deletes `path`, if this process holds its lock."""
        if self.descriptor is not None:
            if self._is_folder:
                shutil.rmtree(self.path, ignore_errors=True)
            else:
                self.path.unlink(missing_ok=True)
            self.release()

    def release(self) -> None:
        """Ends the lock."""
        if self.descriptor is not None:
            os.close(self.descriptor)
            self.descriptor = None

    def _lock(self, descriptor: int) -> None:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Between our open and our lock, another process may have renamed its file or folder.
            is_ours = self.path.exists() and self.path.stat().st_ino == os.fstat(descriptor).st_ino
        except BlockingIOError:
            is_ours = False
        except OSError as error:
            raise StagingError(
                f"{self.path}: cannot be locked: {error.strerror}. Its file system has no flock; name a destination on "
                "another file system."
            ) from error
        if not is_ours:
            raise StagingError(
                f"{self.destination}: another process is writing there. Wait for it, or name another destination."
            )

    def _empty(self, descriptor: int) -> None:
        if not self._is_folder:
            os.truncate(descriptor, 0)
            return
        for entry in self.path.iterdir():
            shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()

    def _delete_empty(self) -> None:
        with contextlib.suppress(OSError):
            if self._is_folder:
                self.path.rmdir()
            else:
                self.path.unlink()
