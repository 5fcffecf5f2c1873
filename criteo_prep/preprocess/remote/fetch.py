"""Ranges of bytes of a remote file, asked for again after a failure, from the byte at which the failure happened."""

import random
import threading
from collections.abc import Callable
from typing import Protocol, TypeVar

from criteo_prep.preprocess.remote.errors import MissingError, RefusedError, RemoteError, cause_of
from criteo_prep.preprocess.remote.remote_file import RemoteFile
from criteo_prep.unchanged import ChangedError

Result = TypeVar("Result")

AHEAD = 4  # ranges of a file that are on their way at a time
ATTEMPTS = 5
FIRST_WAIT_S = 0.5  # doubled after each further failure, and up to half of it more or less
LEAST_BYTES = 64 << 10  # after failures, shorter ranges are asked for, which a bad line may let through
CONNECT_TIMEOUT_S, READ_TIMEOUT_S = 10, 30  # without a single byte

_FINAL = (MissingError, RefusedError, ChangedError)


class OpenStore(Protocol):
    """An open remote file.

    Attributes:
      size: bytes of the file.
    """

    size: int

    def read_range(self, start: int, count: int) -> bytes | bytearray:
        """At least one byte from `start` on, and at most `count`. Raises MissingError, RefusedError, ChangedError where
        another attempt does not help, and any OSError where it may help."""
        ...


def attempted(remote: RemoteFile, ask: Callable[[], Result], *, what: str) -> Result:
    """ask(), called again after failures.

    Args:
      remote: the file, for the message.
      ask: raises MissingError or RefusedError where another attempt does not help, and any OSError where it may help.
      what: what is asked for, for the message: "could not be opened", say.

    Raises:
      RemoteError: all attempts failed.
    """
    retries, missing = Retries(remote), False
    while True:
        try:
            return ask()
        except MissingError:
            if missing:
                raise
            missing = True  # ask once more: an answer that is cut off in its header looks the same
        except _FINAL:
            raise
        except OSError as error:
            retries.after(error, what)


class Retries:
    """Counts failures in a row, and waits between attempts.

    Args:
      remote: the file, for the message.
      closing: is set when nobody waits for the result any more.
    """

    def __init__(self, remote: RemoteFile, closing: threading.Event | None = None):
        self._remote, self._closing = remote, closing or threading.Event()
        self._failures = 0

    def after(self, error: OSError, what: str) -> None:
        """Waits after a failure. Raises RemoteError where it was the last attempt.

        Args:
          error: the failure.
          what: what was tried, for the message: "could not be read at byte 0", say.
        """
        self._failures += 1
        if self._failures >= ATTEMPTS or self._closing.is_set():
            raise RemoteError(
                f"{self._remote}: {what} in {self._failures} attempts: {cause_of(error)}. Look at the connection and "
                "the server, and run the command again."
            ) from None
        self._closing.wait(FIRST_WAIT_S * 2 ** (self._failures - 1) * random.uniform(0.5, 1.5))

    def forget(self) -> None:
        """Bytes have arrived, so the next failure is a first one."""
        self._failures = 0


class Fetcher:
    """Reads ranges of an open remote file, from several threads.

    Args:
      remote: the file, for messages.
      store: the same file, open.
    """

    def __init__(self, remote: RemoteFile, store: OpenStore):
        self._remote, self._store, self._closing = remote, store, threading.Event()
        self.size = store.size

    def fetch(self, start: int, count: int) -> bytes | bytearray:
        """Exactly `count` bytes from `start` on.

        Raises:
          RemoteError: the bytes could not be read in ATTEMPTS attempts; or in one, where another would not help.
          ChangedError: the file is not as it was when it was opened, where the store says so.
        """
        retries, parts, done, ask = Retries(self._remote, self._closing), [], 0, count
        while done < count:
            try:
                data = self._store.read_range(start + done, min(ask, count - done))
                if not data:
                    raise RemoteError("the answer has no bytes")
            except _FINAL:
                raise
            except OSError as error:
                retries.after(error, f"could not be read at byte {start + done:,}")
                ask = max(LEAST_BYTES, ask // 4)
                continue
            retries.forget()
            parts.append(data)
            done, ask = done + len(data), min(count, 2 * ask)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def close(self) -> None:
        """Ends waiting attempts."""
        self._closing.set()
