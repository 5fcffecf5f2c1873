"""Bytes that outlive a power cut.

Written bytes outlive the process at once. They reach the disk only later, unless they are forced to it.
"""

import contextlib
import errno
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

_AT_A_TIME = 8  # files that are forced at the same time share the commits of the file system


def force(paths: Iterable[str | Path]) -> None:
    """Returns when the content of these files, and the names in these folders, are on the disk.

    Raises:
      OSError: the disk failed; names the path.
    """
    with ThreadPoolExecutor(_AT_A_TIME) as pool:
        for _ in pool.map(_force, paths):
            pass


def force_tree(folder: str | Path) -> None:
    """Forces a folder and everything in it to the disk."""
    force([*Path(folder).rglob("*"), folder])


class Forcing:
    """Forces files to the disk while the caller makes other files, so that a later `force` of them waits for little.

    A context manager. Its exit waits for the disk. It raises the first error of `force`, if there is no other error.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1)
        self._forced: list[Future] = []

    def begin(self, paths: Iterable[str | Path]) -> None:
        """Begins to force files that have their final content."""
        self._forced.append(self._pool.submit(force, list(paths)))

    def __enter__(self) -> "Forcing":
        return self

    def __exit__(self, exception_type, exception, traceback) -> None:
        self._pool.shutdown(cancel_futures=exception_type is not None)
        if exception_type is None:
            for forced in self._forced:
                forced.result()


@contextlib.contextmanager
def naming(path: str | Path) -> Iterator[None]:
    """Adds a path to an OSError that names none, such as the error of a write to a full disk."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise


def boot_id() -> str:
    """An id of this machine's last start. Bytes written before that start may never have reached the disk."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _force(path: str | Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno == errno.EINVAL and os.path.isdir(path):  # this file system forces names by itself
            return
        error.filename = str(path)
        raise
    finally:
        os.close(descriptor)
