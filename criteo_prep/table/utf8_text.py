"""A stream of text as a file of Python, whose bytes are checked to be UTF-8 while they are read.

pyarrow's own check cannot say where a wrong byte stands, and fails in a row with a wrong number of fields.
"""

import io

from criteo_prep.preprocess.locations import Location
from criteo_prep.preprocess.parse.text_stream import TextStream
from criteo_prep.preprocess.parse.tsv import BadRowError


class Utf8File(io.RawIOBase):
    """A file that is read once, from the start.

    Args:
      stream: the text.
      path: the file, for messages.
    """

    def __init__(self, stream: TextStream, path: Location):
        self._stream, self._path = stream, path
        self._rest, self._num_lines = b"", 0  # the first bytes of a character that is cut; lines before it

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        """Fills the buffer unless the text ends. Raises BadRowError for bytes that are not UTF-8."""
        count = self._stream.readinto(buffer)
        data = memoryview(buffer).cast("B")[:count]
        if self._rest or not count:
            self._check_with_rest(bytes(data))
        else:
            end = count - _cut_bytes(bytes(data[-3:]))
            if not _is_utf8(data[:end]):
                self._refuse(bytes(data[:end]))
            self._count_lines(data[:end])
            self._rest = bytes(data[end:])
        return count

    def _check_with_rest(self, data: bytes) -> None:
        """Checks bytes that follow a cut character; no bytes are the end of the text."""
        text = self._rest + data
        end = len(text) - (_cut_bytes(text[-3:]) if data else 0)
        if not _is_utf8(memoryview(text)[:end]):
            self._refuse(text[:end])
        self._count_lines(memoryview(text)[:end])
        self._rest = text[end:]

    def _count_lines(self, data: memoryview) -> None:
        self._num_lines += bytes(data).count(b"\n")

    def _refuse(self, text: bytes) -> None:
        try:
            text.decode("utf-8")
        except UnicodeDecodeError as error:
            line = self._num_lines + text.count(b"\n", 0, error.start) + 1
            raise BadRowError(
                f"{self._path}: line {line}: is not text in UTF-8 (byte 0x{text[error.start]:02x}). Write the file in "
                "UTF-8, such as with iconv -t UTF-8."
            ) from None


def _is_utf8(data: memoryview) -> bool:
    import pyarrow

    if not len(data):
        return True
    ends = pyarrow.array([0, len(data)], pyarrow.int64()).buffers()[1]
    text = pyarrow.Array.from_buffers(pyarrow.large_string(), 1, [None, ends, pyarrow.py_buffer(data)])
    try:
        text.validate(full=True)
    except pyarrow.ArrowInvalid:
        return False
    return True


def _cut_bytes(tail: bytes) -> int:
    """How many of the last bytes of a text, 3 at most, are the beginning of a character that continues behind them."""
    for count in range(1, min(3, len(tail)) + 1):
        byte = tail[-count]
        if byte >= 0xC0:  # the first byte of a character
            length = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return count if length > count else 0
        if byte < 0x80:
            return 0
    return 0
