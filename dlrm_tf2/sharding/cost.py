"""What a plan costs each rank: memory, lookups, and what travels in a step.

The figures are for one training step. They are exact where tables are whole or cut by columns; an expectation where
tables are cut by rows (see tables.share_of_ids); and an upper bound for the rows of replicated and dynamic tables and
of deduplicated features, unless it is known how many ids of a batch are different.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from dlrm_tf2.sharding.optimizer_state import DEFAULT_OPTIMIZER, FLOAT_BYTES
from dlrm_tf2.sharding.plan import Shard, ShardingPlan, samples_of_rank
from dlrm_tf2.sharding.tables import Table, fetched_per_sample, share_of_ids, state_bytes

_ID_BYTES = 4  # an id of a sample, on its way to the rank of the table
_ROW_BYTES = 8  # the number of a row that a rank requests, or whose gradient it sends
_KEY_BYTES = 16  # a key of a dynamic table that a rank requests; its table and how often samples have it


@dataclass(frozen=True)
class Step:
    """The training step whose cost is wanted.

    Attributes:
      batch_size: global batch size.
      hotness: feature -> ids per sample; 1 for a feature that is not in it.
      optimizer: a key of OPTIMIZERS.
      wire_bytes: bytes of one number of a vector that travels.
      data_parallel_input: the rank of a sample reads the sample's ids and sends them to the ranks of the tables.
      deduplicated: features whose rows a rank requests once for all of its samples, with data_parallel_input.
      different: feature -> different ids of a rank's samples, for each of its samples; as many as there are ids for a
        feature that is not in it.
      host_different: the same of a host's samples, for each of these; as `different` for a feature that is not in it.
      ranks_per_host: ranks that share a host. Bytes are sent to ranks on other hosts.
    """

    batch_size: int
    hotness: Mapping[str, float] = field(default_factory=dict)
    optimizer: str = DEFAULT_OPTIMIZER
    wire_bytes: int = FLOAT_BYTES
    data_parallel_input: bool = False
    deduplicated: Collection[str] = ()
    different: Mapping[str, float] = field(default_factory=dict)
    host_different: Mapping[str, float] = field(default_factory=dict)
    ranks_per_host: int = 1

    def different_ids(self, feature: str) -> float:
        """Different ids of a feature for each sample of a rank."""
        return self.different.get(feature, self.hotness.get(feature, 1))

    def different_ids_of_host(self, feature: str) -> float:
        """Different ids of a feature for each sample of a host."""
        return self.host_different.get(feature, self.different_ids(feature))


@dataclass(frozen=True)
class RankCost:
    """What one rank holds and does.

    Attributes:
      weight_bytes: bytes of the rank's shards.
      state_bytes: bytes of the optimizer's state for these shards.
      fetched: elements that the rank looks up in a step.
      vector_elements: elements of the vectors that the rank makes in a step, for the samples of all ranks.
      sent_bytes: bytes that the rank sends to ranks on other hosts in a step by alltoall: ids, vectors, and the
        gradients of vectors and of rows of replicated tables.
      index_bytes: bytes of the indexes of dynamic tables, at most.
    """

    weight_bytes: int
    state_bytes: int
    fetched: float
    vector_elements: float
    sent_bytes: float
    index_bytes: int = 0

    @property
    def table_bytes(self) -> int:
        """Bytes of weights, optimizer state and indexes."""
        return self.weight_bytes + self.state_bytes + self.index_bytes


def cost_of(plan: ShardingPlan, tables: Sequence[Table], step: Step) -> list[RankCost]:
    """The cost of each rank.

    Args:
      tables: the tables that the plan was made for.
    """
    if step.ranks_per_host in (1, plan.world_size):  # ranks of a host send nothing in common
        step = replace(step, host_different=step.different)
    table_of = {table.name: table for table in tables}
    of_ranks = [
        [
            _ShardLoad(shard, table_of[shard.table], replicated=shard.table in plan.replicated, step=step)
            for shard in plan.of_rank(rank)
        ]
        for rank in range(plan.world_size)
    ]
    ids = [sum(load.id_bytes for load in loads) for loads in of_ranks]
    vectors = [sum(load.vectors * load.shard.num_columns for load in loads) for loads in of_ranks]
    bounds = [samples_of_rank(step.batch_size, plan.world_size, rank) for rank in range(plan.world_size)]
    samples, costs = [stop - start for start, stop in bounds], []
    for rank, loads in enumerate(of_ranks):
        first = rank - rank % step.ranks_per_host
        host = slice(first, first + step.ranks_per_host)
        local_batch, other_samples = samples[rank], step.batch_size - sum(samples[host])
        # Vectors for the samples of other hosts, and gradients for the vectors that other hosts have sent.
        numbers = other_samples * vectors[rank] + local_batch * (sum(vectors) - sum(vectors[host]))
        replica_bytes = sum(load.replica_bytes(sum(samples[host])) for load in loads)
        ranks = len(samples[host])
        costs.append(
            RankCost(
                weight_bytes=plan.bytes_of(rank),
                state_bytes=sum(
                    state_bytes(step.optimizer, load.shard.num_rows, load.shard.num_columns) for load in loads
                ),
                fetched=sum(load.fetched * (local_batch if load.replicated else step.batch_size) for load in loads),
                vector_elements=vectors[rank] * step.batch_size,
                sent_bytes=numbers * step.wire_bytes
                + local_batch * (sum(ids) - sum(ids[host]))
                + replica_bytes * (plan.world_size / ranks - 1) / ranks,
                index_bytes=sum(load.table.index_bytes(load.shard.num_rows) for load in loads),
            )
        )
    return costs


def allreduce_bytes(numbers: int, world_size: int) -> float:
    """Bytes that a host sends when all ranks add up float32 numbers, in a ring that enters and leaves each host once.

    Each rank sends its neighbour all numbers but a rank's share twice: as partial sums, and as sums. gloo makes such a
    ring. Open MPI adds up inside a host first, where hosts have as many ranks, a power of two: then count hosts.
    """
    return 2 * (world_size - 1) / world_size * numbers * FLOAT_BYTES


@dataclass(frozen=True)
class Imbalance:
    """The largest value of a rank over the mean of all ranks; 1 at best, and 1 where all values are 0.

    Attributes:
      memory: of the bytes of weights and optimizer state.
      gather: of the elements fetched.
      output: of the elements of the vectors made.
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


