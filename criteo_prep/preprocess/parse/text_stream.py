"""The text of a file that is plain, gzip or zstd, as a stream; archives and other formats are refused by their names.

Memory is bounded for any input: a compressed file may be a few hundred bytes that expand to gigabytes.
"""

import zlib
from typing import BinaryIO, Protocol

from criteo_prep.preprocess.locations import Location, location_of, open_location, size_of

_MAGIC = {".gz": b"\x1f\x8b", ".zst": b"\x28\xb5\x2f\xfd"}
_NAME = {".gz": "gzip", ".zst": "zstd"}
# Compressed bytes read at a time. A zstd block of 4 bytes may expand to 128 KiB, so 2 KiB expand to 64 MiB at most;
# gzip is decompressed only as far as there is room.
_READ_BYTES = {".gz": 128 << 10, ".zst": 2 << 10}


class InputError(ValueError):
    """An input file is missing, or cannot be read in its form."""


class TruncatedError(InputError):
    """A compressed file ends early. The stream has returned all text before the end.

    Attributes:
      lost_bytes: bytes of text behind the last whole line, once the text was cut into lines.
    """

    lost_bytes = 0


# Formats that are not read: (offset, bytes there, name, what to do).
_OTHER_FORMATS = (
    (257, b"ustar", "a tar archive", "Unpack it (tar -xf) and name the files in it."),
    (0, b"PK\x03\x04", "a zip archive", "Unpack it (unzip) and name the files in it."),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive", "Unpack it (7z x) and name the files in it."),
    (0, b"BZh", "a bzip2 file", "Decompress it first (bunzip2 -k)."),
    (0, b"\xfd7zXZ\x00", "an xz file", "Decompress it first (xz -dk)."),
    (0, b"\x04\x22\x4d\x18", "an lz4 file", "Decompress it first (lz4 -d)."),
    (0, b"\x1f\x9d", "a .Z file", "Decompress it first (gzip -dk)."),
    (0, b"ARROW1", "an Arrow file", "Write its rows as parquet."),
    (0, b"Obj\x01", "an Avro file", "Write its rows as parquet."),
    (0, b"ORC", "an ORC file", "Write its rows as parquet."),
)
FORMAT_BYTES = 257 + 5


def check_format(start: bytes, path: str | Location) -> None:
    """Raises InputError where a file, or the text in it, begins like a format that is not read.

    Args:
      start: the first FORMAT_BYTES bytes.
      path: the file, for the message.
    """
    for offset, magic, name, advice in _OTHER_FORMATS:
        if start[offset : offset + len(magic)] == magic:
            raise InputError(f"{path}: is {name}; expected text, plain, gzip or zstd, or parquet. {advice}")


def compression(path: str | Location) -> str | None:
    """The compression of a file by its first bytes: ".gz", ".zst", or None for plain text.

    Raises:
      InputError: the file is an archive, or it has another format than its name promises.
    """
    path = location_of(path)
    with open_location(path) as file:
        start = file.read(FORMAT_BYTES)
    for ending, magic in _MAGIC.items():
        if start.startswith(magic):
            return ending
    check_format(start, path)
    ending = path.suffix
    if ending in _MAGIC:
        raise InputError(f"{path}: is named {ending} but is not a {_NAME[ending]} file. Fetch it again, or rename it.")
    return None


class TextStream(Protocol):
    """Text that is read once, from the start.

    `readinto` fills the buffer unless the text ends. It raises TruncatedError in the call after the last bytes of a
    truncated file, and InputError for a corrupt one.
    """

    def readinto(self, buffer) -> int: ...


def open_text(stored: BinaryIO, path: str | Location) -> TextStream:
    """The text in an open file, whose position is its start."""
    kind = compression(path)
    return stored if kind is None else _Decompressed(stored, path, kind)


