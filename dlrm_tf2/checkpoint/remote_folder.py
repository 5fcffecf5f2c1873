"""Folders on the disk of rank 0's host, for a rank that does not see them. No TensorFlow."""

import contextlib
import io
import json
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from dlrm_tf2.checkpoint.files import CheckpointError
from dlrm_tf2.checkpoint.folder_messages import (
    CREATE,
    DONE,
    END,
    ERROR,
    OPEN,
    PIECE_BYTES,
    RANGE,
    READ,
    WRITE,
    Connection,
)
from dlrm_tf2.runtime import activity

_CONNECTING_S = 5.0  # for each address of rank 0
_ENTERING_S = 60.0  # for a rank 0 that is busy or was stopped for a while


@dataclass(frozen=True)
class DiskOfRank0:
    """Where a rank finds the process of rank 0, which creates and reads files for it.

    Attributes:
      addresses: addresses of its machine.
      port: the port at which it waits.
      token: what shows that a process belongs to the job.
    """

    addresses: tuple[str, ...]
    port: int
    token: bytes = field(repr=False)

    def reach(self) -> "DiskOfRank0":
        """This disk, with the one address at which rank 0 is reached. Raises CheckpointError if there is none."""
        reasons = []
        for address in self.addresses:
            try:
                self._connected(address).close()
                return replace(self, addresses=(address,))
            except OSError as error:
                reasons.append(f"{address}:{self.port}: {error.strerror or error}")
        raise CheckpointError(
            "rank 0, which keeps the checkpoint for this rank (--checkpoint_gather), cannot be reached: "
            f"{'; '.join(reasons)}. Open the ports between the hosts, or save on a file system that all hosts share."
        )

    def connect(self) -> Connection:
        """A new connection, at the address that `reach` has found. Raises OSError."""
        return self._connected(self.addresses[0])

    def folder(self, path: Path) -> "RemoteFolder":
        """A folder on this disk."""
        return RemoteFolder(path, self)

    def _connected(self, address: str) -> Connection:
        peer = socket.create_connection((address, self.port), timeout=_CONNECTING_S)
        try:
            peer.settimeout(_ENTERING_S)
            connection = Connection(peer)
            connection.enter(self.token)
        except BaseException:
            peer.close()
            raise
        return connection


class RemoteFolder:
    """A folder on the disk of rank 0's host; it has the methods of folder.Folder.

    What fails on that disk is raised as the OSError that it is there. A connection that breaks is a CheckpointError.
    """

    def __init__(self, path: Path, disk: DiskOfRank0):
        self.path, self._disk = path, disk

    @contextlib.contextmanager
    def create(self, name: str) -> Iterator["_RemoteFile"]:
        with self._file(CREATE, name) as file:
            yield file
            file.ask(END)

    @contextlib.contextmanager
    def open(self, name: str) -> Iterator["_RemoteFile"]:
        with self._file(OPEN, name) as file:
            yield file

    @contextlib.contextmanager
    def _file(self, kind: bytes, name: str) -> Iterator["_RemoteFile"]:
        with _broken_connections(self.path / name):
            connection = self._disk.connect()
        with contextlib.closing(connection):
            file = _RemoteFile(self.path / name, connection)
            file.size = int(file.ask(kind, json.dumps([str(self.path), name]).encode()) or 0)
            yield file


class _RemoteFile(io.RawIOBase):
    """A file on rank 0's disk: written from its beginning to its end, or read.

    Attributes:
      size: in bytes, of a file that is read.
    """

    def __init__(self, path: Path, connection: Connection):
        self._path, self._connection, self._position, self.size = path, connection, 0, 0

    def ask(self, kind: bytes, content: bytes | memoryview = b"") -> bytearray:
        """Sends a message, and waits for its answer. Raises the OSError that rank 0 answers."""
        with _broken_connections(self._path):
            self._connection.send(kind, content)
            answer, said = self._connection.receive()
        activity.report_progress()
        if answer == ERROR:
            number, text = json.loads(said)
            raise OSError(number, f"{text} (on the disk of rank 0)")
        assert answer == DONE, answer
        return said

    def write(self, data: bytes | memoryview) -> int:
        with memoryview(data) as whole:
            for start in range(0, len(whole), PIECE_BYTES):
                self.ask(WRITE, whole[start : start + PIECE_BYTES])
            return len(whole)

    def readinto(self, memory: memoryview) -> int:
        filled = 0
        while filled < len(memory):
            piece = self.ask(READ, RANGE.pack(self._position, min(len(memory) - filled, PIECE_BYTES)))
            if not piece:
                break
            memory[filled : filled + len(piece)] = piece
            self._position, filled = self._position + len(piece), filled + len(piece)
        return filled

    def readall(self) -> bytes:
        return b"".join(iter(lambda: self.read(PIECE_BYTES), b""))

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._position = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self.size}[whence]
        return self._position

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True


@contextlib.contextmanager
def _broken_connections(path: Path) -> Iterator[None]:
    """Raises CheckpointError, with the file, for a connection to rank 0 that cannot be made or breaks."""
    try:
        yield
    except OSError as error:
        raise CheckpointError(
            f"{path}: lies on the disk of rank 0, and the connection to rank 0 broke: {error.strerror or error}."
        ) from error
