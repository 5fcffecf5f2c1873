"""Plain files, which can be read to their end: a pipe keeps a reader waiting for ever, and /dev/zero never ends."""

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

_KINDS = {stat.S_IFIFO: "pipe", stat.S_IFSOCK: "socket", stat.S_IFCHR: "device", stat.S_IFBLK: "device"}


class NotPlainError(OSError):
    """A path leads to a pipe, a socket or a device."""

    def __init__(self, path: str | Path, kind: str):
        super().__init__(errno.EINVAL, f"is a {kind}, and not a plain file. Put a plain file there", str(path))

    def __str__(self) -> str:
        return f"{self.filename}: {self.strerror}."


def open_plain(path: str | Path, buffering: int = -1) -> BinaryIO:
    """Opens a file for reading, in binary mode; never waits.

    Args:
      path: the file.
      buffering: as in open().

    Raises:
      NotPlainError: the path leads to a pipe, a socket or a device.
      OSError: the file cannot be opened.
    """
    check_plain(path)  # before it is opened: to open a tape or a printer may move it
    return open(path, "rb", buffering=buffering, opener=_without_waiting)


def check_plain(path: str | Path) -> None:
    """Raises NotPlainError for a pipe, a socket or a device, and for nothing else."""
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):  # whoever opens the file says what is wrong
        return
    if kind := _KINDS.get(stat.S_IFMT(mode)):
        raise NotPlainError(path, kind)


def _without_waiting(path: str, flags: int) -> int:
    """The descriptor of a file, even if a pipe has taken its place by now."""
    return os.open(path, flags | os.O_NONBLOCK)
