"""Notices that a file which is being read is not the same any more.

An open file that somebody deletes or replaces can still be read: without a look at its path, a training run would go on
with data that nobody has.
"""

import time
from collections.abc import Iterable
from pathlib import Path

from criteo_prep.feature_spec import FeatureSpecError

_INTERVAL_S = 1.0


class FileWatch:
    """The files as they were at first.

    Args:
      paths: all of them there.
    """

    def __init__(self, paths: Iterable[Path]):
        self._seen = {path: _identity(path) for path in dict.fromkeys(paths)}
        self._next = time.monotonic()

    def check(self, sample: int) -> None:
        """Looks at the files, once a second at most.

        Args:
          sample: about to be read, for the message.

        Raises:
          FeatureSpecError: one is gone, was replaced by another one, or has another size.
        """
        if (now := time.monotonic()) < self._next:
            return
        self._next = now + _INTERVAL_S
        for path, (inode, size) in self._seen.items():
            try:
                inode_now, size_now = _identity(path)
            except FileNotFoundError:
                raise FeatureSpecError(
                    f"{path}: is gone; training had read up to row {sample}. Put the dataset back, and start again."
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
