"""Several ids a sample made of one: the bag of an id is a function of the feature and the id alone.

The first id of a bag is the id itself, the others are drawn with replacement. One stream of random numbers makes the
bags of all ids of all features, in their order, so that a bag cannot be made without the bags before it: the bags of
all ids are held in memory.

Source: TorchRec's synthetic multi-hot datasets, to the bit: numpy's legacy MT19937 with seed 0.
"""

import threading
from collections.abc import Iterable, Sequence

import numpy as np

DISTRIBUTIONS = ("uniform", "pareto")
_ALPHA = 0.25  # of the Pareto distribution
_BLOCK = 1 << 18  # bags drawn at a time
_ID_BYTES = 4


class MultiHotTables:
    """The bags of all ids of some features.

    Args:
      num_rows: number of different ids of each feature.
      sizes: ids in a bag of each feature.
      distribution: "uniform", or "pareto": whole numbers of a Pareto distribution, modulo num_rows.
    """

    def __init__(self, num_rows: Sequence[int], sizes: Sequence[int], distribution: str):
        assert distribution in DISTRIBUTIONS and len(num_rows) == len(sizes)
        self._num_rows, self._sizes, self._distribution = tuple(num_rows), tuple(sizes), distribution
        self._wanted: set[int] = set()
        self._tables: dict[int, np.ndarray] = {}
        self._lock = threading.Lock()

    def reserve(self, features: Iterable[int]) -> None:
        """Says which features will be asked for: their bags are made together, at the first call of `bags`."""
        self._wanted |= {feature for feature in features if self._sizes[feature] > 1}

    def num_bytes(self, feature: int) -> int:
        """Bytes of the bags of a feature."""
        size = self._sizes[feature]
        return self._num_rows[feature] * size * _ID_BYTES if size > 1 else 0

    def bags(self, feature: int, ids: np.ndarray) -> np.ndarray:
        """The bags of ids.

        Args:
          feature: number of the feature, which was reserved.
          ids: [n], each from 0 to below num_rows.

        Returns:
          int32 [n, size of a bag].
        """
        if self._sizes[feature] == 1:
            return ids.astype(np.int32, copy=False).reshape(-1, 1)
        with self._lock:
            if self._wanted - self._tables.keys():
                self._tables = self._made(self._wanted)
        return self._tables[feature][ids]

    def _made(self, wanted: set[int]) -> dict[int, np.ndarray]:
        tables, random = {}, np.random.RandomState(0)
        for feature in range(max(wanted) + 1):
            num_rows, size = self._num_rows[feature], self._sizes[feature]
            table = np.empty((num_rows, size), np.int32) if feature in wanted else None
            for start in range(0, num_rows, _BLOCK) if size > 1 else ():
                shape = (min(_BLOCK, num_rows - start), size - 1)
                drawn = self._drawn(random, num_rows, shape)
                if table is not None:
                    table[start : start + len(drawn), 1:] = drawn
            if table is not None:
                table[:, 0] = np.arange(num_rows, dtype=np.int32)
                tables[feature] = table
        return tables

    def _drawn(self, random: np.random.RandomState, num_rows: int, shape: tuple[int, int]) -> np.ndarray:
        if self._distribution == "uniform":
            return random.randint(0, num_rows, size=shape)
        values = random.pareto(_ALPHA, size=shape)
        # A number that no int32 holds becomes the smallest int32, as in x86's conversion.
        whole = np.where(values < 2.0**31, values, -(2.0**31)).astype(np.int32)
        return whole % num_rows
