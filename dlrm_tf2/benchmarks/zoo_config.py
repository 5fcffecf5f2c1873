"""The configuration of a run of a synthetic model, as plain data, and what follows from it. No TensorFlow."""

from dataclasses import dataclass
from functools import cached_property

from dlrm_tf2.benchmarks.zoo import MODELS, ZooModel
from dlrm_tf2.config import require
from dlrm_tf2.sharding.cost import Step
from dlrm_tf2.sharding.optimizer_state import DEFAULT_OPTIMIZER
from dlrm_tf2.sharding.plan import ShardingPlan, make_plan
from dlrm_tf2.sharding.plan_rules import DEFAULT_STRATEGY
from dlrm_tf2.sharding.tables import DEFAULT_TABLE_DTYPE

_MOST_ROWS = (1 << 31) - 1  # ids are int32
_BATCH_SIZE, _PLANNED_BATCH_SIZE = 4, 65536  # the published default, and the batch of the published figures


@dataclass(frozen=True)
class ZooConfig:
    """One run. The fields are the flags of the program; its help explains them.

    Raises:
      ConfigError: a value is out of range, or two values contradict each other.
    """

    model: str = "tiny"
    optimizer: str = DEFAULT_OPTIMIZER
    batch_size: int | None = None
    alpha: float = 1.05
    num_data_batches: int = 10
    num_steps: int = 100
    dp_input: bool = False
    amp: bool = False
    scale: float = 1.0
    seed: int = 0
    cpu: bool = False
    plan_only: bool = False
    world_size: int | None = None
    dist_strategy: str = DEFAULT_STRATEGY
    column_slice_threshold: int | None = None
    row_slice_threshold: int | None = None
    data_parallel_threshold: int | None = None
    table_dtype: str = DEFAULT_TABLE_DTYPE
    embedding_op: str = "auto"
    log_path: str | None = None
    intra_op_parallelism: int | None = None
    inter_op_parallelism: int | None = None
    stall_timeout_s: float = 600.0

    def __post_init__(self) -> None:
        for name in ("batch_size", "num_data_batches", "num_steps", "world_size"):
            value = getattr(self, name)
            require(value is None or value >= 1, f"--{name} {value}: it must be at least 1.")
        require(0 <= self.seed < 1 << 63, f"--seed {self.seed}: it must be from 0 to 2**63 - 1.")
        require(self.alpha >= 0, f"--alpha {self.alpha}: it must be 0 (all ids equally often) or more.")
        require(0 < self.scale < 1e9, f"--scale {self.scale}: it must be above 0.")
        require(
            self.plan_only or self.world_size is None,
            f"--world_size {self.world_size}: only --plan_only plans for any number of ranks. A training has the ranks "
            f"that the launcher starts: horovodrun -np {self.world_size} ...",
        )
        largest = max(table.num_rows for table in self.zoo_model.tables)
        require(
            largest <= _MOST_ROWS,
            f"--scale {self.scale}: the largest table of {self.model} would have {largest} rows, and ids of 32 bits "
            f"reach {_MOST_ROWS}.",
        )

    @cached_property
    def zoo_model(self) -> ZooModel:
        """The model, with the rows that --scale asks for."""
        return MODELS[self.model].scaled(self.scale)

    @property
    def global_batch(self) -> int:
        """--batch_size. Its default is the published 4, and for a plan the batch of the published figures."""
        return self.batch_size or (_PLANNED_BATCH_SIZE if self.plan_only else _BATCH_SIZE)

    @property
    def amp_dtype(self) -> None:
        """The 16-bit type is the default of the device."""
        return None

    @property
    def step(self) -> Step:
        """The training step, for its cost."""
        return Step(
            self.global_batch,
            self.zoo_model.hotness,
            optimizer=self.optimizer,
            wire_bytes=2 if self.amp else 4,
            data_parallel_input=self.dp_input,
        )

    def plan(self, world_size: int) -> ShardingPlan:
        """Where the tables are on this many ranks.

        Raises:
          PlanError: two flags contradict each other.
        """
        model = self.zoo_model
        return make_plan(
            model.tables,
            world_size,
            strategy=self.dist_strategy,
            hotness=model.hotness,
            optimizer=self.optimizer,
            batch_size=self.global_batch,
            column_slice_threshold=self.column_slice_threshold,
            row_slice_threshold=self.row_slice_threshold,
            data_parallel_threshold=self.data_parallel_threshold,
            table_dtype=self.table_dtype,
        )
