"""An embedding table as plain data, and the loads that it puts on a rank: memory, rows to fetch, vectors to send."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Protocol

from dlrm_tf2.sharding.optimizer_state import OPTIMIZERS

COMBINERS = (None, "sum", "mean")
# Types of the weights of tables -> bytes of one weight.
WEIGHT_BYTES = {"float32": 4, "bfloat16": 2}
DEFAULT_TABLE_DTYPE = "float32"

# Ids are ranked by frequency, and a power law with this exponent describes the frequencies well. It matters only for
# tables that are cut by rows: their first rows get most of the ids.
# Source: the exponent of the published synthetic models.
_ALPHA = 1.05


class Table(Protocol):
    """What TableConfig and DynamicTableConfig (sharding/dynamic_tables.py) have in common."""

    @property
    def name(self) -> str: ...
    @property
    def num_rows(self) -> int: ...
    @property
    def embedding_dim(self) -> int: ...
    @property
    def combiner(self) -> str | None: ...
    @property
    def features(self) -> tuple[str, ...]: ...
    @property
    def num_elements(self) -> int: ...
    @property
    def is_dynamic(self) -> bool: ...
    def index_bytes(self, num_rows: int) -> int:
        """Bytes that `num_rows` rows take besides their weights and the optimizer's state."""


@dataclass(frozen=True)
class TableConfig:
    """One embedding table.

    Attributes:
      name: unique in the model.
      num_rows: rows of the table, id 0 included.
      embedding_dim: numbers in a row.
      combiner: how the vectors of a sample's ids become one vector, "sum" or "mean"; a sample without ids gets zeros.
        None for features with a fixed number of ids a sample: each id gives its own vector.
      features: names of the categorical features that look up in this table, one or more; when not given, the one
        feature that has the table's name.

    Raises:
      ValueError: a size is not positive, the combiner is unknown, or `features` is empty.
    """

    name: str
    num_rows: int
    embedding_dim: int
    combiner: str | None = None
    features: tuple[str, ...] = None  # type: ignore[assignment]  # __post_init__ replaces None

    is_dynamic: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.num_rows < 1 or self.embedding_dim < 1:
            raise ValueError(
                f"table {self.name!r}: {self.num_rows} rows of width {self.embedding_dim}; both must be positive."
            )
        if self.features is None:
            object.__setattr__(self, "features", (self.name,))
        check_columns_and_features(self)

    @property
    def num_elements(self) -> int:
        return self.num_rows * self.embedding_dim

    def index_bytes(self, num_rows: int) -> int:
        """None: an id is the number of its row."""
        return 0


def check_columns_and_features(table: Table) -> None:
    """Raises ValueError if the combiner is unknown, or no feature looks up in the table."""
    if table.combiner not in COMBINERS:
        raise ValueError(f"table {table.name!r}: combiner {table.combiner!r}; it must be one of {COMBINERS}.")
    if not table.features:
        raise ValueError(f"table {table.name!r}: no feature looks up in it. Leave the table out.")


class Loads(NamedTuple):
    """What a table, or a part of a table, asks of the rank that holds it.

    Attributes:
      num_bytes: bytes of weights and optimizer state, and of the index of a dynamic table.
      fetched: elements that the rank looks up for one sample.
      sent: elements that the rank sends for one sample.
    """

    num_bytes: float
    fetched: float
    sent: float


def loads_of(
    table: Table,
    rows: tuple[int, int],
    *,
    hotness: Mapping[str, float],
    optimizer: str,
    table_dtype: str = DEFAULT_TABLE_DTYPE,
) -> Loads:
    """The loads of rows [rows[0], rows[1]) of a table, all columns.

    Args:
      hotness: feature -> ids per sample; 1 for a feature that is not in it.
      optimizer: a key of OPTIMIZERS.
      table_dtype: a key of WEIGHT_BYTES.
    """
    num_rows, width = rows[1] - rows[0], table.embedding_dim
    weight_bytes = num_rows * width * WEIGHT_BYTES[table_dtype]
    ids = fetched_per_sample(table, hotness) * share_of_ids(table, rows)
    return Loads(
        weight_bytes + state_bytes(optimizer, num_rows, width) + table.index_bytes(num_rows),
        ids * width,
        (ids if table.is_dynamic else vectors_per_sample(table, hotness)) * width,
    )


def state_bytes(optimizer: str, num_rows: int, num_columns: int) -> int:
    """Bytes of the optimizer's state for a rectangle of weights."""
    return OPTIMIZERS[optimizer].num_bytes(num_rows, num_columns)


def fetched_per_sample(table: Table, hotness: Mapping[str, float]) -> float:
    """Ids that a sample looks up in the table; times the width of a shard, the elements that the sample fetches."""
    return sum(hotness.get(feature, 1) for feature in table.features)


def vectors_per_sample(table: Table, hotness: Mapping[str, float]) -> float:
    """Vectors that a sample gets from the table: one for each feature; without a combiner, one for each id."""
    return len(table.features) if table.combiner else fetched_per_sample(table, hotness)


def share_of_ids(table: Table, rows: tuple[int, int]) -> float:
    """The part of the lookups in a table that hits rows [rows[0], rows[1])."""
    if rows == (0, table.num_rows):
        return 1.0
    if table.is_dynamic:  # keys are spread by their hash
        return (rows[1] - rows[0]) / table.num_rows
    return _first_rows_share(rows[1], table.num_rows) - _first_rows_share(rows[0], table.num_rows)


def _first_rows_share(rows: int, num_rows: int) -> float:
    """The part of the ids that names the first rows of a table."""
    return ((rows + 1) ** (1 - _ALPHA) - 1) / ((num_rows + 1) ** (1 - _ALPHA) - 1)
