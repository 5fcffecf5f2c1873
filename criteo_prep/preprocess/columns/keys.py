"""Values of one column -> keys: each value itself, as a number that has room for a missing value too."""

import numpy as np

MISSING_KEY = -1  # every value is from 0 to 2^32 - 1
KEY_RULE = f"raw keys: each value itself as int64; {MISSING_KEY}: missing"


class Keys:
    """What IdTable is for ids; it needs no vocabulary."""

    dtype = np.dtype(np.int64)

    def encode(self, values: np.ndarray, zero_rows: np.ndarray) -> np.ndarray:
        """The keys of a block of rows, int64 [n].

        Args:
          values: uint32 [n], 0 for a missing value.
          zero_rows: int64 [k], rows of the block whose value is 0 and not missing.
        """
        keys = values.astype(self.dtype)
        keys[keys == 0] = MISSING_KEY
        keys[zero_rows] = 0
        return keys
