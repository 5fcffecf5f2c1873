"""`@compiled`: numba for a hot loop, with the machine code cached on disk where possible."""

from collections.abc import Callable

import numba


def compiled(function: Callable) -> Callable:
    """Compiles `function` on its first call, without the interpreter lock, so that threads overlap.

    The machine code is cached next to the source or in the user's cache folder. Where neither folder can be written,
    every process compiles again instead of failing.
    """
    try:
        return numba.njit(nogil=True, cache=True)(function)
    except RuntimeError:  # numba found no folder for its cache
        return numba.njit(nogil=True)(function)
