"""S3, Google Cloud Storage, Azure and HDFS, by pyarrow.fs. Its own attempts are switched off: see fetch.py."""

import datetime
import functools
import os
import re
import urllib.parse
from collections.abc import Callable, Iterator

from criteo_prep.preprocess.remote.errors import MissingError, RefusedError, RemoteError, cause_of
from criteo_prep.preprocess.remote.fetch import CONNECT_TIMEOUT_S, READ_TIMEOUT_S, Result, attempted
from criteo_prep.preprocess.remote.remote_file import ANONYMOUS, RemoteFile, credentials_of
from criteo_prep.unchanged import check_state

_DENIED = re.compile(
    r"ACCESS_DENIED|AccessDenied|Forbidden|HTTP status 403|403 |Permission ?denied|INVALID_ACCESS_KEY|InvalidAccessKey"
    r"|SIGNATURE|ExpiredToken|EXPIRED_TOKEN|UNRECOGNIZED_CLIENT|MISSING_AUTHENTICATION|Unauthorized|UNAUTHENTICATED"
    r"|PERMISSION_DENIED|INVALID_CLIENT_TOKEN|AuthenticationFail|AuthorizationFail|credential",
    re.IGNORECASE,
)
_OTHER_REGION = re.compile(r"HTTP status 301|PermanentRedirect|AuthorizationHeaderMalformed|bucket is located in")
_REGION = re.compile(r"bucket is located in '([^']+)'")
_MISSING = re.compile(r"NO_SUCH_BUCKET|NO_SUCH_KEY|RESOURCE_NOT_FOUND|NoSuchBucket|ContainerNotFound|does not exist")
_NO_LIBRARY = re.compile(r"libhdfs|libjvm|HADOOP_HOME|JAVA_HOME|CLASSPATH", re.IGNORECASE)

_MARK_BYTES = 16


class OpenObject:
    """An open file of a store.

    Attributes:
      size: bytes of the file.
      state: what changes when somebody writes the file: "bytes", and "etag" or "modified_ns".

    Raises:
      MissingError, RefusedError, RemoteError: the file cannot be opened.
    """

    def __init__(self, remote: RemoteFile):
        self._remote = remote
        file, self.state = _asked(remote, self._open, what="could not be opened")
        if not self.state["bytes"]:  # as pyarrow also says after an answer that was cut off in its header
            file, self.state = _asked(remote, self._open, what="could not be opened")
        self.size = self.state["bytes"]
        self._free = [file]  # open files that no thread reads just now

    def read_range(self, start: int, count: int) -> bytearray:
        """See fetch.OpenStore.

        pyarrow returns the whole buffer of an S3 file as read, also where an answer was cut off in its header and has
        brought no byte. So the end of the buffer has a random mark, which the last bytes must have replaced.
        """
        buffer, mark = bytearray(count), os.urandom(min(_MARK_BYTES, count))
        buffer[count - len(mark) :] = mark
        with _Explained(self._remote):
            file = self._free.pop() if self._free else self._open_again()
            file.seek(start)
            done = file.readinto(buffer)
        self._free.append(file)
        if done == count and buffer.endswith(mark):
            raise RemoteError("the answer was cut off")
        return buffer if done == count else buffer[:done]

    def _open(self) -> tuple:
        with _Explained(self._remote):
            store = _store_of(self._remote.scheme, self._remote.place)
            file = store.open_input_file(_path_of(self._remote))
            facts = {_text(key).lower(): _text(value) for key, value in (file.metadata() or {}).items()}
            state: dict = {"bytes": file.size()}
            if self._remote.scheme == "s3" and not {"etag", "content-length"} <= facts.keys():
                raise RemoteError("the answer was cut off")
            if etag := facts.get("etag"):
                return file, {**state, "etag": etag}
            info = store.get_file_info(_path_of(self._remote))
            return file, {**state, **({} if info.mtime_ns is None else {"modified_ns": info.mtime_ns})}

    def _open_again(self):
        """The file, opened once more for another thread. Raises ChangedError where it has changed meanwhile."""
        file, state = self._open()
        check_state(self._remote, self.state, now=state)
        return file


def _text(value: str | bytes) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def is_folder(remote: RemoteFile) -> bool:
    """Whether a URL names a folder. Raises MissingError, RefusedError, RemoteError."""
    from pyarrow.fs import FileType

    kind = _asked(remote, lambda: _info(remote, _path_of(remote)).type, what="could not be looked up")
    if kind is FileType.NotFound:
        raise MissingError(_missing(remote))
    return kind is FileType.Directory


