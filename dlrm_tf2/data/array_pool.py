"""Arrays that are filled again and again: fresh memory costs the kernel more time than the copy into it."""

import sys
import threading

import numpy as np

_REFERENCES_WHEN_FREE = 3  # the pool's list, the loop over the list, and the argument of getrefcount


class ArrayPool:
    """Hands out arrays, and hands an array out again as soon as nobody holds it.

    The pool hands out views, and a view keeps its array alive. So do views of the view, and a tensor that shares the
    memory. An array is free when it has no view left, so nobody has to give it back.
    """

    def __init__(self) -> None:
        self._arrays: list[np.ndarray] = []
        self._lock = threading.Lock()

    def empty(self, rows: int, columns: tuple[int, ...], dtype: type) -> np.ndarray:
        """An array [rows, *columns] with any content."""
        with self._lock:
            for array in self._arrays:
                if sys.getrefcount(array) == _REFERENCES_WHEN_FREE and array.dtype == dtype:
                    if array.shape[1:] == columns and len(array) >= rows:
                        return array[:rows]
            array = np.empty((rows, *columns), dtype)
            self._arrays.append(array)
            return array[:]
