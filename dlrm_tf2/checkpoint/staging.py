"""Where a checkpoint is written, and how it takes the place of the checkpoint before it. Rank 0 alone does this."""

import contextlib
import os
from pathlib import Path

from dlrm_tf2 import __version__
from dlrm_tf2.checkpoint.files import CheckpointError, unwritable
from dlrm_tf2.checkpoint.kept import keep_or_remove
from dlrm_tf2.checkpoint.manifest import Manifest, is_checkpoint, read_manifest, write_manifest
from dlrm_tf2.runtime.staging import StagedPath, StagingError


def check_destination(path: str | Path) -> None:
    """Raises CheckpointError if no checkpoint can be saved at `path`. Training asks this before its first step."""
    folder = Path(os.path.realpath(path))
    if folder.exists() and not folder.is_dir():
        raise CheckpointError(f"{path}: is not a folder. Name a folder to save the checkpoint in.")
    if os.path.ismount(folder):
        raise CheckpointError(f"{path}: is a mount point, which cannot be replaced. Name a folder inside it.")
    if folder.exists() and any(folder.iterdir()) and not is_checkpoint(folder):
        raise CheckpointError(
            f"{path}: holds files that do not belong to a checkpoint, and saving would replace them. Name another "
            "folder, or empty this one."
        )
    parent = next(parent for parent in folder.parents if parent.exists())
    if not parent.is_dir():
        raise CheckpointError(f"{path}: {parent} is not a folder. Name a folder inside a folder.")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise CheckpointError(f"{path}: {parent} is not writable for this user. Name another folder.")


def replaced_path(path: Path) -> Path:
    """Where the checkpoint of `path` is while the next checkpoint takes its place."""
    return path.with_name(f".{path.name}.old")


def staging_folder(path: str | Path) -> Path:
    """The folder in which the next checkpoint of `path` is written."""
    return Staging(path).folder


class Staging:
    """The folder next to a checkpoint that becomes the next checkpoint. It is locked from `prepare` to its end.

    Args:
      path: folder of the checkpoint.
      keep: how many checkpoints of a run stay, see kept.keep_or_remove.
    """

    def __init__(self, path: str | Path, keep: int = 1):
        self.path, self._keep = Path(os.path.realpath(path)), keep
        if not self.path.name:
            raise CheckpointError(f"{path}: is the root of the file system. Name a folder inside it.")
        self._staged, self._old = StagedPath(self.path, is_folder=True), replaced_path(self.path)

    @property
    def folder(self) -> Path:
        """The folder to write in."""
        return self._staged.path

    def prepare(self) -> None:
        """Makes the folder with its two empty sub-folders, and repairs what a killed save left.

        Raises:
          CheckpointError: no checkpoint can be saved here, or another process saves one.
        """
        check_destination(self.path)
        try:
            self._staged.claim()
            if self._old.exists():
                if is_checkpoint(self.path):
                    keep_or_remove(self._old, self.path, self._keep)
                else:
                    os.rename(self._old, self.path)  # a save was killed between the two renames of `commit`
            for name in ("dense", "tables"):
                (self.folder / name).mkdir()
        except StagingError as error:
            raise CheckpointError(str(error)) from error
        except OSError as error:
            raise unwritable(error.filename or self.folder, error) from error

    def commit(self, manifest: Manifest) -> list[str]:
        """Writes the manifest and renames the folder to `path`. Keeps or removes the checkpoint before it.

        Returns:
          Lines for the user.
        """
        write_manifest(self.folder, manifest, made_by=f"dlrm_tf2 {__version__}")
        read_manifest(self.folder)  # rank 0 must see the files of every rank
        for folder in (self.folder / "dense", self.folder / "tables", self.folder):
            _sync(folder)
        check_destination(self.path)
        replaces = is_checkpoint(self.path)
        try:
            if replaces:
                os.rename(self.path, self._old)
            os.rename(self.folder, self.path)
        except OSError as error:
            if replaces and self._old.exists():
                os.rename(self._old, self.path)
            raise CheckpointError(f"{self.path}: cannot be renamed into place: {error.strerror or error}.") from error
        with contextlib.suppress(OSError):  # some file systems cannot sync a folder
            _sync(self.path.parent)
        return keep_or_remove(self._old, self.path, self._keep)

    def discard(self) -> None:
        """Deletes the folder, if this process made it."""
        self._staged.discard()

    def release(self) -> None:
        """Ends the lock."""
        self._staged.release()


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
