"""A text file, plain, gzip or zstd, as blocks of whole lines. Memory is one block, for lines of any length."""

import contextlib
import gzip
import itertools
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

BLOCK_BYTES = 4 << 20
# A good row has fewer than 500 bytes; a line of more than this is bad, so its remaining bytes need not be kept.
MAX_LINE_BYTES = 64 << 10
_MAGIC = {".gz": b"\x1f\x8b", ".zst": b"\x28\xb5\x2f\xfd"}
_NAME = {".gz": "gzip", ".zst": "zstd"}
_BUFFER_BYTES = 128 << 10


class InputError(ValueError):
    """An input file is missing, or cannot be read in its form."""


def text_blocks(
    path: str | Path,
    block_bytes: int = BLOCK_BYTES,
    *,
    on_read: Callable[[int], None] | None = None,
    skip_bytes: int = 0,
    num_buffers: int | None = None,
) -> Iterator[tuple[np.ndarray, int]]:
    """Yields the file's lines in order, many at a time. Every block ends in a newline, the last one too.

    A line of more than MAX_LINE_BYTES (newline not counted) is too long. At least its first MAX_LINE_BYTES + 1 bytes
    are yielded, so that the parser sees its length; its remaining bytes may be left out.

    Args:
      path: a plain, gzip or zstd file; its first bytes say which.
      block_bytes: bytes read at a time, after decompression.
      on_read: called with the number of stored bytes that were read since the last call.
      skip_bytes: bytes of text, after decompression, before the first block.
      num_buffers: number of blocks that stay unchanged: a new block overwrites an older one, which saves the time to
        allocate memory. None: all blocks stay unchanged.

    Yields:
      (block, uint8 [bytes]; position of its end in the text, which a later call may give as skip_bytes).

    Raises:
      InputError: the compressed stream is truncated or corrupt, or a file named .gz or .zst is not compressed.
      OSError: the file cannot be read.
    """
    with open(path, "rb") as stored, contextlib.ExitStack() as stack:
        stored_position = 0
        text_end = skip_bytes
        rest = np.empty(0, np.uint8)
        buffers = (np.empty(MAX_LINE_BYTES + 1 + block_bytes, np.uint8) for _ in itertools.count())
        if num_buffers:
            buffers = itertools.cycle(itertools.islice(buffers, num_buffers))
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
                    on_read(stored.tell() - stored_position)
                    stored_position = stored.tell()
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
    """The compression of a file by its first bytes: ".gz", ".zst", or None for plain text.

    Raises:
      InputError: the name of the file promises a compression that the file does not have.
    """
    with open(path, "rb") as file:
        start = file.read(4)
    for ending, magic in _MAGIC.items():
        if start.startswith(magic):
            return ending
    if Path(path).suffix in _MAGIC:
        ending = Path(path).suffix
        raise InputError(f"{path}: is named {ending} but is not a {_NAME[ending]} file. Fetch it again, or rename it.")
    return None


def _kind(path: str | Path) -> str:
    return _NAME.get(compression(path) or "", "plain")


def _last_line_end(block: np.ndarray) -> int:
    """The position after the last newline in uint8 [bytes]; 0 without a newline."""
    stop = len(block)
    while stop:
        start = max(0, stop - MAX_LINE_BYTES)
        newline = block[start:stop].tobytes().rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        stop = start
    return 0


def _skip(stream: BinaryIO, num_bytes: int, path: str | Path) -> None:
    """Moves the stream to a position in the text."""
    if num_bytes and stream.seekable() and not isinstance(stream, _DecompressedStream):
        stream.seek(num_bytes)
        return
    buffer = memoryview(bytearray(min(num_bytes, BLOCK_BYTES)))
    while num_bytes:
        count = stream.readinto(buffer[: min(num_bytes, len(buffer))])
        if not count:
            raise InputError(
                f"{path}: is shorter than when an earlier run read a part of it. Start again with --overwrite."
            )
        num_bytes -= count


class _DecompressedStream:
    """A decompressed stream whose readinto fills the buffer, unless the stream ends."""

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

    def __enter__(self) -> "_DecompressedStream":
        return self

    def __exit__(self, exception_type, exception, traceback) -> None:
        self._stream.close()


class _ZstdFrames:
    """All frames of a zstd file, one after the other. A truncated last frame raises EOFError."""

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
        """Does nothing: the caller closes the file."""


def _decompressed(stored: BinaryIO, path: Path):
    """The stream of text in `stored`."""
    kind = compression(path)
    if kind == ".gz":
        return _DecompressedStream(_gzip(stored))
    if kind == ".zst":
        return _DecompressedStream(_ZstdFrames(stored))
    return contextlib.nullcontext(stored)


def _gzip(stored: BinaryIO):
    """The text of a gzip file, by Intel's library where it is installed, because it is several times faster."""
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