def entries_of(remote: RemoteFile, recursive: bool = False) -> Iterator[RemoteFile]:
    """The files and folders in a folder, or of all folders in it. Raises as is_folder."""
    from pyarrow.fs import FileSelector, FileType

    def ask() -> list:
        with _Explained(remote):
            selector = FileSelector(_path_of(remote), recursive=recursive)
            return _store_of(remote.scheme, remote.place).get_file_info(selector)

    prefix = _path_of(remote).strip("/") + "/"
    for info in _asked(remote, ask, what="could not be listed"):
        name = info.path.strip("/").removeprefix(prefix)
        yield remote.child(name, info.type is FileType.Directory)


def _asked(remote: RemoteFile, ask: Callable[[], Result], *, what: str) -> Result:
    """fetch.attempted, with a message that says whether the bucket is missing too."""
    try:
        return attempted(remote, ask, what=what)
    except MissingError:
        raise MissingError(_missing(remote)) from None


def _info(remote: RemoteFile, path: str):
    with _Explained(remote):
        return _store_of(remote.scheme, remote.place).get_file_info(path)


@functools.lru_cache(maxsize=32)
def _store_of(scheme: str, place: str):
    """The pyarrow file system of a bucket, an account or a name node."""
    from pyarrow import fs

    if scheme == "s3":
        return fs.S3FileSystem(
            anonymous=place.startswith(f"{ANONYMOUS}@"),
            endpoint_override=os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or None,
            connect_timeout=CONNECT_TIMEOUT_S,
            request_timeout=READ_TIMEOUT_S,
            retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=1),
        )
    if scheme == "gs":
        return fs.GcsFileSystem(
            anonymous=place.startswith(f"{ANONYMOUS}@"), retry_time_limit=datetime.timedelta(seconds=READ_TIMEOUT_S)
        )
    return fs.FileSystem.from_uri(f"{scheme}://{urllib.parse.quote(place, safe='@:.')}/")[0]


def _path_of(remote: RemoteFile) -> str:
    """The path of a file as its pyarrow file system has it."""
    if remote.scheme == "hdfs":
        return remote.path or "/"
    if remote.scheme in ("abfs", "abfss") and "@" not in remote.place:
        return remote.path.lstrip("/")
    first, at, last = remote.place.partition("@")
    bucket = last if remote.scheme in ("s3", "gs") and at else first
    return f"{bucket}{remote.path}"


class _Explained:
    """Turns errors of pyarrow into errors that say what to do, where another attempt does not help."""

    def __init__(self, remote: RemoteFile):
        self._remote = remote

    def __enter__(self) -> None:
        pass

    def __exit__(self, exception_type, exception, traceback) -> None:
        import pyarrow

        if isinstance(exception, FileNotFoundError) or (
            isinstance(exception, OSError) and _MISSING.search(str(exception))
        ):
            raise MissingError(f"{self._remote}: does not exist. Name an existing file.") from None
        if isinstance(exception, pyarrow.ArrowException | OSError):
            if text := _refusal(self._remote, exception):
                raise RefusedError(text) from None
            if isinstance(exception, pyarrow.ArrowInvalid | pyarrow.ArrowNotImplementedError):
                raise RefusedError(f"{self._remote}: cannot be read: {cause_of(exception)}.") from None
            if not isinstance(exception, OSError):  # Azure's errors are of no class of their own
                raise RemoteError(cause_of(exception)) from None


def _refusal(remote: RemoteFile, error: Exception) -> str | None:
    """The message for an error after which another attempt does not help; None for another error."""
    text, cause = str(error), cause_of(error)
    if _OTHER_REGION.search(text):
        match = _REGION.search(text)
        where = f"AWS_REGION={match[1]}" if match else "AWS_REGION to the region of the bucket"
        return f"{remote}: the bucket is in another region. Set {where} in the environment ({cause})."
    if _NO_LIBRARY.search(text):
        return (
            f"{remote}: HDFS needs Hadoop's client on this machine (libhdfs and Java): {cause}. Set JAVA_HOME, "
            "HADOOP_HOME and CLASSPATH (hadoop classpath --glob)."
        )
    if _DENIED.search(text):
        public = f"; a public bucket is {remote.scheme}://{ANONYMOUS}@BUCKET/..." if remote.scheme in "s3 gs" else ""
        return (
            f"{remote}: permission denied, or no valid credentials: {cause}. Give credentials by "
            f"{credentials_of(remote.scheme)}{public}."
        )
    return None


def _missing(remote: RemoteFile) -> str:
    """The message for a file that is not found: it says where the bucket is not found either."""
    from pyarrow.fs import FileType

    if remote.scheme in ("s3", "gs") and remote.path:
        try:
            bucket = _store_of(remote.scheme, remote.place).get_file_info(_path_of(remote).partition("/")[0])
            if bucket.type is FileType.NotFound:
                return f"{remote}: there is no bucket {_path_of(remote).partition('/')[0]}. Name an existing bucket."
        except Exception:  # noqa: S110 - whether the bucket exists stays unknown
            pass
    return f"{remote}: does not exist. Name an existing file."
