"""What a plan costs each rank: memory, lookups and what travels in a step. No TensorFlow, no communication.

The figures are those of a training step with a given global batch, with ids of the hotness given. They are exact where
tables are whole or cut by columns, an expectation where rows are cut (see load.share_of_ids), and the most that it can
be for the rows of replicated tables that travel.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dlrm_tf2.sharding.plan import Shard, ShardingPlan, samples_of_rank
from dlrm_tf2.sharding.tables import (
    FLOAT_BYTES,
    TableConfig,
    fetched_per_sample,
    share_of_ids,
    state_bytes,
    vectors_per_sample,
)

_ID_BYTES, _ROW_BYTES = 4, 8  # of an id of a sample on its way; of a row that is asked for, or whose gradient comes


@dataclass(frozen=True)
class RankCost:
    """What one rank has and does.

    Attributes:
      weight_bytes, state_bytes: memory of its shards, and of the optimizer's state of them.
      fetched: elements that it looks up in a step.
      vector_elements: elements that it makes for the samples of all ranks in a step.
      sent_bytes: bytes that it sends to other ranks in a step by alltoall: ids, vectors, and gradients of both vectors
        and rows of replicated tables.
    """

    weight_bytes: int
    state_bytes: int
    fetched: float
    vector_elements: float
    sent_bytes: float

    @property
    def table_bytes(self) -> int:
        return self.weight_bytes + self.state_bytes


def cost_of(
    plan: ShardingPlan,
    tables: Sequence[TableConfig],
    *,
    batch_size: int,
    hotness: Mapping[str, float] | None = None,
    optimizer: str = "sgd",
    wire_bytes: int = 4,
    data_parallel_input: bool = False,
) -> list[RankCost]:
    """The cost of each rank.

    Args:
      tables: those of the plan.
      batch_size: global.
      hotness: feature -> ids per sample; 1 for a feature that is not named.
      wire_bytes: of one number of a vector on its way.
      data_parallel_input: ids are read by the rank of the sample and sent to the ranks of the tables.
    """
    of_table, hotness = {table.name: table for table in tables}, hotness or {}
    loads = [
        [
            _Load(
                shard,
                of_table[shard.table],
                replicated=shard.table in plan.replicated,
                hotness=hotness,
                data_parallel_input=data_parallel_input,
            )
            for shard in plan.of_rank(rank)
        ]
        for rank in range(plan.world_size)
    ]
    ids = [sum(load.id_bytes for load in of_rank) for of_rank in loads]
    vectors = [sum(load.vectors * load.shard.num_columns for load in of_rank) for of_rank in loads]
    costs = []
    for rank, of_rank in enumerate(loads):
        start, stop = samples_of_rank(batch_size, plan.world_size, rank)
        mine, others = stop - start, batch_size - (stop - start)
        numbers = others * vectors[rank] + mine * (sum(vectors) - vectors[rank])
        to_each_other_rank = sum(load.replica_bytes(mine) for load in of_rank)
        costs.append(
            RankCost(
                weight_bytes=plan.bytes_of(rank),
                state_bytes=sum(
                    state_bytes(optimizer, load.shard.num_rows, load.shard.num_columns) for load in of_rank
                ),
                fetched=sum(load.fetched * (mine if load.replicated else batch_size) for load in of_rank),
                vector_elements=vectors[rank] * batch_size,
                sent_bytes=numbers * wire_bytes
                + mine * (sum(ids) - ids[rank])
                + to_each_other_rank * (plan.world_size - 1),
            )
        )
    return costs


@dataclass(frozen=True)
class Imbalance:
    """The largest of the ranks over their mean, 1 at best; 1 where there is nothing.

    Attributes:
      memory: weights and optimizer state.
      gather: elements fetched.
      output: elements of the vectors made.
    """

    memory: float
    gather: float
    output: float

    @classmethod
    def of(cls, costs: Sequence[RankCost]) -> "Imbalance":
        return cls(
            _max_over_mean([cost.table_bytes for cost in costs]),
            _max_over_mean([cost.fetched for cost in costs]),
            _max_over_mean([cost.vector_elements for cost in costs]),
        )

    def line(self) -> str:
        return f"imbalance: memory {self.memory:.2f} gather {self.gather:.2f} output {self.output:.2f}"


def offloaded(plan: ShardingPlan, tables: Sequence[TableConfig], most_bytes: float) -> frozenset[Shard]:
    """The shards that a GPU with room for `most_bytes` of weights leaves in host memory.

    The smallest stay on the GPU as long as their sum is at most `most_bytes`. Tables that are replicated or cut by rows
    are not counted, and stay. Source: cpu_offloading_threshold_gb of NVIDIA's DLRM.
    """
    rows, left = {table.name: table.num_rows for table in tables}, set()
    for rank in range(plan.world_size):
        movable = [
            shard
            for shard in plan.of_rank(rank)
            if shard.table not in plan.replicated and shard.num_rows == rows[shard.table]
        ]
        total = 0
        for shard in sorted(movable, key=lambda shard: (shard.num_bytes, shard.table)):
            total += shard.num_bytes
            if total > most_bytes:
                left.add(shard)
    return frozenset(left)


@dataclass(frozen=True)
class _Load:
    """What a shard does for one sample of the global batch (of its rank, if replicated)."""

    shard: Shard
    table: TableConfig
    replicated: bool
    hotness: Mapping[str, float]
    data_parallel_input: bool

    @property
    def ids(self) -> float:
        return fetched_per_sample(self.table, self.hotness) * share_of_ids(self.table, self.shard.rows)

    @property
    def fetched(self) -> float:
        """Elements."""
        return self.ids * self.shard.num_columns

    @property
    def rows_travel(self) -> bool:
        """Whether the sample's rank asks for rows and pools them itself, instead of being sent pooled vectors."""
        return self.data_parallel_input and self.shard.rows != (0, self.table.num_rows)

    @property
    def vectors(self) -> float:
        """Vectors that travel."""
        if self.replicated:
            return 0
        return self.ids if self.rows_travel else vectors_per_sample(self.table, self.hotness)

    @property
    def id_bytes(self) -> float:
        """Bytes of ids that this rank is sent, if the sample is another rank's."""
        if self.replicated or not self.data_parallel_input:
            return 0
        return self.ids * (_ROW_BYTES if self.rows_travel else _ID_BYTES)

    def replica_bytes(self, samples: int) -> float:
        """Bytes of the rows used and their gradients, at most, that each other rank is sent."""
        if not self.replicated:
            return 0
        return min(self.shard.num_rows, samples * self.ids) * (_ROW_BYTES + self.shard.num_columns * FLOAT_BYTES)


def _max_over_mean(values: Sequence[float]) -> float:
    mean = sum(values) / len(values)
    return max(values) / mean if mean else 1.0
