"""Rank 0 creates and reads files of checkpoints on its own disk for the ranks that do not see it. No TensorFlow."""

import contextlib
import errno
import json
import os
import secrets
import socketserver
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

from dlrm_tf2.checkpoint.files import CheckpointError
from dlrm_tf2.checkpoint.folder import LocalFolder
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
from dlrm_tf2.checkpoint.remote_folder import DiskOfRank0
from dlrm_tf2.runtime import activity, addresses
from dlrm_tf2.runtime.agreement import on_all_ranks, on_rank_0

_CLOSES_WITHIN_S = 0.1
_STRANGER_S = 20  # a peer has so long to show that it belongs to the job
# A file goes to the disk in parts: one fsync of a large file, with the files of all other ranks waiting for the same
# disk, may take so long that the watchdog sees no progress.
_SYNC_BYTES = 256 << 20


@contextlib.contextmanager
def gathered(
    comm, far: Iterable[int], *, writes: Iterable[Path] = (), reads: Iterable[Path] = ()
) -> Iterator[DiskOfRank0 | None]:
    """A context in which some ranks use folders on the disk of rank 0. All ranks enter and leave it.

    Args:
      comm: the ranks (dlrm_tf2.runtime.comm).
      far: the ranks that do not see this disk, the same on all ranks; none: nothing happens.
      writes: folders on rank 0's disk in which they may create files, on rank 0.
      reads: folders whose files they may read, likewise.

    Yields:
      On the ranks `far`, the disk of rank 0; None on the others, which see it.

    Raises:
      CheckpointError: on every rank: a rank does not reach rank 0.
    """
    far, servers = tuple(far), []
    if not far:
        yield None
        return

    def serve() -> DiskOfRank0:
        server = _Server(writes=frozenset(writes), reads=frozenset(reads))
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=[_CLOSES_WITHIN_S], name="folders", daemon=True).start()
        reached_at = (*addresses.of_this_machine(), "127.0.0.1")  # the last one: from a container of the same host
        return DiskOfRank0(reached_at, server.server_address[1], token=server.token)

    try:
        disk = on_rank_0(comm, "folders.serve", work=serve, error=CheckpointError)
        look = disk.reach if comm.rank in far else lambda: None
        reached = on_all_ranks(comm, "folders.reach", work=look, error=CheckpointError)
        yield reached[comm.rank]
    finally:
        for server in servers:
            server.shutdown()
            server.server_close()


class _Server(socketserver.ThreadingTCPServer):
    """A thread for each connection. `writes` and `reads`: as in gathered."""

    daemon_threads, block_on_close, request_queue_size = True, False, 1024

    def __init__(self, *, writes: frozenset[Path], reads: frozenset[Path]):
        super().__init__(("", 0), _Handler)
        self.token, self._writes, self._reads = secrets.token_bytes(32), writes, reads

    def folder_of(self, kind: bytes, folder: str, *, name: str) -> LocalFolder:
        """The folder of a file that a rank may create or open. Raises PermissionError for any other file."""
        allowed, file = self._writes if kind == CREATE else self._reads, PurePosixPath(name)
        if Path(folder) not in allowed or file.is_absolute() or ".." in file.parts or not file.parts:
            raise PermissionError(errno.EPERM, "is not a file of a checkpoint that this job writes or reads")
        return LocalFolder(Path(folder))

    def handle_error(self, *_: object) -> None:
        """A broken connection is noticed at its other end, by a rank or by nobody."""


class _Handler(socketserver.BaseRequestHandler):
    """One connection."""

    server: _Server

    def handle(self) -> None:
        self.request.settimeout(_STRANGER_S)
        connection = Connection(self.request)
        connection.admit(self.server.token)
        kind, content = connection.receive()
        try:
            folder, name = json.loads(content)
            serve = {CREATE: _receive_file, OPEN: _send_file}[kind]
            serve(connection, self.server.folder_of(kind, folder, name=name), name)
        except OSError as error:  # of the disk; a connection that is broken fails again here
            connection.send(ERROR, json.dumps([error.errno, error.strerror or str(error)]).encode())


def _receive_file(connection: Connection, folder: LocalFolder, name: str) -> None:
    with folder.create(name) as file:
        connection.send(DONE)
        unsynced = 0
        while (message := connection.receive())[0] == WRITE:
            file.write(message[1])
            unsynced += len(message[1])
            if unsynced >= _SYNC_BYTES:
                file.flush()
                os.fdatasync(file.fileno())
                unsynced = 0
            activity.report_progress()
            connection.send(DONE)
        if message[0] != END:
            raise ConnectionError("the peer speaks another language")
    connection.send(DONE)


def _send_file(connection: Connection, folder: LocalFolder, name: str) -> None:
    with folder.open(name) as file:
        connection.send(DONE, str(os.fstat(file.fileno()).st_size).encode())
        while True:
            position, count = RANGE.unpack(connection.expect(READ))
            connection.send(DONE, os.pread(file.fileno(), min(count, PIECE_BYTES), position))
