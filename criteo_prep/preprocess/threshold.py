"""Vocabulary: which values of a column get an id, and which id. THE id rule, in one function."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

ID_RULE = (
    "id 0: missing, seen fewer than threshold times, or not seen; "
    "ids from 1 by (count descending, value ascending)"
)


class VocabularyError(ValueError):
    """A threshold makes no sense, or a vocabulary file is not one."""


@dataclass(frozen=True)
class Vocabulary:
    """The values of one column that have an id. The value at position i has id i + 1; id 0 stands for all others.

    Attributes:
      values: uint32 [kept].
      counts: int64 [kept], how often each was seen; never rising.
    """

    values: np.ndarray
    counts: np.ndarray

    @property
    def cardinality(self) -> int:
        """Number of ids, id 0 included: 1 for a column with no kept value."""
        return len(self.values) + 1

    def save(self, path: str | Path) -> None:
        """Writes a parquet file of `value` (uint32), `id` (int32) and `count` (int64), in the order of the ids."""
        import pyarrow
        import pyarrow.parquet

        ids = np.arange(1, self.cardinality, dtype=np.int32)
        pyarrow.parquet.write_table(pyarrow.table({"value": self.values, "id": ids, "count": self.counts}), path)

    @classmethod
    def load(cls, path: str | Path) -> "Vocabulary":
        """Reads what `save` wrote. Raises VocabularyError where the ids are not 1, 2, 3..., and OSError."""
        import pyarrow
        import pyarrow.parquet

        try:
            table = pyarrow.parquet.read_table(path, columns=["value", "id", "count"])
        except pyarrow.ArrowInvalid as error:
            raise VocabularyError(f"{path}: is no vocabulary: {error}") from None
        if not np.array_equal(table["id"].to_numpy(), np.arange(1, table.num_rows + 1)):
            raise VocabularyError(f"{path}: its ids are not 1 to {table.num_rows} in order; it is no vocabulary.")
        return cls(table["value"].to_numpy().astype(np.uint32), table["count"].to_numpy().astype(np.int64))


def make_vocabulary(values: np.ndarray, counts: np.ndarray, threshold: int) -> Vocabulary:
    """The id rule: a value seen `threshold` times or more has an id; ids from 1 by (count descending, value ascending).

    The order of the arguments' rows does not matter, so every engine that counts right gives the same ids.

    Args:
      values: uint32 [distinct], the values that were seen, each once.
      counts: int64 [distinct], how often; at least 1.
      threshold: 0 and 1 both keep every value that was seen.

    Source: NVIDIA's spark_data_utils.py keeps count >= threshold and ranks by descending count, ties in no order.
    """
    if threshold < 0:
        raise VocabularyError(f"threshold {threshold} is negative; 0 keeps every value.")
    kept = counts >= threshold
    values, counts = values[kept], counts[kept]
    order = np.lexsort((values, -counts))
    return Vocabulary(values[order].astype(np.uint32), counts[order].astype(np.int64))