def offloaded(plan: ShardingPlan, tables: Sequence[Table], most_bytes: float) -> frozenset[Shard]:
    """The shards that a GPU with room for `most_bytes` bytes of weights leaves in host memory.

    The smallest shards stay on the GPU as long as their sum is at most `most_bytes`. Tables that are replicated, cut
    by rows or dynamic are not counted, and stay. Source: cpu_offloading_threshold_gb of NVIDIA's DLRM.
    """
    num_rows = {table.name: table.num_rows for table in tables if not table.is_dynamic}
    on_host = set()
    for rank in range(plan.world_size):
        movable = [
            shard
            for shard in plan.of_rank(rank)
            if shard.table not in plan.replicated and shard.num_rows == num_rows.get(shard.table)
        ]
        total = 0
        for shard in sorted(movable, key=lambda shard: (shard.num_elements, shard.table)):
            total += plan.num_bytes([shard])
            if total > most_bytes:
                on_host.add(shard)
    return frozenset(on_host)


@dataclass(frozen=True)
class _ShardLoad:
    """What a shard does for one sample of the global batch; if replicated, for one sample of its own rank."""

    shard: Shard
    table: Table
    replicated: bool
    step: Step

    @property
    def ids(self) -> float:
        """Ids that are looked up in the shard."""
        return fetched_per_sample(self.table, self.step.hotness) * share_of_ids(self.table, self.shard.rows)

    @property
    def fetched(self) -> float:
        """Elements that are looked up."""
        return self.ids * self.shard.num_columns

    def rows_travel(self, feature: str) -> bool:
        """Whether the sample's rank requests rows and pools them itself, instead of receiving pooled vectors."""
        if self.table.is_dynamic:
            return True
        is_cut = self.shard.rows != (0, self.table.num_rows)
        return self.step.data_parallel_input and (is_cut or feature in self.step.deduplicated)

    @property
    def vectors(self) -> float:
        """Vectors that travel."""
        return 0 if self.replicated else sum(self._vectors_of(feature) for feature in self.table.features)

    def _vectors_of(self, feature: str) -> float:
        if self.rows_travel(feature):
            return self._requested(feature)
        return 1 if self.table.combiner else self.step.hotness.get(feature, 1)

    def _requested(self, feature: str) -> float:
        """Rows that a sample's host requests for it."""
        once = self.table.is_dynamic or feature in self.step.deduplicated
        ids = self.step.different_ids_of_host(feature) if once else self.step.hotness.get(feature, 1)
        return ids * share_of_ids(self.table, self.shard.rows)

    @property
    def id_bytes(self) -> float:
        """Bytes of the ids that the shard's rank receives for a sample of another rank."""
        if self.table.is_dynamic:
            return _KEY_BYTES * sum(map(self._requested, self.table.features))
        if self.replicated or not self.step.data_parallel_input:
            return 0
        return sum(
            self._requested(feature) * (_ROW_BYTES if self.rows_travel(feature) else _ID_BYTES)
            for feature in self.table.features
        )

    def replica_bytes(self, samples: int) -> float:
        """Bytes of rows used and of their gradients that each other host receives for a host's samples."""
        if not self.replicated:
            return 0
        used = samples * sum(self.step.different_ids_of_host(name) for name in self.table.features)
        return min(self.shard.num_rows, used) * (_ROW_BYTES + self.shard.num_columns * FLOAT_BYTES)


def _max_over_mean(values: Sequence[float]) -> float:
    mean = sum(values) / len(values)
    return max(values) / mean if mean else 1.0