class _Decompressed:
    """The text of a compressed file: of all gzip members or zstd frames, one after the other."""

    def __init__(self, stored: BinaryIO, path: str | Location, kind: str):
        self._stored, self._path, self._kind = stored, path, kind
        self._packed = b""  # read from the file, not yet decompressed
        self._part = None  # decompresses the member or frame that has begun
        self._text = memoryview(b"")  # decompressed, not yet returned
        self._errors = _errors(kind)

    def readinto(self, buffer) -> int:
        buffer, done = memoryview(buffer), 0
        while done < len(buffer):
            try:
                if not self._text and not self._decompress(len(buffer) - done):
                    break
            except TruncatedError:
                if done:  # the next call raises again
                    break
                raise
            except self._errors as error:
                raise InputError(
                    f"{self._path}: the {_NAME[self._kind]} stream is corrupt ({error}). Fetch the file again."
                ) from None
            count = min(len(self._text), len(buffer) - done)
            buffer[done : done + count] = self._text[:count]
            self._text, done = self._text[count:], done + count
        return done

    def _decompress(self, max_bytes: int) -> bool:
        """Sets the next text. Returns False at the end of the file."""
        while not self._text:
            if self._part is None and not self._begin_part():
                return False
            if self._kind == ".gz":
                text = self._part.decompress(self._packed, max_bytes)
                self._packed = self._part.unconsumed_tail
            else:
                text, self._packed = self._part.decompress(self._packed), b""
            self._text = memoryview(text)
            if self._part.eof:
                self._packed, self._part = self._part.unused_data, None
            elif not text and not self._packed and not self._read_more():
                raise TruncatedError(
                    f"{self._path}: the {_NAME[self._kind]} stream ends early; the file is truncated. Fetch it again, "
                    "or add --on_truncated keep to use the whole rows before its end."
                )
        return True

    def _begin_part(self) -> bool:
        """Begins the next member or frame. Returns False at the end of the file."""
        first = self._stored.tell() == 0
        while len(self._packed) < 4 and self._read_more():
            pass
        if self._kind == ".gz" and not first:
            while self._packed and not self._packed.strip(b"\0"):  # tapes and object stores pad with zeros
                self._packed = b""
                self._read_more()
            self._packed = self._packed.lstrip(b"\0")
        if not self._packed:
            return False
        if not first and not self._packed.startswith(_MAGIC[self._kind]) and not _is_skippable(self._packed):
            place = self._stored.tell() - len(self._packed)
            rest = size_of(location_of(self._path)) - place
            name = _NAME[self._kind]
            raise InputError(
                f"{self._path}: the last {rest} bytes, behind the {name} stream, are not {name} (they begin with "
                f"{self._packed[:8]!r}); the text before them is whole. Cut them off: head -c {place} {self._path} > "
                "NEW_FILE"
            )
        self._part = _decompressor(self._kind)
        return True

    def _read_more(self) -> bool:
        data = self._stored.read(_READ_BYTES[self._kind])
        self._packed += data
        return bool(data)


def _is_skippable(packed: bytes) -> bool:
    """Whether a zstd frame holds something else than text, which decompressors leave out."""
    return 0x50 <= packed[0] <= 0x5F and packed[1:4] == b"\x2a\x4d\x18"


def _decompressor(kind: str):
    """An object that decompresses one member or frame. Intel's library is used for gzip where it is installed."""
    if kind == ".zst":
        import zstandard

        return zstandard.ZstdDecompressor().decompressobj()
    try:
        from isal import isal_zlib
    except ImportError:
        return zlib.decompressobj(zlib.MAX_WBITS | 16)
    return isal_zlib.decompressobj(zlib.MAX_WBITS | 16)


def _errors(kind: str) -> tuple[type[Exception], ...]:
    """The errors that mean a corrupt stream."""
    if kind == ".zst":
        import zstandard

        return (zstandard.ZstdError,)
    try:
        from isal import isal_zlib
    except ImportError:
        return (zlib.error,)
    return (zlib.error, isal_zlib.error)
