"""SortedKeys: the keys of a dynamic table in ascending order, so that a reader finds a key by binary search."""

from collections.abc import Callable

import numpy as np


class SortedKeys:
    """What a dynamic table of a checkpoint is restored into: all its keys, the row of each being its place.

    Args:
      write_rows: (rows int64 [n], values float32 [n, width]) -> None: keeps the weights.

    Attributes:
      keys: int64, ascending.
    """

    num_rows = -1  # no size of a table: keys get other rows than they had

    def __init__(self, write_rows: Callable[[np.ndarray, np.ndarray], None]):
        self.keys, self._write_rows = np.zeros(0, np.int64), write_rows

    def clear(self, step: int = 0) -> None:
        """There are no keys yet."""

    def owns(self, keys: np.ndarray) -> np.ndarray:
        """All keys belong here."""
        return np.ones(len(keys), bool)

    def assign(self, keys: np.ndarray, *, scores: np.ndarray, steps: np.ndarray, in_order: bool) -> np.ndarray:
        """The row of each key."""
        order, rows = np.argsort(keys), np.empty(len(keys), np.int64)
        self.keys, rows[order] = keys[order], np.arange(len(keys))
        return rows

    def assign_counted(self, counted: dict[str, np.ndarray], same_size: bool) -> bool:
        """Nobody counts keys here."""
        return False

    def write(self, rows: np.ndarray, slot: str, values: np.ndarray) -> None:
        """Keeps the weights of rows."""
        self._write_rows(rows, values)
