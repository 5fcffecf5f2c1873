"""Files on web servers, by requests: proxies, certificates and ~/.netrc are as usual.

The server has to answer requests for ranges of bytes. Without ranges, a read that fails could not continue at its byte.
The query of the URL may be a secret, also in the address that a server redirects to; so no text of requests, which may
hold a whole URL, is in a message.
"""

import re

from criteo_prep.preprocess.remote.errors import MissingError, RefusedError, RemoteError
from criteo_prep.preprocess.remote.fetch import AHEAD, CONNECT_TIMEOUT_S, READ_TIMEOUT_S, attempted
from criteo_prep.preprocess.remote.remote_file import RemoteFile, credentials_of
from criteo_prep.unchanged import ChangedError

_AGAIN = (408, 425, 429)  # and 500 to 599: another attempt may help


class OpenWebFile:
    """An open file of a web server.

    Attributes:
      size: bytes of the file.
      state: what changes when somebody writes the file: "bytes", and "etag" or "modified" where the server says them.

    Raises:
      MissingError, RefusedError, RemoteError: the file cannot be opened, or the server does not answer ranges.
    """

    def __init__(self, remote: RemoteFile):
        self._remote, self._session = remote, _new_session()
        self.state = attempted(remote, self._first_state, what="could not be opened")
        self.size = self.state["bytes"]

    def read_range(self, start: int, count: int) -> bytes:
        """See fetch.OpenStore. After a failure, the bytes that have arrived are returned."""
        with self._ask(start, count) as answer:
            self._check_status(answer)
            state = self._state(answer)
            if not answer.headers["Content-Range"].startswith(f"bytes {start}-") or state.keys() != self.state.keys():
                raise RemoteError("the answer is not what was asked for")
            if state != self.state:
                raise ChangedError(
                    f"{self._remote}: changed while it was read. Wait until it is complete, and run the command again."
                )
            data, done = bytearray(count), 0
            view = memoryview(data)
            try:
                while done < count and (got := answer.raw.readinto(view[done:])):
                    done += got
            except Exception as error:
                if not done:
                    raise self._failure(error) from None
            view.release()
        if not done:
            raise RemoteError("the connection was closed")
        return bytes(data) if done == count else bytes(data[:done])

    def _first_state(self) -> dict:
        with self._ask(0, 1) as answer:
            empty = answer.headers.get("Content-Range") == "bytes */0" or answer.headers.get("Content-Length") == "0"
            if answer.status_code in (200, 416) and empty:
                return self._state(answer)
            self._check_status(answer)
            return self._state(answer)

    def _ask(self, start: int, count: int):
        headers = {"Range": f"bytes={start}-{start + count - 1}", "Accept-Encoding": "identity"}
        try:
            return self._session.get(
                self._remote.url, headers=headers, stream=True, timeout=(CONNECT_TIMEOUT_S, READ_TIMEOUT_S)
            )
        except Exception as error:
            raise self._failure(error) from None

    def _state(self, answer) -> dict:
        match = re.fullmatch(r"bytes (?:\d+-\d+|[*])/(\d+)", answer.headers.get("Content-Range", ""))
        if not match and answer.headers.get("Content-Length") != "0":
            raise RemoteError("the answer was cut off")
        state: dict = {"bytes": int(match[1]) if match else 0}
        for header, key in (("ETag", "etag"), ("Last-Modified", "modified")):
            if value := answer.headers.get(header):
                return {**state, key: value}
        return state

    def _check_status(self, answer) -> None:
        """Raises for an answer that has no bytes of the file."""
        status = answer.status_code
        if status in (404, 410):
            raise MissingError(
                f"{self._remote}: does not exist (HTTP status {status}). Name an existing file, not a folder."
            )
        if status in (401, 403):
            raise RefusedError(
                f"{self._remote}: permission denied (HTTP status {status}). Give credentials by "
                f"{credentials_of(self._remote.scheme)}, or make a new signed URL if it has expired."
            )
        if status in _AGAIN or status >= 500:
            raise RemoteError(f"HTTP status {status}")
        if status >= 400:
            raise RefusedError(f"{self._remote}: the server refuses the request (HTTP status {status}).")
        if status != 206:
            raise RefusedError(
                f"{self._remote}: the server does not answer requests for ranges of bytes, so a read that fails could "
                "not continue. Copy the file to a disk, or use a server with ranges, such as nginx."
            )

    def _failure(self, error: Exception) -> OSError:
        """What went wrong, without the text of requests, which may hold the whole URL."""
        import requests

        if isinstance(error, requests.exceptions.SSLError):
            return RefusedError(f"{self._remote}: the certificate of the server is not valid ({_system_cause(error)}).")
        if isinstance(error, requests.exceptions.Timeout):
            return RemoteError(f"no answer for {READ_TIMEOUT_S} s")
        if isinstance(error, requests.exceptions.InvalidURL | requests.exceptions.InvalidSchema):
            return RefusedError(f"{self._remote}: is not a valid URL. Correct it.")
        if isinstance(error, requests.exceptions.TooManyRedirects):
            return RefusedError(f"{self._remote}: the server redirects without end.")
        return RemoteError(f"the connection failed ({_system_cause(error)})")


def _system_cause(error: BaseException | None) -> str:
    """The words of the system for an error; else the name of the library's error."""
    last = error
    while error is not None:
        if type(error).__module__ in ("builtins", "socket", "ssl") and isinstance(error, OSError) and error.strerror:
            return error.strerror
        last, error = error, error.__cause__ or error.__context__
    return type(last).__name__


def _new_session():
    try:
        import requests
    except ImportError:
        raise RefusedError(
            "https:// and http:// URLs need the package requests. Install it: pip install 'criteo-dlrm[remote]'"
        ) from None
    session = requests.Session()
    adapter = requests.adapters.HTTPAdapter(pool_connections=1, pool_maxsize=AHEAD)
    for scheme in ("https://", "http://"):
        session.mount(scheme, adapter)
    return session
