"""A dataset folder that appears whole or not at all.

Everything is written into a staging folder beside the destination, which is renamed when the work is done. A lock on
the staging folder (flock, so a killed process leaves none) keeps two writers of one destination apart.
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
    """Yields an empty staging folder; a clean exit turns it into `destination`, an exception removes it.

    Args:
      destination: folder to create. It may exist if it is empty, or if `overwrite` is set.
      overwrite: replace what is there, at commit; until then the old dataset stays as it is.
      resume: the staging folder holds what an earlier writer left, and an exception leaves it for the next one. An
      empty
        one is removed all the same.

    Raises:
      DestinationError: the destination holds files, is no folder, cannot be replaced, or another process is writing it.
    """
    destination = Path(os.path.realpath(destination))  # a link's target, which may be on another disk
    check_free(destination, overwrite)
    destination.parent.mkdir(parents=True, exist_ok=True)
    staging = staging_of(destination)
    with _locked(staging, destination):
        _recover(destination)
        check_free(destination, overwrite)
        try:
            if not resume:
                _clear(staging)  # what a killed writer left
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
    """The folder where a dataset is until it is finished."""
    return destination.parent / f".{destination.name}.partial"


def check_free(destination: Path, overwrite: bool = False) -> None:
    """Raises DestinationError unless `destination` is absent, an empty folder, or a folder that may be overwritten."""
    if destination.exists() and not destination.is_dir():
        raise DestinationError(f"{destination}: is not a folder. Name a folder that does not exist yet.")
    if os.path.ismount(destination):
        raise DestinationError(f"{destination}: is a mount point, which cannot be replaced. Name a folder inside it.")
    if destination.is_dir() and any(destination.iterdir()) and not overwrite:
        raise DestinationError(
            f"{destination}: is not empty. Name another destination, or add --overwrite to replace what is there."
        )
    if overwrite and Path.cwd().is_relative_to(destination.resolve()):
        raise DestinationError(f"{destination}: holds the current folder, which would be lost. Name one inside it.")


def recover(destination: Path) -> None:
    """Repairs what a writer left that was killed as it replaced the destination: it comes back, or its remains go."""
    destination = Path(os.path.realpath(destination))
    if _old(destination).exists():
        staging = staging_of(destination)
        with _locked(staging, destination):
            _recover(destination)
            if not any(staging.iterdir()):
                staging.rmdir()


@contextlib.contextmanager
def _locked(staging: Path, destination: Path) -> Iterator[None]:
    """Holds the lock of the staging folder, created if it is not there."""
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
    """Renames staging to destination; a dataset that stood there gets another name, to go when that is on the disk."""
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
    """Where the dataset that is replaced stands for a moment."""
    return destination.parent / f".{destination.name}.old"
