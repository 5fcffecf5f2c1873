"""A text file, plain or gzip, as blocks of whole lines. Memory is one block, whatever the lines are like."""

import gzip
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

BLOCK_BYTES = 4 << 20
# No valid row has 500 bytes; more than this need not be kept to know that a line is bad.
MAX_LINE_BYTES = 64 << 10
_GZIP_MAGIC = b"\x1f\x8b"


class InputError(ValueError):
    """An input file cannot be read as what it should be."""


def text_blocks(
    path: str | Path, block_bytes: int = BLOCK_BYTES, on_read: Callable[[int], None] | None = None
) -> Iterator[bytes]:
    """Yields the file's lines in order, many at a time. Every block ends in a newline, the last one too.

    Of a line of more than MAX_LINE_BYTES (newline not counted) at least MAX_LINE_BYTES + 1 bytes are yielded, so that
    it is seen to be too long; the rest of it may be left out.

    Args:
      path: a plain or gzip file; its first bytes tell which.
      block_bytes: bytes read at a time, after decompression.
      on_read: called with the bytes of the file, as stored, that were read since the last call.

    Raises:
      InputError: the gzip stream is truncated or corrupt, or a file named .gz holds none.
      OSError: the file cannot be read.
    """
    with open(path, "rb") as stored:
        position = 0
        rest = b""
        try:
            stream = _decompressed(stored, Path(path))
            while text := stream.read(block_bytes):
                end = text.rfind(b"\n") + 1
                if end:
                    yield rest + text[:end]
                    rest = b""
                rest = (rest + text[end:])[: MAX_LINE_BYTES + 1]
                if on_read:
                    on_read(stored.tell() - position)
                    position = stored.tell()
        except EOFError:
            raise InputError(f"{path}: the gzip stream ends early; the file is truncated. Fetch it again.") from None
        except (gzip.BadGzipFile, zlib.error) as error:
            raise InputError(f"{path}: the gzip stream is corrupt ({error}). Fetch the file again.") from None
        except OSError as error:
            error.filename = error.filename or str(path)
            raise
        if rest:
            yield rest + b"\n"


def _decompressed(stored: BinaryIO, path: Path) -> BinaryIO:
    """The stream of text in `stored`."""
    magic = stored.read(len(_GZIP_MAGIC))
    stored.seek(0)
    if magic == _GZIP_MAGIC:
        return gzip.GzipFile(fileobj=stored, mode="rb")
    if path.suffix == ".gz":
        raise InputError(f"{path}: is named .gz but holds no gzip stream. Fetch it again, or rename it.")
    return stored
