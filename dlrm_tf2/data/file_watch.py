"""Notices that a file changes while it is read.

An open file can still be read after somebody deletes or replaces it. Without a look at the path, training would
continue on data that no longer exists.
"""

import time
from collections.abc import Iterable
from pathlib import Path

from criteo_prep.feature_spec import FeatureSpecError

_INTERVAL_S = 1.0


class FileWatch:
    """Compares files with what they were when reading began.

    Args:
      paths: existing files.
    """

    def __init__(self, paths: Iterable[Path]):
        self._seen = {path: _identity(path) for path in dict.fromkeys(paths)}
        self._next = time.monotonic()

    def check(self, sample: int) -> None:
        """Looks at the files, at most once a second.

        Args:
          sample: the sample that is read next, for the message.

        Raises:
          FeatureSpecError: a file was removed or replaced, or its size changed.
        """
        if (now := time.monotonic()) < self._next:
            return
        self._next = now + _INTERVAL_S
        for path, (inode, size) in self._seen.items():
            try:
                inode_now, size_now = _identity(path)
            except FileNotFoundError:
                raise FeatureSpecError(
                    f"{path}: was removed; training had read up to row {sample}. Put the dataset back, and start again."
                ) from None
            if size_now != size:
                raise FeatureSpecError(
                    f"{path}: has {size_now} bytes and had {size} when reading began; training had read up to row "
                    f"{sample}. Make the dataset again, and leave it alone while it is read."
                )
            if inode_now != inode:
                raise FeatureSpecError(
                    f"{path}: was replaced by another file; training had read up to row {sample}. Start again with the "
                    "new dataset."
                )


def _identity(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_ino, status.st_size
