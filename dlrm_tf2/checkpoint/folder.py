"""The folder that the files of a checkpoint are created in and read from. No TensorFlow.

It lies on a disk that this process sees (LocalFolder), or on the disk of rank 0's host alone (RemoteFolder, in
remote_folder.py). Both give ordinary binary files of Python, and fail with OSError.
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Protocol

from criteo_prep.plain_file import open_plain


class Folder(Protocol):
    """A folder of a checkpoint.

    Attributes:
      path: its path where it lies.
    """

    path: Path

    def create(self, name: str) -> contextlib.AbstractContextManager[BinaryIO]:
        """A new file to write; after a clean exit from the context it is on the disk itself (fsync).

        Args:
          name: path of the file, relative to the folder; it must not exist.
        """

    def open(self, name: str) -> contextlib.AbstractContextManager[BinaryIO]:
        """A plain file to read, without a buffer. `name`: as for `create`."""


class LocalFolder:
    """A folder that this process sees under its path."""

    def __init__(self, path: Path):
        self.path = path

    @contextlib.contextmanager
    def create(self, name: str) -> Iterator[BinaryIO]:
        with open(self.path / name, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())

    def open(self, name: str) -> contextlib.AbstractContextManager[BinaryIO]:
        return open_plain(self.path / name, buffering=0)


def as_folder(folder: Path | Folder) -> Folder:
    """The folder itself; of a path, the folder that this process sees there."""
    return LocalFolder(folder) if isinstance(folder, Path) else folder
