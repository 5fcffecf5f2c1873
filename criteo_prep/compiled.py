"""`@compiled`: numba for a hot loop, cached on disk where that is possible."""

from collections.abc import Callable

import numba


def compiled(function: Callable) -> Callable:
    """Compiles `function` on its first call, without the interpreter lock, so that threads overlap.

    The machine code is cached beside the source or in the user's cache folder. An install where neither can be written
    compiles anew in every process instead of failing.
    """
    try:
        return numba.njit(nogil=True, cache=True)(function)
    except RuntimeError:  # numba found no folder for its cache
        return numba.njit(nogil=True)(function)
