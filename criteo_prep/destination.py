"""A dataset folder that appears whole or not at all.

A writer fills a staging folder next to the destination, which is renamed when it is complete. A lock on the staging
folder keeps two writers of one destination apart. (It is an flock, so it ends with the process that holds it.)
"""

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from criteo_prep.durable import force


class DestinationError(ValueError):
    """The destination cannot be written: it is not empty, is not a folder, or is being written by another process."""


@contextlib.contextmanager
def new_dataset(destination: str | Path, overwrite: bool = False, resume: bool = False) -> Iterator[Path]:
    """Yields an empty staging folder. A clean exit turns it into `destination`, and an exception removes it.

    Args:
      destination: folder to create. It may exist if it is empty, or if `overwrite` is set.
      overwrite: replace the existing dataset. It stays as it is until the new one is complete.
      resume: yield the staging folder with the files of an earlier writer, and keep its files after an exception.

    Raises:
      DestinationError: the destination holds files, is not a folder, cannot be replaced, or another process is
        writing it.
    """
    destination = Path(os.path.realpath(destination))  # the target of a link may be on another disk
    check_free(destination, overwrite)
    destination.parent.mkdir(parents=True, exist_ok=True)
    staging = staging_of(destination)
    with _locked(staging, destination):
        _recover(destination)
        check_free(destination, overwrite)
        try:
            if not resume:
                _clear(staging)  # a killed writer left its files
            yield staging
            check_free(destination, overwrite)
            _replace(staging, destination)
        except BaseException:
            if not resume or not any(staging.iterdir()):
                shutil.rmtree(staging, ignore_errors=True)
            raise
        force([destination.parent])
        shutil.rmtree(_old(destination), ignore_errors=True)


def staging_of(destination: Path) -> Path:
    """The staging folder of a destination."""
    return destination.parent / f".{destination.name}.partial"


def check_free(destination: Path, overwrite: bool = False) -> None:
    """Raises DestinationError unless `destination` is absent, an empty folder, or a folder that may be overwritten."""
    if destination.exists() and not destination.is_dir():
        raise DestinationError(f"{destination}: is not a folder. Name a folder that does not exist yet.")
    if os.path.ismount(destination):
        raise DestinationError(f"{destination}: is a mount point, which cannot be replaced. Name a folder inside it.")
    if destination.is_dir() and any(destination.iterdir()) and not overwrite:
        raise DestinationError(
            f"{destination}: is not empty. Name another destination, or add --overwrite to replace its content."
        )
    if overwrite and Path.cwd().is_relative_to(destination.resolve()):
        raise DestinationError(f"{destination}: holds the current folder, which would be lost. Name one inside it.")


def recover(destination: Path) -> None:
    """Repairs a destination after a writer was killed while it replaced the dataset.

    The old dataset returns to its place, or is deleted where the new one already stands in its place.
    """
    destination = Path(os.path.realpath(destination))
    if _old(destination).exists():
        staging = staging_of(destination)
        with _locked(staging, destination):
            _recover(destination)
            if not any(staging.iterdir()):
                staging.rmdir()


@contextlib.contextmanager
def _locked(staging: Path, destination: Path) -> Iterator[None]:
    """Holds the lock of the staging folder; creates the folder if it is missing."""
    staging.mkdir(exist_ok=True)
    descriptor = os.open(staging, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if not _lock(descriptor, staging):
            raise DestinationError(f"{destination}: another process is writing this destination. Wait for it.")
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, staging: Path) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Between our open and our lock another writer may have renamed the folder into place.
        return os.stat(staging).st_ino == os.fstat(descriptor).st_ino
    except (BlockingIOError, FileNotFoundError):
        return False


def _clear(folder: Path) -> None:
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def _replace(staging: Path, destination: Path) -> None:
    """Renames staging to destination. An existing dataset gets another name, and its caller deletes it later."""
    if not destination.exists() or not any(destination.iterdir()):
        os.replace(staging, destination)
        return
    old = _old(destination)
    os.rename(destination, old)
    try:
        os.rename(staging, destination)
    except OSError:
        os.rename(old, destination)
        raise


def _recover(destination: Path) -> None:
    old = _old(destination)
    if not old.exists():
        return
    if destination.exists() and any(destination.iterdir()):
        shutil.rmtree(old)
    else:
        os.rename(old, destination)


def _old(destination: Path) -> Path:
    """The name of the old dataset while it is being replaced."""
    return destination.parent / f".{destination.name}.old"
