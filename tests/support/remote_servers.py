"""Servers on this machine for tests of remote files: S3 by moto, web servers, and a proxy that makes faults."""

import collections
import contextlib
import functools
import http.server
import logging
import re
import socket
import threading
import time
from pathlib import Path

SECRET_KEY = "wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLEKEY"


@contextlib.contextmanager
def s3_server():
    """Yields the (host, port) of an S3 server with no bucket."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        yield server.get_host_and_port()
    finally:
        server.stop()


class Bucket:
    """A bucket of an S3 server, filled by a client of its own."""

    def __init__(self, address, name="criteo-logs"):
        from pyarrow.fs import S3FileSystem

        self.name, self.url = name, f"s3://{name}"
        host, port = address
        self._store = S3FileSystem(access_key="test", secret_key="test", region="us-east-1", allow_bucket_creation=True,
                                   endpoint_override=f"http://{host}:{port}")  # fmt: skip
        self._store.create_dir(name)

    def put(self, path, key=None):
        """Uploads a file, or bytes. Returns its URL."""
        data = path if isinstance(path, bytes) else Path(path).read_bytes()
        with self._store.open_output_stream(f"{self.name}/{key or path.name}", compression=None) as file:
            file.write(data)
        return f"{self.url}/{key or path.name}"

    def delete(self, key):
        self._store.delete_file(f"{self.name}/{key}")


def serve(handler):
    """Starts a web server in a thread; returns it."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


class RangeHandler(http.server.SimpleHTTPRequestHandler):
    """Files of a folder, with ranges and ETags. `signature` must be the query, if it is given."""

    signature = None
    requests: list = []  # noqa: RUF012 - each server has a class of its own

    def do_GET(self):
        path, _, query = self.path.partition("?")
        self.requests.append((path, self.headers.get("Range")))
        if self.signature is not None and query != self.signature:
            return self._answer(403, b"SignatureDoesNotMatch")
        file = Path(self.directory) / path.lstrip("/")
        if not file.is_file():
            return self._answer(404, b"")
        data, match = file.read_bytes(), re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        first, last = int(match[1]), min(int(match[2]), len(data) - 1)
        if first >= len(data):
            return self._answer(416, b"", {"Content-Range": f"bytes */{len(data)}"})
        headers = {"Content-Range": f"bytes {first}-{last}/{len(data)}", "ETag": f'"{hash(data):x}"'}
        return self._answer(206, data[first : last + 1], headers)

    def _answer(self, status, body, headers=None):
        self.send_response(status)
        for key, value in {"Content-Length": len(body), **(headers or {})}.items():
            self.send_header(key, str(value))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass


class PlainHandler(http.server.SimpleHTTPRequestHandler):
    """Python's own web server: it answers every request with the whole file."""

    def log_message(self, *arguments):
        pass


@contextlib.contextmanager
def web_server(folder, handler=RangeHandler, signature=None):
    """Yields (the server's address as text, the list of its requests)."""
    kind = type("Handler", (handler,), {"signature": signature, "requests": []})
    server = serve(functools.partial(kind, directory=str(folder)))
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", kind.requests
    finally:
        server.shutdown()
        server.server_close()


class FaultyProxy:
    """Connections to a server, with faults. A context manager.

    Args:
      target: (host, port) of the server.
      faults: one after the other: ("drop", n): the next connection that has n bytes of answers is cut there;
        ("stall", n): it is silent from there on; ("busy",): the next connection is answered with status 503; None: the
        next connection has no fault.
    """

    def __init__(self, target, faults=()):
        self._target, self._faults = target, collections.deque(faults)
        self.num_faults = 0
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self._open: list[socket.socket] = [self._listening]

    def __enter__(self):
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *error):
        self.lose_everything()

    def lose_everything(self):
        """Cuts all connections, and takes no new one."""
        for each in self._open:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client):
        self._open.append(client)
        fault = self._faults[0] if self._faults else None
        has_fault = fault is not None
        if self._faults and fault in (None, ("busy",)):
            self._faults.popleft()
        with contextlib.suppress(OSError):
            if fault == ("busy",):
                self._answer_busy(client)
                return
            server = socket.create_connection(self._target)
            self._open.append(server)
            threading.Thread(target=self._copy, args=(client, server), daemon=True).start()
            self._copy(server, client, may_fail=has_fault)

    def _answer_busy(self, client):
        body = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
        head = f"HTTP/1.1 503 Slow Down\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
        if client.recv(1 << 16):
            self.num_faults += 1
            client.sendall(head.encode() + body)
        client.close()

    def _copy(self, source, target, may_fail=False):
        done = 0
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                fault = self._faults[0] if may_fail and self._faults else None
                kind, at = fault if fault and len(fault) == 2 else (None, 0)
                if kind and done <= at <= done + len(data):
                    self._faults.popleft()
                    self.num_faults += 1
                    target.sendall(data[: at - done])
                    if kind == "stall":
                        time.sleep(60)
                    break
                done += len(data)
                target.sendall(data)
        for each in (source, target):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
