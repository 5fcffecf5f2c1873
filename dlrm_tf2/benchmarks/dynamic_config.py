"""A run of one of dynamicemb's benchmarks as plain data, and the tables of it. No TensorFlow."""

from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from dlrm_tf2.benchmarks.dynamic import COLLECTION_ROWS, HOTNESS, NUM_FEATURES, ROWS_UNIT
from dlrm_tf2.config import require
from dlrm_tf2.sharding.cost import Step
from dlrm_tf2.sharding.dynamic_tables import DynamicTableConfig, Initializer
from dlrm_tf2.sharding.plan import ShardingPlan, make_plan
from dlrm_tf2.sharding.tables import Table, TableConfig

# Published value -> ours.
OPTIMIZERS = {
    "sgd": "sgd", "adam": "adam", "exact_adagrad": "adagrad", "exact_row_wise_adagrad": "rowwise_adagrad",
}  # fmt: skip
PRECISIONS = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}
SCORES = {"lru": "timestamp", "lfu": "lfu"}
_NORMAL = Initializer("normal", 0.0, 1.0)  # as published
_MOST_ROWS = (1 << 31) - 1  # ids of static tables are int32
TABLE = "t_0"


@dataclass(frozen=True)
class _Run:
    """What both benchmarks have. The fields are the flags of the program; its help explains them."""

    batch_size: int = 32
    num_iterations: int = 100
    embedding_dim: int = 128
    optimizer_type: str = "adam"
    learning_rate: float = 0.1
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-3
    seed: int = 42
    json: str | None = None
    intra_op_parallelism: int | None = None
    inter_op_parallelism: int | None = None
    stall_timeout_s: float = 600.0

    # What connected_ranks reads besides: dynamic tables are on the CPU, and their steps compute nothing in 16 bits.
    cpu: ClassVar[bool] = True
    amp: ClassVar[bool] = False
    amp_dtype: ClassVar[str | None] = None

    def __post_init__(self) -> None:
        for name in ("batch_size", "num_iterations", "embedding_dim"):
            value = getattr(self, name)
            require(value >= 1, f"--{name} {value}: it must be at least 1.")
        require(0 <= self.seed < 1 << 63, f"--seed {self.seed}: it must be from 0 to 2**63 - 1.")
        for name in ("learning_rate", "eps"):
            value = getattr(self, name)
            require(value > 0, f"--{name} {value}: it must be above 0.")
        for name in ("beta1", "beta2"):
            value = getattr(self, name)
            require(0 <= value < 1, f"--{name} {value}: it must be at least 0 and below 1.")
        if self.optimizer_type != "adam":
            defaults = {field.name: field.default for field in fields(self)}
            unread = ("beta1", "beta2", "eps") if self.optimizer_type == "sgd" else ("beta1", "beta2")
            for name in unread:
                require(
                    getattr(self, name) == defaults[name],
                    f"--{name} and --optimizer_type {self.optimizer_type}: this optimizer has no such constant. Leave "
                    "one of them out.",
                )
        if self.json is not None:
            path = Path(self.json)
            require(path.parent.is_dir() and not path.is_dir(), f"--json {self.json}: it must be a file in a folder.")

    @property
    def optimizer(self) -> str:
        """Our name of the optimizer."""
        return OPTIMIZERS[self.optimizer_type]


