"""The place where a checkpoint is written, and how it takes the place of the one before. Rank 0 alone does this."""

import contextlib
import fcntl
import os
import shutil
from pathlib import Path

from dlrm_tf2 import __version__
from dlrm_tf2.checkpoint.files import CheckpointError
from dlrm_tf2.checkpoint.kept import put_aside
from dlrm_tf2.checkpoint.manifest import Manifest, is_checkpoint, read_manifest, write_manifest


def check_destination(path: str | Path) -> None:
    """Raises CheckpointError if no checkpoint can be saved at `path`, which is worth knowing before training starts."""
    folder = Path(os.path.realpath(path))
    if folder.exists() and not folder.is_dir():
        raise CheckpointError(f"{path}: is not a folder. Name a folder to save the checkpoint in.")
    if os.path.ismount(folder):
        raise CheckpointError(f"{path}: is a mount point, which cannot be replaced. Name a folder inside it.")
    if folder.exists() and any(folder.iterdir()) and not is_checkpoint(folder):
        raise CheckpointError(
            f"{path}: holds files that are no checkpoint, and saving would replace them. Name another folder, or empty "
            "this one."
        )
    parent = next(parent for parent in folder.parents if parent.exists())
    if not os.access(parent, os.W_OK | os.X_OK):
        raise CheckpointError(f"{path}: {parent} is not writable for this user. Name another folder.")


class Staging:
    """The folder beside a checkpoint in which the next one is written; rank 0 makes it, then commits or discards it.

    From prepare to commit or discard it holds a lock (flock, so a killed process leaves none).

    Args:
      path: the checkpoint.
      keep: how many of one run stay, see kept.put_aside.
    """

    def __init__(self, path: str | Path, keep: int = 1):
        self.path, self._keep = Path(os.path.realpath(path)), keep
        if not self.path.name:
            raise CheckpointError(f"{path}: is the root of the file system. Name a folder inside it.")
        self.folder = self.path.with_name(f".{self.path.name}.partial")
        self.old = self.path.with_name(f".{self.path.name}.old")
        self._lock: int | None = None

    def prepare(self) -> None:
        """Makes the folder, empty but for its two sub-folders, and repairs what a killed save left."""
        check_destination(self.path)
        self._lock = take_empty(self.folder, self.path)
        if self.old.exists():
            if is_checkpoint(self.path):
                put_aside(self.old, self.path, self._keep)
            else:
                os.rename(self.old, self.path)  # killed between the two renames of commit
        for name in ("dense", "tables"):
            (self.folder / name).mkdir()

    def commit(self, manifest: Manifest) -> list[str]:
        """Writes the manifest and puts the folder in the place of the checkpoint before it, which goes afterwards.

        Returns:
          Lines for the user.
        """
        write_manifest(self.folder, manifest, made_by=f"dlrm_tf2 {__version__}")
        read_manifest(self.folder)  # as rank 0 sees it, every rank's files included
        for folder in (self.folder / "dense", self.folder / "tables", self.folder):
            _sync(folder)
        check_destination(self.path)
        replaces = is_checkpoint(self.path)
        if replaces:
            os.rename(self.path, self.old)
        try:
            os.rename(self.folder, self.path)
        except OSError:
            if replaces:
                os.rename(self.old, self.path)
            raise
        with contextlib.suppress(OSError):  # it is in place; some file systems cannot sync a folder
            _sync(self.path.parent)
        return put_aside(self.old, self.path, self._keep)

    def discard(self) -> None:
        """Removes the folder, if this process made it."""
        if self._lock is not None:
            shutil.rmtree(self.folder, ignore_errors=True)
            self.unlock()

    def unlock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def take_empty(folder: Path, path: Path) -> int:
    """Makes the folder, or empties what a killed process left of it, for this process alone.

    Args:
      path: what the folder is to become, for the message.

    Returns:
      A descriptor whose closing gives up the folder.

    Raises:
      CheckpointError: another process has it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Between our open and our lock the other process may have renamed the folder into place.
        if not folder.exists() or os.stat(folder).st_ino != os.fstat(lock).st_ino:
            raise BlockingIOError
        for entry in folder.iterdir():
            shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
    except BaseException as error:
        os.close(lock)
        if isinstance(error, BlockingIOError):
            raise CheckpointError(
                f"{path}: another process is writing there. Wait for it, or name another folder."
            ) from None
        raise
    return lock


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
