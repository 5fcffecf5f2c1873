"""Bytes that outlive a power cut. What is written is safe from a killed process at once, but on the disk only later,
unless it is forced there.
"""

import errno
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

_AT_A_TIME = 8  # several at once share the disk's own commits


def force(paths: Iterable[str | Path]) -> None:
    """Returns when the content of these files, and the names in these folders, are on the disk.

    Raises:
      OSError: the disk did not take it; names the path.
    """
    with ThreadPoolExecutor(_AT_A_TIME) as pool:
        for _ in pool.map(_force, paths):
            pass


def force_tree(folder: str | Path) -> None:
    """`force` for a folder and all in it."""
    force([*Path(folder).rglob("*"), folder])


def boot_id() -> str:
    """Which start of this machine it is: what was written under another one may never have come to the disk."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _force(path: str | Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno == errno.EINVAL and os.path.isdir(path):  # this file system keeps names by itself
            return
        error.filename = str(path)
        raise
    finally:
        os.close(descriptor)
