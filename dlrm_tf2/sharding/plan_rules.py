"""PlanRules: the arguments of make_plan as one record, checked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dlrm_tf2.sharding import placement
from dlrm_tf2.sharding.optimizer_state import OPTIMIZERS, needs_whole_rows
from dlrm_tf2.sharding.tables import WEIGHT_BYTES, Loads, Table, loads_of

STRATEGIES = ("balanced", *placement.PUBLISHED)
DEFAULT_STRATEGY = "balanced"
NEVER = 1 << 62  # elements, as a threshold that no table reaches


class PlanError(ValueError):
    """The tables cannot be placed as the arguments ask."""


@dataclass(frozen=True)
class PlanRules:
    """How the tables are to be placed; the fields are the arguments of make_plan."""

    world_size: int
    strategy: str
    hotness: Mapping[str, float]
    optimizer: str
    batch_size: int | None
    column_slice_threshold: int | None
    row_slice_threshold: int | None
    data_parallel_threshold: int | None
    table_dtype: str

    @property
    def balanced(self) -> bool:
        return self.strategy == "balanced"

    @property
    def column_threshold(self) -> int | None:
        """Elements above which a table is cut by columns; None where the strategy decides."""
        return NEVER if needs_whole_rows(self.optimizer) else self.column_slice_threshold

    def loads(self, table: Table, rows: tuple[int, int]) -> Loads:
        """The loads of rows [rows[0], rows[1]) of a table."""
        return loads_of(table, rows, hotness=self.hotness, optimizer=self.optimizer, table_dtype=self.table_dtype)

    def check(self, tables: Sequence[Table]) -> None:
        """Raises PlanError if a rule is out of range, contradicts another, or a name occurs twice."""
        names = [table.name for table in tables]
        if len(set(names)) != len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise PlanError(f"table {twice!r}: two tables have this name. Give each table a name of its own.")
        if self.world_size < 1:
            raise PlanError(f"world_size {self.world_size}: there must be at least one rank.")
        if self.strategy not in STRATEGIES:
            raise PlanError(f"strategy {self.strategy!r}: it must be one of {', '.join(STRATEGIES)}.")
        if self.optimizer not in OPTIMIZERS:
            raise PlanError(f"optimizer {self.optimizer!r}: it must be one of {', '.join(OPTIMIZERS)}.")
        if self.table_dtype not in WEIGHT_BYTES:
            raise PlanError(f"table_dtype {self.table_dtype!r}: it must be one of {', '.join(WEIGHT_BYTES)}.")
        for name, least in (
            ("column_slice_threshold", 1),
            ("row_slice_threshold", 1),
            ("data_parallel_threshold", 0),
        ):
            threshold = getattr(self, name)
            if threshold is not None and threshold < least:
                raise PlanError(f"{name} {threshold}: it is a number of elements and must be at least {least}.")
        if needs_whole_rows(self.optimizer) and self.column_slice_threshold is not None:
            raise PlanError(
                f"column_slice_threshold {self.column_slice_threshold}: {self.optimizer} keeps one number a row and "
                "needs the whole row. Use row_slice_threshold, or adagrad."
            )
