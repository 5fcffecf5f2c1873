"""What can be wrong with a remote file. Every message is one line, and has no part of a URL that may be secret."""

import errno

from criteo_prep.messages import one_line


class UrlError(ValueError):
    """A URL cannot name an input."""


class RemoteError(OSError):
    """A remote file cannot be read. The text is the whole message; it names the file."""

    number = errno.EIO

    def __init__(self, text: str):
        super().__init__(self.number, text)

    def __str__(self) -> str:
        return self.strerror


class MissingError(RemoteError):
    """There is no such file, folder or bucket."""

    number = errno.ENOENT


class RefusedError(RemoteError):
    """The store or this machine refuses to read the file, and another attempt would not help."""

    number = errno.EACCES


def cause_of(error: BaseException, limit: int = 200) -> str:
    """Why an attempt failed, in a few words; the text of a library's error may hold a URL with a secret, so only texts
    that pyarrow or the system made are used."""
    if isinstance(error, RemoteError):
        return one_line(str(error), limit)
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    lines = str(text).strip().splitlines()
    return one_line(lines[0], limit).rstrip(".") if lines else type(error).__name__
