"""Memory of one batch for the next one."""

import ctypes

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of mallopt
_KEPT_BYTES = 1 << 30
_LARGEST_ARRAY = 32 << 20  # bytes; the most that glibc takes here


def keep_freed_memory() -> None:
    """Has the C library keep what is freed, which is never more than was in use at one time.

    Otherwise it hands the arrays of a batch back to the system, which clears every page of them anew for the next one:
    a third of the time of a transcription. A C library other than glibc goes on as it does.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_TRIM_THRESHOLD, _KEPT_BYTES)
        mallopt(_MMAP_THRESHOLD, _LARGEST_ARRAY)
