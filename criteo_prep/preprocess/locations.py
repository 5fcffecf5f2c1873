"""Where an input is: on this machine, or behind a URL. All that looks at an input goes through here.

A location is a Path or a RemoteFile. Both have `name`, `suffix`, `stem`, `resolve()`, and a text that may be shown.
"""

import io
import urllib.parse
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

from criteo_prep import unchanged
from criteo_prep.plain_file import open_plain
from criteo_prep.preprocess.remote.errors import MissingError, RemoteError, UrlError
from criteo_prep.preprocess.remote.remote_file import WEB_SCHEMES, RemoteFile, is_url, remote_file
from criteo_prep.unchanged import ChangedError

Location = Path | RemoteFile
_BUFFER_BYTES = 128 << 10


def location_of(text: str | Path | RemoteFile) -> Location:
    """The file or folder that a text names: a path, or a URL such as s3://bucket/day_0.

    Raises:
      UrlError: the URL has a scheme that is not known, or holds a password.
    """
    if not isinstance(text, str) or not is_url(text):
        return text if isinstance(text, RemoteFile) else Path(text)
    if not text.lower().startswith("file://"):
        return remote_file(text)
    host, _, path = text[len("file://") :].partition("/")
    if host not in ("", "localhost"):
        raise UrlError(f"{text}: names a file of another machine. Write file:///PATH.")
    return Path("/" + urllib.parse.unquote(path))


def local_paths(texts: Iterable[str | Location]) -> list[Path]:
    """The locations that are on this machine; a destination must not touch them."""
    return [location for location in map(location_of, texts) if isinstance(location, Path)]


def open_location(location: Location, *, in_order: bool = True) -> BinaryIO:
    """Opens a file for reading, in binary mode. A remote file is read ahead, and failed reads are tried again.

    Args:
      location: the file.
      in_order: whether the file is read from front to back, and not at several places in turn.

    Raises:
      OSError: the file cannot be opened.
    """
    if isinstance(location, Path):
        return open_plain(location)
    from criteo_prep.preprocess.remote.fetch import Fetcher
    from criteo_prep.preprocess.remote.read_ahead import InOrder, SeveralPlaces

    fetcher = Fetcher(location, _open_store(location))
    return io.BufferedReader(InOrder(fetcher), _BUFFER_BYTES) if in_order else SeveralPlaces(fetcher)


def size_of(location: Location) -> int:
    """Stored bytes of a file. Raises OSError."""
    return location.stat().st_size if isinstance(location, Path) else _open_store(location).size


def state_of(location: Location) -> dict:
    """What changes when somebody writes a file: "bytes", and the time of change, or the ETag of a remote file."""
    return unchanged.state_of(location) if isinstance(location, Path) else dict(_open_store(location).state)


def check_unchanged(location: Location, state: dict) -> None:
    """Raises ChangedError where a file is not in this state any more, or is missing.

    Raises:
      RemoteError: a remote file cannot be looked at.
    """
    if isinstance(location, Path):
        return unchanged.check_unchanged(location, state)
    try:
        now = state_of(location)
    except MissingError:
        raise ChangedError(
            f"{location}: disappeared while it was read. Put it back, and run the command again."
        ) from None
    unchanged.check_state(location, state, now=now)


def is_folder(location: Location) -> bool:
    """Whether a location is a folder. Raises RemoteError for a remote one that cannot be looked up."""
    if isinstance(location, Path):
        return location.is_dir()
    if location.is_folder is not None:
        return location.is_folder
    if location.scheme in WEB_SCHEMES:
        return False
    from criteo_prep.preprocess.remote import object_store

    return object_store.is_folder(location)


def files_in(folder: Location, recursive: bool = False) -> list[Location]:
    """The files and folders in a folder, in no order; with `recursive`, those in all its folders too."""
    if isinstance(folder, Path):
        return list(folder.rglob("*") if recursive else folder.iterdir())
    from criteo_prep.preprocess.remote import object_store

    return list(object_store.entries_of(folder, recursive))


def parts_below(folder: Location, location: Location) -> tuple[str, ...]:
    """The parts of the path from a folder to a file in it."""
    if isinstance(location, Path):
        return location.relative_to(folder).parts
    return tuple(location.path.removeprefix(folder.path).strip("/").split("/"))


def _open_store(remote: RemoteFile):
    if remote.scheme in WEB_SCHEMES:
        from criteo_prep.preprocess.remote.web import OpenWebFile

        return OpenWebFile(remote)
    from criteo_prep.preprocess.remote.object_store import OpenObject

    return OpenObject(remote)


__all__ = [
    "Location", "RemoteFile", "RemoteError", "check_unchanged", "files_in", "is_folder",
    "local_paths", "location_of", "open_location", "parts_below", "size_of", "state_of",
]  # fmt: skip
