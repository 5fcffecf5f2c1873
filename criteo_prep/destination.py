"""A dataset folder, or a file, that appears whole or not at all, and never at the cost of anything else.

A writer fills a staging folder next to the destination, which is renamed when it is complete. A lock on the staging
folder keeps two writers of one destination apart. (It is an flock, so it ends with the process that holds it.)

guard.py says what a destination may be; every writer here asks it.
"""

import contextlib
import errno
import fcntl
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from io import FileIO
from pathlib import Path

from criteo_prep.durable import force, naming
from criteo_prep.guard import DestinationError, check_apart, check_file_free, check_free

_NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP}


class NoLocksError(DestinationError):
    """The file system of the destination has no locks."""


@contextlib.contextmanager
def new_dataset(
    destination: str | Path, *, reads: Iterable[str | Path] = (), overwrite: bool = False, resume: bool = False
) -> Iterator[Path]:
    """Yields an empty staging folder. A clean exit turns it into `destination`, and an exception removes it.

    Args:
      destination: folder to create. It may exist if it is empty, or if `overwrite` is set.
      reads: files and folders that are read meanwhile; see check_apart.
      overwrite: replace the existing dataset. It stays as it is until the new one is complete.
      resume: yield the staging folder with the files of an earlier writer, and keep its files after an exception.

    Raises:
      DestinationError: see check_apart and check_free; or another process is writing the destination.
    """
    check_apart(destination, reads)
    check_free(destination, overwrite)
    destination = Path(os.path.realpath(destination))  # the target of a link may be on another disk
    staging = staging_of(destination)
    with _parents_of(staging), _locked(staging, destination):
        _recover(destination)
        check_free(destination, overwrite)
        try:
            if not resume:
                _clear(staging)  # a killed writer left its files
            with naming(staging):
                yield staging
            check_free(destination, overwrite)
        except BaseException:
            if not resume or not any(staging.iterdir()):
                shutil.rmtree(staging, ignore_errors=True)
            raise
        _replace(staging, destination)
        force([destination.parent])
        shutil.rmtree(_old(destination), ignore_errors=True)


@contextlib.contextmanager
def new_file(
    destination: str | Path,
    *,
    is_ours: Callable[[Path], bool],
    reads: Iterable[str | Path] = (),
    overwrite: bool = False,
) -> Iterator[FileIO]:
    """Yields an empty file next to the destination. A clean exit renames it, and an exception removes it.

    Args:
      destination: file to create.
      is_ours: whether an existing file has the content that this program gives it, so that it may be replaced.
      reads: files and folders that are read meanwhile; see check_apart.
      overwrite: replace an existing file.

    Raises:
      DestinationError: see check_apart and check_file_free; or another process is writing the file.
    """
    check_apart(destination, reads)
    check_file_free(destination, overwrite, is_ours)
    destination = Path(destination)
    path = staging_of(destination)
    is_new = not path.exists()
    with _parents_of(path), open(os.open(path, os.O_WRONLY | os.O_CREAT, 0o666), "wb", buffering=0) as file:
        try:
            _lock(file.fileno(), path, destination=destination)
        except NoLocksError:
            if is_new:
                path.unlink()
            raise
        try:
            if os.fstat(file.fileno()).st_size:  # closing a file that was truncated flushes it to the disk
                file.truncate()  # a killed writer left its bytes
            with naming(path):
                yield file
            check_file_free(destination, overwrite, is_ours)
            os.replace(path, destination)
        except BaseException:
            path.unlink(missing_ok=True)
            raise


def staging_of(destination: Path) -> Path:
    """The staging folder (or file) of a destination."""
    return destination.parent / f".{destination.name}.partial"


def recover(destination: str | Path) -> None:
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
def _parents_of(path: Path) -> Iterator[None]:
    """Makes the folders above a path. An exception removes the new folders that are empty."""
    new = [folder for folder in path.parents if not folder.exists()]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException:
        for folder in new:
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise


@contextlib.contextmanager
def _locked(staging: Path, destination: Path) -> Iterator[None]:
    """Holds the lock of the staging folder; creates the folder if it is missing."""
    is_new = not staging.exists()
    staging.mkdir(exist_ok=True)
    descriptor = os.open(staging, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            _lock(descriptor, staging, destination=destination)
        except NoLocksError:
            if is_new:
                staging.rmdir()
            raise
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, path: Path, *, destination: Path) -> None:
    """Locks an open staging folder or file.

    Raises:
      DestinationError: another process is writing the destination.
      NoLocksError: the file system has no locks.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Between our open and our lock another writer may have renamed the folder into place.
        if os.stat(path).st_ino == os.fstat(descriptor).st_ino:
            return
    except (BlockingIOError, FileNotFoundError):
        pass
    except OSError as error:
        if error.errno in _NO_LOCKS:
            raise NoLocksError(
                f"{destination}: its file system has no locks, which keep two writers apart (flock: {error.strerror}). "
                "Name a destination on another file system."
            ) from None
        raise
    raise DestinationError(f"{destination}: another process is writing this destination. Wait for it.")


def _clear(folder: Path) -> None:
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def _replace(staging: Path, destination: Path) -> None:
    """Renames staging to destination. An existing dataset gets another name, and its caller deletes it later."""
    old = _old(destination)
    try:
        if not destination.exists() or not any(destination.iterdir()):
            os.replace(staging, destination)
            return
        os.rename(destination, old)
        try:
            os.rename(staging, destination)
        except OSError:
            os.rename(old, destination)
            raise
    except OSError as error:  # such as EXDEV, for a folder in a lower layer of an overlay file system
        raise DestinationError(
            f"{destination}: cannot be replaced ({error.strerror or error}). The new dataset is complete, and kept in "
            f"{staging}. Delete {destination}, and rename {staging} to it."
        ) from None


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