@dataclass(frozen=True)
class TablesConfig(_Run):
    """One static and one dynamic table of the same rows, one after the other, on one rank."""

    num_embeddings_per_feature: int = 1
    rows: int | None = None
    feature_distribution: str = "random"
    alpha: float = 1.05
    emb_precision: str = "fp32"
    output_dtype: str = "fp32"
    cache_algorithm: str = "lru"

    def __post_init__(self) -> None:
        super().__post_init__()
        units = self.num_embeddings_per_feature
        require(units >= 1, f"--num_embeddings_per_feature {units}: it must be at least 1, in units of 2**20 rows.")
        require(
            self.rows is None or units == 1,
            "--rows and --num_embeddings_per_feature: both give the rows of the table. Leave one of them out.",
        )
        require(2 <= self.num_rows <= _MOST_ROWS, f"{self.num_rows} rows: found, expected 2 to {_MOST_ROWS}.")
        random = self.feature_distribution == "random"
        require(
            not random or self.alpha == type(self).alpha,
            "--alpha: only --feature_distribution pow-law has an exponent. Leave --alpha out.",
        )
        require(self.alpha >= 0, f"--alpha {self.alpha}: it must be at least 0.")

    @property
    def num_rows(self) -> int:
        """Rows of the table."""
        return self.num_embeddings_per_feature * ROWS_UNIT if self.rows is None else self.rows

    @property
    def distribution(self) -> str:
        """The distribution of keys, as the published table has it."""
        return "random" if self.feature_distribution == "random" else f"pow-law-{self.alpha:g}"

    def table(self, *, dynamic: bool) -> Table:
        """The table of a column of the report."""
        if not dynamic:
            return TableConfig(TABLE, self.num_rows, self.embedding_dim)
        return DynamicTableConfig(TABLE, self.num_rows, self.embedding_dim, score=SCORES[self.cache_algorithm])

    def plan(self, *, dynamic: bool) -> ShardingPlan:
        """The table on the one rank."""
        dtype = PRECISIONS[self.emb_precision]
        return make_plan([self.table(dynamic=dynamic)], 1, optimizer=self.optimizer, table_dtype=dtype)


@dataclass(frozen=True)
class CollectionConfig(_Run):
    """26 features of 10 ids a sample: from one dynamic table, or from 26 static tables cut by rows."""

    batch_size: int = 8192
    num_embeddings_per_feature: tuple[int, ...] = COLLECTION_ROWS
    multi_hot_sizes: tuple[int, ...] = (HOTNESS,) * NUM_FEATURES
    scale: float | None = None
    fwd_a2a_precision: str = "fp32"
    use_index_dedup: bool = False
    use_dynamic_embedding: bool = False
    print_sharding_plan: bool = False
    seed: int = 1024

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("num_embeddings_per_feature", "multi_hot_sizes"):
            numbers = getattr(self, name)
            require(min(numbers) >= 1, f"--{name}: each number must be at least 1.")
        rows, sizes = len(self.num_embeddings_per_feature), len(self.multi_hot_sizes)
        require(
            rows == sizes,
            f"--num_embeddings_per_feature has {rows} numbers and --multi_hot_sizes {sizes}; both have one for each "
            "feature.",
        )
        require(self.scale is None or self.scale > 0, f"--scale {self.scale}: it must be above 0.")
        most = max(self.num_embeddings_per_feature) * (self.scale or 1)
        require(most <= _MOST_ROWS, f"--scale {self.scale}: a table would have {most:.0f} rows; {_MOST_ROWS} is most.")

    @cached_property
    def num_rows(self) -> tuple[int, ...]:
        """Rows of each feature, with --scale."""
        return tuple(max(1, int(rows * (self.scale or 1))) for rows in self.num_embeddings_per_feature)

    @property
    def hotness(self) -> dict[str, int]:
        """Feature -> ids a sample."""
        return {f"cate_{number}": size for number, size in enumerate(self.multi_hot_sizes)}

    @property
    def tables(self) -> list[Table]:
        """The one fused table, or one of each feature; without pooling."""
        if self.use_dynamic_embedding:
            total, features = sum(self.num_rows), tuple(self.hotness)
            return [DynamicTableConfig(TABLE, total, self.embedding_dim, features=features, initializer=_NORMAL)]
        return [
            TableConfig(f"t_{number}", rows, self.embedding_dim, features=(feature,))
            for number, (feature, rows) in enumerate(zip(self.hotness, self.num_rows, strict=True))
        ]

    @property
    def step(self) -> Step:
        """The training step, for its cost."""
        return Step(
            self.batch_size,
            self.hotness,
            optimizer=self.optimizer,
            wire_bytes=4 if self.fwd_a2a_precision == "fp32" else 2,
            data_parallel_input=True,
        )

    def plan(self, world_size: int) -> ShardingPlan:
        """Every table cut by rows: the rows of static tables, the buckets of the dynamic table."""
        return make_plan(
            self.tables,
            world_size,
            hotness=self.hotness,
            optimizer=self.optimizer,
            batch_size=self.batch_size,
            row_slice_threshold=1,
            data_parallel_threshold=0,
        )
