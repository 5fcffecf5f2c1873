"""What an embedding table is, as plain data."""

from dataclasses import dataclass

FLOAT_BYTES = 4  # tables are stored in float32, whatever the compute type


@dataclass(frozen=True)
class TableConfig:
    """One embedding table.

    Attributes:
      name: unique in the model.
      num_rows: number of ids.
      embedding_dim: width of a row.
      features: names of the categorical features that look up in this table, one id a sample each.
    """

    name: str
    num_rows: int
    embedding_dim: int
    features: tuple[str, ...]

    def __post_init__(self):
        if self.num_rows < 1 or self.embedding_dim < 1:
            raise ValueError(
                f"table {self.name!r}: {self.num_rows} rows of width {self.embedding_dim}; both must be positive."
            )
        if not self.features:
            raise ValueError(f"table {self.name!r}: no feature looks up in it. Leave the table out.")

    @property
    def num_bytes(self) -> int:
        return self.num_rows * self.embedding_dim * FLOAT_BYTES
