"""What a rank that does not see the folder of a checkpoint, and rank 0, whose disk has it, say to each other.

A connection is for one file. Rank 0 answers each message before the next one is sent:

    the rank                                           rank 0
                                                       NONCE, random bytes
    PROOF that it knows the job's token                DONE
    CREATE or OPEN, a JSON list: folder and file       DONE, with the size of a file that is read
    WRITE, the next piece of the file, any number      DONE
    END                                                DONE: the file is on the disk itself (fsync)
    READ, position and count                           DONE, with these bytes, or with fewer at the end of the file

In place of DONE comes ERROR, a JSON list with the number and the text of an error of the system; then rank 0 ends the
connection. A message is a letter, the length of its content, and the content.
"""

import hmac
import secrets
import socket
import struct

NONCE, PROOF, CREATE, OPEN, WRITE, END, READ, DONE, ERROR = b"N", b"P", b"C", b"O", b"W", b"E", b"R", b"D", b"X"
PIECE_BYTES = 1 << 20  # the most that a message carries; rank 0 has room for one of each rank that writes
RANGE = struct.Struct("<QI")  # position and count in READ
_HEAD = struct.Struct("<cI")
_NONCE_BYTES = 32
_MOST_OF_STRANGER = 64  # bytes of a message from a peer that has not shown that it belongs to the job
_SILENCE_S = 120  # a peer whose machine does not answer for so long is gone


class Connection:
    """One end of a connection.

    Args:
      peer: a connected TCP socket.

    Raises:
      OSError: from all methods, if the connection is broken or ended, or the peer sends something else.
    """

    def __init__(self, peer: socket.socket):
        self._socket, self._most = peer, _MOST_OF_STRANGER
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # The system asks an idle peer every 10 s; a program that is busy with its disk answers all the same.
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 10)
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10)
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 1000 * _SILENCE_S)

    def admit(self, token: bytes) -> None:
        """On rank 0: raises PermissionError unless the peer knows the token."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        self.send(NONCE, nonce)
        if not hmac.compare_digest(self.expect(PROOF), _proof(token, nonce)):
            raise PermissionError("the peer does not belong to this job")
        self._become_known()
        self.send(DONE)

    def enter(self, token: bytes) -> None:
        """On another rank: shows rank 0 that this process belongs to the job."""
        self.send(PROOF, _proof(token, self.expect(NONCE)))
        self.expect(DONE)
        self._become_known()

    def send(self, kind: bytes, content: bytes | memoryview = b"") -> None:
        """Sends a message."""
        self._socket.sendall(_HEAD.pack(kind, len(content)))
        if content:
            self._socket.sendall(content)

    def receive(self) -> tuple[bytes, bytearray]:
        """Waits for a message: its kind and its content."""
        kind, size = _HEAD.unpack(self._received(_HEAD.size))
        if size > self._most:
            raise ConnectionError("the peer speaks another language")
        return kind, self._received(size)

    def expect(self, kind: bytes) -> bytearray:
        """Waits for a message of this kind: its content."""
        found, content = self.receive()
        if found != kind:
            raise ConnectionError("the peer speaks another language")
        return content

    def close(self) -> None:
        self._socket.close()

    def _become_known(self) -> None:
        self._socket.settimeout(None)
        self._most = PIECE_BYTES

    def _received(self, size: int) -> bytearray:
        content = bytearray(size)
        missing = memoryview(content)
        while missing:
            count = self._socket.recv_into(missing)
            if not count:
                raise ConnectionError("the peer has ended it")
            missing = missing[count:]
        return content


def _proof(token: bytes, nonce: bytes) -> bytes:
    return hmac.digest(token, nonce, "sha256")
