"""What an embedding table is, and what it costs: memory, rows to fetch, vectors to send. Plain data, no TensorFlow."""

from collections.abc import Mapping
from dataclasses import dataclass

FLOAT_BYTES = 4  # tables are stored in float32, whatever the compute type
COMBINERS = (None, "sum", "mean")

# Optimizer -> floats of state for each weight, and for each row of a shard.
STATE = {"sgd": (0, 0), "adagrad": (1, 0), "rowwise_adagrad": (0, 1), "adam": (2, 0)}

# Ids are ranked by how often they occur, and that is about what a power law with this exponent says. It matters only
# for tables that are cut by rows: their first rows get most of the ids.
# Source: the exponent of the published synthetic models.
_ALPHA = 1.05


@dataclass(frozen=True)
class TableConfig:
    """One embedding table.

    Attributes:
      name: unique in the model.
      num_rows: number of ids.
      embedding_dim: width of a row.
      combiner: how the vectors of a sample's ids become one vector, "sum" or "mean"; an empty bag gives zeros. None
        for features with exactly one id a sample, whose vector is the row.
      features: names of the categorical features that look up in this table, one or more; when not given, the one
        feature that has the table's name.
    """

    name: str
    num_rows: int
    embedding_dim: int
    combiner: str | None = None
    features: tuple[str, ...] | None = None

    def __post_init__(self):
        if self.num_rows < 1 or self.embedding_dim < 1:
            raise ValueError(
                f"table {self.name!r}: {self.num_rows} rows of width {self.embedding_dim}; both must be positive."
            )
        if self.combiner not in COMBINERS:
            raise ValueError(f"table {self.name!r}: combiner {self.combiner!r}; it must be one of {COMBINERS}.")
        if self.features is None:
            object.__setattr__(self, "features", (self.name,))
        if not self.features:
            raise ValueError(f"table {self.name!r}: no feature looks up in it. Leave the table out.")

    @property
    def num_elements(self) -> int:
        return self.num_rows * self.embedding_dim

    @property
    def num_bytes(self) -> int:
        return self.num_elements * FLOAT_BYTES


def state_bytes(optimizer: str, num_rows: int, num_columns: int) -> int:
    """Bytes of an optimizer's state beside a rectangle of weights."""
    per_weight, per_row = STATE[optimizer]
    return FLOAT_BYTES * num_rows * (num_columns * per_weight + per_row)


def fetched_per_sample(table: TableConfig, hotness: Mapping[str, float]) -> float:
    """Ids that a sample looks up in the table. Times the width of a shard, that is the elements it fetches."""
    return sum(hotness.get(feature, 1) for feature in table.features)


def vectors_per_sample(table: TableConfig, hotness: Mapping[str, float]) -> float:
    """Vectors that a sample gets from the table: one for each feature, one for each id without a combiner."""
    return len(table.features) if table.combiner else fetched_per_sample(table, hotness)


def share_of_ids(table: TableConfig, rows: tuple[int, int]) -> float:
    """The part of the lookups in a table that hits rows [rows[0], rows[1])."""
    if rows == (0, table.num_rows):
        return 1.0
    below_start, below_stop = (((row + 1) ** (1 - _ALPHA) - 1) for row in rows)
    return (below_stop - below_start) / ((table.num_rows + 1) ** (1 - _ALPHA) - 1)
