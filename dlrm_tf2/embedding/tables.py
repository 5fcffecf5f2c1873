"""What an embedding table is, as plain data."""

from dataclasses import dataclass

FLOAT_BYTES = 4  # tables are stored in float32, whatever the compute type
COMBINERS = (None, "sum", "mean")


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
