"""A text file, plain, gzip or zstd, as blocks of whole lines. Memory is one block, for lines of any length."""

import itertools
from collections.abc import Callable, Iterator

import numpy as np

from criteo_prep.preprocess.locations import Location, location_of, open_location
from criteo_prep.preprocess.parse.text_stream import (
    FORMAT_BYTES,
    InputError,
    TextStream,
    TruncatedError,
    check_format,
    open_text,
)

BLOCK_BYTES = 4 << 20
# A good row has fewer than 500 bytes; a line of more than this is bad, so its remaining bytes need not be kept.
MAX_LINE_BYTES = 64 << 10


def text_blocks(
    path: str | Location,
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
      path: a plain, gzip or zstd file, also behind a URL; its first bytes say which.
      block_bytes: bytes read at a time, after decompression.
      on_read: called with the number of stored bytes that were read since the last call.
      skip_bytes: bytes of text, after decompression, before the first block.
      num_buffers: number of blocks that stay unchanged: a new block overwrites an older one, which saves the time to
        allocate memory. None: all blocks stay unchanged.

    Yields:
      (block, uint8 [bytes]; position of its end in the text, which a later call may give as skip_bytes).

    Raises:
      TruncatedError: the compressed stream ends early; all whole lines before its end were yielded.
      InputError: the compressed stream is corrupt, or the file has another format.
      OSError: the file cannot be read.
    """
    with open_location(location_of(path)) as stored:
        stream = open_text(stored, path)
        _skip(stream, skip_bytes, path)
        text_end, stored_position = skip_bytes, 0
        rest = np.empty(0, np.uint8)
        buffers = (np.empty(MAX_LINE_BYTES + 1 + block_bytes, np.uint8) for _ in itertools.count())
        if num_buffers:
            buffers = itertools.cycle(itertools.islice(buffers, num_buffers))
        buffer = next(buffers)
        while True:
            block = buffer[: len(rest) + block_bytes]
            block[: len(rest)] = rest
            count = _read(stream, memoryview(block)[len(rest) :], path=path, lost_bytes=len(rest))
            if not count:
                break
            block = block[: len(rest) + count]
            if text_end == 0:
                check_format(block[:FORMAT_BYTES].tobytes(), path)
            text_end += count
            end = _last_line_end(block)
            if on_read:
                on_read(stored.tell() - stored_position)
                stored_position = stored.tell()
            rest = block[end:][: MAX_LINE_BYTES + 1].copy()
            if end:
                yield block[:end], text_end - (len(block) - end)
                buffer = next(buffers)
        if len(rest):
            yield np.append(rest, np.uint8(ord("\n"))), text_end


def _read(stream: TextStream, buffer: memoryview, *, path: str | Location, lost_bytes: int) -> int:
    """stream.readinto(buffer), with errors that name the path, and the bytes of a line that is cut off."""
    try:
        return stream.readinto(buffer)
    except TruncatedError as error:
        error.lost_bytes = lost_bytes
        raise
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


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


def _skip(stream: TextStream, num_bytes: int, path: str | Location) -> None:
    """Moves the stream to a position in the text."""
    if hasattr(stream, "seek"):  # a plain file
        stream.seek(num_bytes)
        return
    buffer = memoryview(bytearray(min(num_bytes, BLOCK_BYTES)))
    while num_bytes:
        count = _read(stream, buffer[: min(num_bytes, len(buffer))], path=path, lost_bytes=0)
        if not count:
            raise InputError(
                f"{path}: is shorter than when an earlier run read a part of it. Start again with --overwrite."
            )
        num_bytes -= count
