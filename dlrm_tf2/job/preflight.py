"""What a run will need in memory, counted before anything is allocated. No TensorFlow.

With a GPU that is two memories: the GPU has tables, MLPs and what a step needs; its host has the process, the tables
that are offloaded, and copies for checkpoints. The figures were fitted on CPUs, and are taken to hold for GPUs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from dlrm_tf2.config import TrainConfig
from dlrm_tf2.model.config import ModelConfig
from dlrm_tf2.sharding.optimizer_state import OPTIMIZERS
from dlrm_tf2.sharding.plan import ShardingPlan
from dlrm_tf2.sharding.tables import TableConfig, fetched_per_sample, state_bytes, vectors_per_sample

_FLOAT_BYTES = 4
# TensorFlow itself, its threads and this program, measured as resident memory of a process that trained a tiny model.
_PROCESS_BYTES = 900 << 20


class DoesNotFit(ValueError):
    """The run needs more memory than there is."""


@dataclass(frozen=True)
class Memory:
    """Memory that some ranks share, and what they have in it. On a CPU it is of both kinds.

    Attributes:
      name: for people, such as "this machine".
      ranks: the ranks that share it.
      available_bytes: what they may use of it, all of them together.
      of_device: they compute in it, and have their tables in it.
      of_host: their processes are in it, the tables that a GPU leaves there, and copies for checkpoints.
    """

    name: str
    ranks: Sequence[int]
    available_bytes: int
    of_device: bool = True
    of_host: bool = True

    def __str__(self) -> str:
        return self.name if len(self.ranks) == 1 else f"{self.name} ({len(self.ranks)} ranks)"

    def part_of(self, plan: ShardingPlan) -> ShardingPlan:
        """The shards that are in it."""
        here = [shard for shard in plan.shards if (self.of_host if shard in plan.on_host else self.of_device)]
        return replace(plan, shards=tuple(here))


def table_bytes(plan: ShardingPlan, rank: int, *, optimizer: str, training: bool) -> int:
    """Bytes of the shards on a rank, and in training of what the optimizer keeps for them."""
    state = sum(state_bytes(optimizer, shard.num_rows, shard.num_columns) for shard in plan.of_rank(rank))
    return plan.bytes_of(rank) + (state if training else 0)


def dense_bytes(model: ModelConfig, optimizer: str) -> int:
    """Bytes of the MLPs, of what the optimizer keeps for them, and of their gradients."""
    return (3 + len(OPTIMIZERS[optimizer].slots)) * _dense_elements(model) * _FLOAT_BYTES


def _dense_elements(model: ModelConfig) -> int:
    """Weights of the MLPs and of the cross layers."""
    bottom = (-(-model.num_numerical // 8) * 8, *model.bottom_mlp_dims)
    top = (model.interaction_width, *model.top_mlp_dims)
    layers = sum((a + 1) * b for widths in (bottom, top) for a, b in zip(widths, widths[1:], strict=False))
    return layers + model.num_cross_weights


def copy_bytes(model: ModelConfig, plan: ShardingPlan, *, rank: int, optimizer: str) -> int:
    """Bytes of the copy that --checkpoint_async makes on a rank: what it writes of the tables and of what the optimizer
    keeps for them, and on rank 0 the MLPs with theirs.
    """
    shards = [shard for shard in plan.of_rank(rank) if rank == 0 or shard.table not in plan.replicated]
    tables = table_bytes(replace(plan, shards=tuple(shards)), rank, optimizer=optimizer, training=True)
    return tables + (_dense_elements(model) * (1 + len(OPTIMIZERS[optimizer].slots)) * _FLOAT_BYTES if rank == 0 else 0)


def batch_bytes(
    model: ModelConfig,
    plan: ShardingPlan,
    *,
    rank: int,
    training: bool,
    xla: bool,
    optimizer: str = "sgd",
    hotness: Mapping[str, float] | None = None,
) -> float:
    """Bytes that one sample of the global batch needs on a rank while a step runs.

    Counts the vectors looked up, for the whole global batch (of replicated tables for the rank's share), and in
    training the update of their rows; and for the rank's share of the batch the vectors as exchanged, the products of
    the interaction and the activations of the MLPs. XLA keeps those of the gradients besides, where TensorFlow reuses
    the memory.

    Args:
      hotness: feature -> ids per sample; 1 for a feature that is not named.

    Source: fitted to the resident memory of processes that trained with sgd and batches of 8192 to 65536, and checked
    with the other optimizers at 16384; 10 to 20 % above it.
    """
    vectors = model.bottom_mlp_dims[-1] + sum(model.dims)
    met = (len(model.features) + 1) ** 2  # products of the dot interaction
    if model.interaction == "cross":
        met = model.num_cross_layers * (3 * vectors + model.cross_layer_projection_dim)
    layers = model.interaction_width + sum(model.bottom_mlp_dims) + sum(model.top_mlp_dims)
    share = met + vectors * (1 if plan.world_size == 1 else 3) + 2 * layers
    if training and xla:
        share *= 2
    looked_up = looked_up_elements(
        plan, rank, tables=model.tables, training=training, optimizer=optimizer, hotness=hotness or {}
    )
    return _FLOAT_BYTES * (looked_up + share / plan.world_size)


def looked_up_elements(
    plan: ShardingPlan,
    rank: int,
    *,
    tables: Sequence[TableConfig],
    training: bool,
    optimizer: str,
    hotness: Mapping[str, float],
) -> float:
    """Elements that the lookups of a rank, and in training the updates, need at a time, for one sample.

    Args: as in batch_bytes.
    """
    of_table, elements = {table.name: table for table in tables}, 0.0
    for shard in plan.of_rank(rank):
        ids = fetched_per_sample(of_table[shard.table], hotness)
        vectors = vectors_per_sample(of_table[shard.table], hotness)
        rows = ids + (vectors if vectors < ids else 0)  # what is pooled is there beside its pool
        if training:
            # A gradient for each; then each row once, with its state.
            rows += ids * (1 if optimizer == "sgd" else 2 + OPTIMIZERS[optimizer].num_per_weight)
        elements += rows * shard.num_columns / (plan.world_size if shard.table in plan.replicated else 1)
    return elements


def check_memory(
    config: TrainConfig,
    model: ModelConfig,
    *,
    plan: ShardingPlan,
    memory: Memory,
    hotness: Mapping[str, float] | None = None,
) -> str:
    """Compares what the ranks need in a memory that they share with what is there.

    Args:
      hotness: as in batch_bytes.

    Returns:
      One line for the log.

    Raises:
      DoesNotFit: with the bytes needed and there, and the largest batch that fits, if any does.
    """
    training, optimizer = config.mode == "train", config.optimizer
    ranks, there, here = memory.ranks, memory.available_bytes, memory.part_of(plan)

    def of_a_sample(trains: bool) -> float:
        """Bytes for each sample of a global batch. What is looked up on a host comes to the device, too."""
        if memory.of_device:
            return sum(
                batch_bytes(
                    model, plan, rank=rank, training=trains, xla=config.xla, optimizer=optimizer, hotness=hotness
                )
                for rank in ranks
            )
        of_ranks = (
            looked_up_elements(
                here, rank, tables=model.tables, training=trains, optimizer=optimizer, hotness=hotness or {}
            )
            for rank in ranks
        )
        return _FLOAT_BYTES * sum(of_ranks)

    tables = sum(here.bytes_of(rank) for rank in ranks)
    fixed = sum(table_bytes(here, rank, optimizer=optimizer, training=training) for rank in ranks)
    fixed += len(ranks) * (memory.of_device * dense_bytes(model, optimizer) + memory.of_host * _PROCESS_BYTES)
    advice = "Use more machines, a smaller --embedding_dim, or a dataset made with a higher frequency threshold."
    if not memory.of_host:
        advice = "Use more GPUs, a smaller --embedding_dim, or leave tables to the host: --cpu_offloading_threshold_gb."
    if training and config.checkpoint_async and memory.of_host:
        copies = sum(copy_bytes(model, plan, rank=rank, optimizer=optimizer) for rank in ranks)
        fixed += copies
        advice = f"{_gib(copies)} of it are --checkpoint_async's copy, without which training waits for checkpoints."

    batches = {"batch_size": config.batch_size} if training else {}
    if not training or config.evals_per_epoch or config.eval_every:
        batches["valid_batch_size"] = max(config.valid_batch_sizes)
    needed = fixed
    for name, size in batches.items():
        each = of_a_sample(name == "batch_size")
        if fixed + each > there:
            raise DoesNotFit(
                f"The model does not fit on {memory}: it needs {fixed} bytes ({_gib(fixed)}, {_gib(tables)} of them "
                f"tables), and {there} bytes ({_gib(there)}) are there. {advice}"
            )
        if fixed + size * each > there:
            raise DoesNotFit(
                f"--{name} {size} does not fit on {memory}: it needs {int(size * each)} bytes ({_gib(size * each)}) "
                f"beside the {_gib(fixed)} of the model, and {there} bytes ({_gib(there)}) are there. The largest that "
                f"fits is --{name} {int((there - fixed) / each)}."
            )
        needed = max(needed, fixed + size * each)
    return f"memory: about {_gib(needed)} of {_gib(there)} on {memory}, tables {_gib(tables)}"


def _gib(num_bytes: float) -> str:
    return f"{num_bytes / 2**30:.2f} GiB"
