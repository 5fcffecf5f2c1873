"""Memory of one batch is used again for the next batch."""

import ctypes

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # parameters of mallopt
_KEPT_BYTES = 1 << 30
_LARGEST_ARRAY = 32 << 20  # bytes; the largest value that glibc accepts


def keep_freed_memory() -> None:
    """Makes the C library keep freed memory, so that this process never holds more than its peak.

    By default the library returns the arrays of each batch to the system, which then clears every page again for the
    next batch. That takes a third of the time of a transcription. C libraries other than glibc stay as they are.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_TRIM_THRESHOLD, _KEPT_BYTES)
        mallopt(_MMAP_THRESHOLD, _LARGEST_ARRAY)
