"""A remote file as a binary file of Python. Threads fetch its next ranges while the last one is in work.

A file that is only looked into costs one short range: the ranges become longer while a reader continues.
"""

import io
from collections import OrderedDict, deque
from concurrent.futures import Future, ThreadPoolExecutor

from criteo_prep.preprocess.remote.fetch import AHEAD, Fetcher

# The first range, and the longest. With the range in work and AHEAD ranges on their way, a file takes 40 MiB at most.
FIRST_BYTES, RANGE_BYTES = 128 << 10, 8 << 20
# Of SeveralPlaces: a range is fetched ahead from this length on, up to this length; and how many ranges are kept.
_SHORTEST_AHEAD, _LONGEST_AHEAD, _MOST_RANGES = 128 << 10, 1 << 20, 64


class _Remote(io.RawIOBase):
    """A file with a position that is read by ranges."""

    def __init__(self, fetcher: Fetcher):
        self._fetcher, self._position = fetcher, 0
        self._pool = ThreadPoolExecutor(AHEAD, thread_name_prefix="read-ahead")

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._fetcher.size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def size(self) -> int:
        """Bytes of the file."""
        return self._fetcher.size

    def close(self) -> None:
        if not self.closed:
            self._fetcher.close()
            self._pool.shutdown(wait=False, cancel_futures=True)
        super().close()


class InOrder(_Remote):
    """A file that is read from a position on, in order, such as text."""

    def __init__(self, fetcher: Fetcher):
        super().__init__(fetcher)
        self._start, self._data = 0, memoryview(b"")  # the range in work
        self._pending: deque[tuple[int, Future]] = deque()
        self._restart(0)

    def readinto(self, buffer) -> int:
        """Fills the beginning of the buffer. Returns the number of bytes; 0 at the end of the file.

        Raises:
          RemoteError, ChangedError: see Fetcher.fetch.
        """
        buffer = memoryview(buffer).cast("B")
        if self._position >= self._fetcher.size or not len(buffer):
            return 0
        if not self._start <= self._position < self._start + len(self._data):
            self._next_range()
        data = self._data[self._position - self._start :][: len(buffer)]
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def _next_range(self) -> None:
        """Takes the range that begins at the position."""
        if self._position != (self._pending[0][0] if self._pending else self._asked):
            self._restart(self._position)
        self._data = memoryview(b"")
        self._ask()
        self._start, coming = self._pending.popleft()
        self._data = memoryview(coming.result())
        self._depth = min(AHEAD, self._depth + 1)

    def _ask(self) -> None:
        while len(self._pending) < self._depth and self._asked < self._fetcher.size:
            count = min(self._bytes, self._fetcher.size - self._asked)
            self._pending.append((self._asked, self._pool.submit(self._fetcher.fetch, self._asked, count)))
            self._asked, self._bytes = self._asked + count, min(RANGE_BYTES, 4 * self._bytes)

    def _restart(self, position: int) -> None:
        for _, coming in self._pending:
            coming.cancel()
        self._pending.clear()
        self._asked, self._depth, self._bytes = position, 1, FIRST_BYTES


class SeveralPlaces(_Remote):
    """A file that is read at several places in turn, such as the columns of parquet.

    Behind each range that was read, the next range of the same length is fetched.
    """

    def __init__(self, fetcher: Fetcher):
        super().__init__(fetcher)
        self._ahead: OrderedDict[int, Future] = OrderedDict()  # by the first byte

    def read(self, count: int = -1) -> bytes:
        """The next `count` bytes, or all bytes up to the end of the file. Raises as InOrder.readinto."""
        start = min(self._position, self._fetcher.size)
        stop = self._fetcher.size if count is None or count < 0 else min(self._fetcher.size, start + count)
        coming = self._ahead.pop(start, None)
        self._ask(stop, stop - start)
        data = coming.result()[: stop - start] if coming else b""
        if len(data) < stop - start:
            data += self._fetcher.fetch(start + len(data), stop - start - len(data))
        self._position = max(self._position, stop)
        return bytes(data)

    def readinto(self, buffer) -> int:
        data = self.read(len(memoryview(buffer).cast("B")))
        memoryview(buffer).cast("B")[: len(data)] = data
        return len(data)

    def _ask(self, start: int, count: int) -> None:
        """Begins to fetch a range that may be wanted next."""
        count = min(count, _LONGEST_AHEAD, self._fetcher.size - start)
        if count < _SHORTEST_AHEAD or start in self._ahead:
            return
        self._ahead[start] = self._pool.submit(self._fetcher.fetch, start, count)
        if len(self._ahead) > _MOST_RANGES:
            self._ahead.popitem(last=False)[1].cancel()
