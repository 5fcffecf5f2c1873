"""A text file, plain, gzip or zstd, as blocks of whole lines. Memory is one block, whatever the lines are like."""

import contextlib
import gzip
import itertools
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

BLOCK_BYTES = 4 << 20
# No valid row has 500 bytes; more than this need not be kept to know that a line is bad.
MAX_LINE_BYTES = 64 << 10
_MAGIC = {".gz": b"\x1f\x8b", ".zst": b"\x28\xb5\x2f\xfd"}
_NAME = {".gz": "gzip", ".zst": "zstd"}
_BUFFER_BYTES = 128 << 10


class InputError(ValueError):
    """An input file cannot be read as what it should be."""


def text_blocks(
    path: str | Path,
    block_bytes: int = BLOCK_BYTES,
    *,
    on_read: Callable[[int], None] | None = None,
    skip_bytes: int = 0,
    at_a_time: int | None = None,
) -> Iterator[tuple[np.ndarray, int]]:
    """Yields the file's lines in order, many at a time. Every block ends in a newline, the last one too.

    Of a line of more than MAX_LINE_BYTES (newline not counted) at least MAX_LINE_BYTES + 1 bytes are yielded, so that
    it is seen to be too long; the rest of it may be left out.

    Args:
      path: a plain, gzip or zstd file; its first bytes tell which.
      block_bytes: bytes read at a time, after decompression.
      on_read: called with the bytes of the file, as stored, that were read since the last call.
      skip_bytes: this much text, after decompression, is passed over; the first block begins behind it.
      at_a_time: this many blocks stay as they are, the last ones; older ones are overwritten, which saves the time that
        new memory takes. None: all stay.

    Yields:
      (uint8 [bytes]; where it ends in the text, which is a good place to go on from).

    Raises:
      InputError: the compressed stream is truncated or corrupt, or a file named .gz or .zst holds none.
      OSError: the file cannot be read.
    """
    with open(path, "rb") as stored, contextlib.ExitStack() as stack:
        position = 0  # in the stored file
        text_end = skip_bytes
        rest = np.empty(0, np.uint8)
        buffers = (np.empty(MAX_LINE_BYTES + 1 + block_bytes, np.uint8) for _ in itertools.count())
        if at_a_time:
            buffers = itertools.cycle(itertools.islice(buffers, at_a_time))
        try:
            stream = stack.enter_context(_decompressed(stored, Path(path)))
            _skip(stream, skip_bytes, path)
            buffer = next(buffers)
            while True:
                block = buffer[: len(rest) + block_bytes]
                block[: len(rest)] = rest
                count = stream.readinto(memoryview(block)[len(rest) :])
                if not count:
                    break
                block = block[: len(rest) + count]
                text_end += count
                end = _last_line_end(block)
                if on_read:
                    on_read(stored.tell() - position)
                    position = stored.tell()
                rest = block[end:][: MAX_LINE_BYTES + 1].copy()
                if end:
                    yield block[:end], text_end - (len(block) - end)
                    buffer = next(buffers)
        except EOFError:
            raise InputError(
                f"{path}: the {_kind(path)} stream ends early; the file is truncated. Fetch it again."
            ) from None
        except (gzip.BadGzipFile, zlib.error, *_decompression_errors()) as error:
            raise InputError(f"{path}: the {_kind(path)} stream is corrupt ({error}). Fetch the file again.") from None
        except OSError as error:
            error.filename = error.filename or str(path)
            raise
        if len(rest):
            yield np.append(rest, np.uint8(ord("\n"))), text_end


def compression(path: str | Path) -> str | None:
    """ ".gz" or ".zst" by the file's first bytes, None for plain text. Raises InputError where its name says more."""
    with open(path, "rb") as file:
        start = file.read(4)
    for ending, magic in _MAGIC.items():
        if start.startswith(magic):
            return ending
    if Path(path).suffix in _MAGIC:
        ending = Path(path).suffix
        raise InputError(
            f"{path}: is named {ending} but holds no {_NAME[ending]} stream. Fetch it again, or rename it."
        )
    return None


def _kind(path: str | Path) -> str:
    return _NAME.get(compression(path) or "", "plain")


def _last_line_end(block: np.ndarray) -> int:
    """The position after the last newline in uint8 [bytes]; 0 where there is none."""
    stop = len(block)
    while stop:
        start = max(0, stop - MAX_LINE_BYTES)
        place = block[start:stop].tobytes().rfind(b"\n")
        if place >= 0:
            return start + place + 1
        stop = start
    return 0


def _skip(stream: BinaryIO, num_bytes: int, path: str | Path) -> None:
    if num_bytes and stream.seekable() and not isinstance(stream, _Streamed):
        stream.seek(num_bytes)
        return
    buffer = memoryview(bytearray(min(num_bytes, BLOCK_BYTES)))
    while num_bytes:
        count = stream.readinto(buffer[: min(num_bytes, len(buffer))])
        if not count:
            raise InputError(
                f"{path}: is shorter than it was when a part of it was read. Start again with --overwrite."
            )
        num_bytes -= count


class _Streamed:
    """A decompressed stream: readinto alone, which reads until the buffer is full or all is read."""

    def __init__(self, stream):
        self._stream = stream

    def readinto(self, buffer) -> int:
        buffer, done = memoryview(buffer), 0
        while done < len(buffer):
            count = self._stream.readinto(buffer[done:])
            if not count:
                break
            done += count
        return done

    def seekable(self) -> bool:
        return False

    def __enter__(self) -> "_Streamed":
        return self

    def __exit__(self, exception_type, exception, traceback) -> None:
        self._stream.close()


class _WholeZstd:
    """All frames of a zstd file one after the other; a last frame that is cut short is an EOFError, not an end."""

    def __init__(self, stored: BinaryIO):
        import zstandard

        self._stored, self._make = stored, zstandard.ZstdDecompressor().decompressobj
        self._frame, self._text, self._begun = self._make(), memoryview(b""), False

    def readinto(self, buffer) -> int:
        while not self._text:
            packed = self._frame.unused_data if self._frame.eof else b""
            if self._frame.eof:
                self._frame, self._begun = self._make(), False
            packed = packed or self._stored.read(_BUFFER_BYTES)
            if not packed:
                if self._begun:
                    raise EOFError
                return 0
            self._begun = True
            self._text = memoryview(self._frame.decompress(packed))
        count = min(len(buffer), len(self._text))
        buffer[:count] = self._text[:count]
        self._text = self._text[count:]
        return count

    def close(self) -> None:
        """The file belongs to the caller."""


def _decompressed(stored: BinaryIO, path: Path):
    """The stream of text in `stored`."""
    kind = compression(path)
    if kind == ".gz":
        return _Streamed(_gzip(stored))
    if kind == ".zst":
        return _Streamed(_WholeZstd(stored))
    return contextlib.nullcontext(stored)


def _gzip(stored: BinaryIO):
    """The text of a gzip file, by Intel's library where it is installed, which is several times as fast."""
    try:
        from isal import igzip
    except ImportError:
        return gzip.GzipFile(fileobj=stored, mode="rb")
    return igzip.IGzipFile(fileobj=stored, mode="rb")


def _decompression_errors() -> tuple[type[Exception], ...]:
    """The errors of the optional libraries that mean a corrupt stream."""
    errors = []
    with contextlib.suppress(ImportError):
        from isal import isal_zlib

        errors.append(isal_zlib.error)
    with contextlib.suppress(ImportError):
        import zstandard

        errors.append(zstandard.ZstdError)
    return tuple(errors)
