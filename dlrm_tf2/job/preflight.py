"""The memory that a run needs, counted before anything is allocated. No TensorFlow.

A machine with a GPU has two memories: the GPU holds tables, MLPs and what a step needs; the host holds the process, the
offloaded tables, and the copies for checkpoints. The figures were fitted on CPUs and are assumed to hold for GPUs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from dlrm_tf2.config import TrainConfig
from dlrm_tf2.model.config import ModelConfig
from dlrm_tf2.sharding.optimizer_state import OPTIMIZERS
from dlrm_tf2.sharding.plan import ShardingPlan
from dlrm_tf2.sharding.tables import Table, fetched_per_sample, state_bytes, vectors_per_sample

_FLOAT_BYTES = 4
# TensorFlow, its threads and this program: the resident memory of a process that trained a tiny model.
PROCESS_BYTES = 900 << 20
# The most that the native update keeps for each id: its row (4 bytes); while its table is updated, its row and place
# twice, to sort them (16); where factors differ from id to id, its place and factor (8).
_NATIVE_BYTES_AN_ID = 28
# What a cache of rows keeps: for each row its slot; for each slot its row, its last batch, and two small numbers.
_INDEX_BYTES_A_ROW, _CACHE_BYTES_A_SLOT = 4, 18


class DoesNotFit(ValueError):
    """The run needs more memory than is available."""


@dataclass(frozen=True)
class Memory:
    """A memory that some ranks share. On a CPU it is device memory and host memory at the same time.

    Attributes:
      name: for people, such as "this machine".
      ranks: the ranks that share the memory.
      available_bytes: bytes that all these ranks together may use.
      of_device: the ranks compute in this memory, and it holds the tables that are not offloaded.
      of_host: this memory holds the processes, the offloaded tables, and the copies for checkpoints.
    """

    name: str
    ranks: Sequence[int]
    available_bytes: int
    of_device: bool = True
    of_host: bool = True

    def __str__(self) -> str:
        return self.name if len(self.ranks) == 1 else f"{self.name} ({len(self.ranks)} ranks)"

    def part_of(self, plan: ShardingPlan) -> ShardingPlan:
        """The plan with only the shards that are in this memory."""
        shards = [shard for shard in plan.shards if (self.of_host if shard in plan.on_host else self.of_device)]
        return replace(plan, shards=tuple(shards))


@dataclass(frozen=True)
class StepKind:
    """What a step does, as far as its memory depends on it.

    Attributes:
      training: gradients and updates follow the scores.
      optimizer: name of the optimizer; read in training only.
      hotness: feature -> ids per sample; 1 for a feature that is not named.
      xla: XLA compiles the step.
      embedding_op: "tensorflow", or "native", which "auto" counts as.
      data_parallel_input: rows of tables that are cut by rows travel one by one.
    """

    training: bool
    optimizer: str = "sgd"
    hotness: Mapping[str, float] = field(default_factory=dict)
    xla: bool = False
    embedding_op: str = "native"
    data_parallel_input: bool = False

    @classmethod
    def of(cls, config: TrainConfig, hotness: Mapping[str, float], *, training: bool) -> "StepKind":
        """A step of the run with these flags."""
        return cls(
            training,
            config.optimizer,
            hotness=hotness,
            xla=config.xla,
            embedding_op=config.embedding_op,
            data_parallel_input=config.data_parallel_input,
        )


@dataclass(frozen=True)
class DataShape:
    """What the memory of a run depends on in its dataset.

    Attributes:
      hotness: feature -> ids per sample; 1 for a feature that is not named.
      num_samples: split -> samples. A batch is never larger; a split that is not named has enough samples.
      held_bytes: feature -> bytes of samples that a rank holds in host memory, where it holds the feature's table; the
        bytes of `label` are on every rank.
      label: name of the label.
      advice: what to do where the run does not fit, in front of the advice for every run.
    """

    hotness: Mapping[str, float] = field(default_factory=dict)
    num_samples: Mapping[str, int] = field(default_factory=dict)
    held_bytes: Mapping[str, int] = field(default_factory=dict)
    label: str = ""
    advice: str = ""

    def held_on(self, rank: int, plan: ShardingPlan) -> int:
        """Bytes of samples that a rank holds."""
        features = {self.label, *(shard.table for shard in plan.of_rank(rank))}
        return sum(self.held_bytes.get(feature, 0) for feature in features)


def table_bytes(plan: ShardingPlan, rank: int, *, tables: Sequence[Table], optimizer: str, training: bool) -> int:
    """Bytes of the shards on a rank, in training with the state that the optimizer keeps for these shards.

    The index of a dynamic table counts as if all its rows were taken.
    """
    table_of, shards = {table.name: table for table in tables}, plan.of_rank(rank)
    state = sum(state_bytes(optimizer, shard.num_rows, shard.num_columns) for shard in shards)
    index = sum(table_of[shard.table].index_bytes(shard.num_rows) for shard in shards)
    return plan.bytes_of(rank) + index + (state if training else 0)


def file_bytes(config: TrainConfig, model: ModelConfig, *, plan: ShardingPlan, rank: int) -> int:
    """Bytes of the dynamic tables on a rank that are only in a file: beyond --hbm_for_embeddings."""
    if config.hbm_for_embeddings is None:
        return 0
    return max(0, _tier_bytes(config, model, plan=plan, rank=rank) - int(config.hbm_for_embeddings * (1 << 30)))


def cache_bytes(config: TrainConfig, model: ModelConfig, *, plan: ShardingPlan, rank: int) -> int:
    """Bytes that --caching needs on a rank to know which rows are in memory."""
    beyond = file_bytes(config, model, plan=plan, rank=rank)
    if not config.caching or not beyond:
        return 0
    rows = sum(shard.num_rows for shard in _dynamic_part(model, plan, rank).shards)
    in_memory = 1 - beyond / _tier_bytes(config, model, plan=plan, rank=rank)
    return int(_INDEX_BYTES_A_ROW * rows + _CACHE_BYTES_A_SLOT * rows * in_memory)


def _tier_bytes(config: TrainConfig, model: ModelConfig, *, plan: ShardingPlan, rank: int) -> int:
    """Bytes of the dynamic tables on a rank, in training with their state."""
    part = _dynamic_part(model, plan, rank)
    num_bytes = part.bytes_of(rank)
    if config.mode == "train":
        num_bytes += sum(state_bytes(config.optimizer, shard.num_rows, shard.num_columns) for shard in part.shards)
    return num_bytes


def _dynamic_part(model: ModelConfig, plan: ShardingPlan, rank: int) -> ShardingPlan:
    """The plan with only the shards of dynamic tables on a rank."""
    dynamic = {table.name for table in model.tables if table.is_dynamic}
    return replace(plan, shards=tuple(shard for shard in plan.of_rank(rank) if shard.table in dynamic))


def dense_bytes(model: ModelConfig, optimizer: str) -> int:
    """Bytes of the MLPs, their optimizer state, and their gradients."""
    return (3 + len(OPTIMIZERS[optimizer].slots)) * _dense_elements(model) * _FLOAT_BYTES


def _dense_elements(model: ModelConfig) -> int:
    """Weights of the MLPs and of the interaction."""
    bottom = (-(-model.num_numerical // 8) * 8, *model.bottom_mlp_dims)
    top = (model.interaction_width, *model.top_mlp_dims)
    layers = sum((a + 1) * b for widths in (bottom, top) for a, b in zip(widths, widths[1:], strict=False))
    return layers + model.num_interaction_weights


def copy_bytes(model: ModelConfig, plan: ShardingPlan, *, rank: int, optimizer: str) -> int:
    """Bytes of the copy that --checkpoint_async makes on a rank: the weights and state that this rank writes."""
    shards = [shard for shard in plan.of_rank(rank) if rank == 0 or shard.table not in plan.replicated]
    written = replace(plan, shards=tuple(shards))
    tables = table_bytes(written, rank, tables=model.tables, optimizer=optimizer, training=True)
    return tables + (_dense_elements(model) * (1 + len(OPTIMIZERS[optimizer].slots)) * _FLOAT_BYTES if rank == 0 else 0)


def batch_bytes(model: ModelConfig, plan: ShardingPlan, *, rank: int, step: StepKind) -> float:
    """Bytes on a rank while a step runs, for each sample of the global batch.

    These are the bytes of `looked_up_bytes`, and for the rank's share of the batch: the exchanged vectors, the
    products of the interaction, and the activations of the MLPs. In training with XLA the share counts twice, because
    XLA keeps memory for gradients where TensorFlow uses the same memory again.

    Source: fitted to the resident memory of processes that trained with sgd and batches of 8192 to 65536, and checked
    with the other optimizers at 16384; the result is 10 to 20 % above the measurement. With the native op and 1 or 10
    ids a feature it is 21 to 32 % above, process included; with TensorFlow's ops and 10 ids more than twice.
    """
    vectors = model.bottom_width + sum(model.dims)
    interaction_elements = (len(model.features) + 1) ** 2  # products of the dot interaction
    if model.interaction == "cross":
        interaction_elements = model.num_cross_layers * (3 * vectors + model.cross_layer_projection_dim)
    elif model.interaction == "projection":
        interaction_elements = 2 * sum(map(sum, model.projection_dims))
    layers = model.interaction_width + sum(model.bottom_mlp_dims) + sum(model.top_mlp_dims)
    share = interaction_elements + vectors * (1 if plan.world_size == 1 else 3) + 2 * layers
    if step.training and step.xla:
        share *= 2
    looked_up = looked_up_bytes(plan, rank, tables=model.tables, step=step)
    return looked_up + _FLOAT_BYTES * share / plan.world_size


def looked_up_bytes(plan: ShardingPlan, rank: int, *, tables: Sequence[Table], step: StepKind) -> float:
    """Bytes that the lookups of a rank hold at a time, in training with the updates, for each sample of the batch.

    A rank looks up for the whole global batch; in replicated tables for its own share of the batch. The native op holds
    pooled vectors, their gradients, and a few bytes for each id; TensorFlow's ops hold a row for each id. So does an
    exchange of rows: of replicated and of dynamic tables on several ranks, and of tables cut by rows with data-parallel
    input.
    """
    table_of, num_bytes = {table.name: table for table in tables}, 0.0
    for shard in plan.of_rank(rank):
        table, is_replicated = table_of[shard.table], shard.table in plan.replicated
        ids, vectors = fetched_per_sample(table, step.hotness), vectors_per_sample(table, step.hotness)
        is_cut = step.data_parallel_input and shard.rows != (0, table.num_rows)
        rows_travel = plan.world_size > 1 and (is_cut or table.is_dynamic)
        if step.embedding_op != "tensorflow" and not rows_travel and (not is_replicated or plan.world_size == 1):
            num_bytes += _FLOAT_BYTES * vectors * shard.num_columns * (2 if step.training else 1)
            num_bytes += _NATIVE_BYTES_AN_ID * ids if step.training else 0
            continue
        rows = ids + (vectors if vectors < ids else 0)  # pooling holds the rows and the pooled vectors
        if step.training:
            # A gradient for each row; then each distinct row once, with its state.
            rows += ids * (1 if step.optimizer == "sgd" else 2 + OPTIMIZERS[step.optimizer].num_per_weight)
        num_bytes += _FLOAT_BYTES * rows * shard.num_columns / (plan.world_size if is_replicated else 1)
    return num_bytes


def check_memory(
    config: TrainConfig,
    model: ModelConfig,
    *,
    plan: ShardingPlan,
    memory: Memory,
    data: DataShape,
) -> str:
    """Compares the bytes that the ranks of a memory need with its available bytes.

    Returns:
      One line for the log.

    Raises:
      DoesNotFit: with the bytes needed and available, and the largest batch that fits, if any does.
    """
    ranks, available, shards = memory.ranks, memory.available_bytes, memory.part_of(plan)
    tables = sum(shards.bytes_of(rank) for rank in ranks)
    fixed, advice = _fixed_bytes(config, model, plan=plan, memory=memory)
    held = sum(data.held_on(rank, plan) for rank in ranks) if memory.of_host else 0
    fixed, advice = fixed + held, data.advice + advice
    if held:
        advice = f"{gib(held)} of these bytes are data in memory. {advice}"
    needed = fixed
    for name, (asked, size, step) in _steps(config, data).items():
        each = _sample_bytes(model, plan, memory=memory, step=step)
        if fixed + each > available:
            raise DoesNotFit(
                f"The model does not fit on {memory}: it needs {fixed} bytes ({gib(fixed)}, {gib(tables)} of them "
                f"tables), and {available} bytes ({gib(available)}) are available. {advice}"
            )
        if fixed + size * each > available:
            raise DoesNotFit(
                f"--{name} {asked} does not fit on {memory}: a batch of {size} samples needs {int(size * each)} bytes "
                f"({gib(size * each)}) besides the {gib(fixed)} of the model, and {available} bytes "
                f"({gib(available)}) are available. The largest that fits is --{name} "
                f"{int((available - fixed) / each)}."
            )
        needed = max(needed, fixed + size * each)
    in_file = sum(file_bytes(config, model, plan=shards, rank=rank) for rank in ranks)
    where = f"; {gib(in_file)} of the tables with their state in {config.embeddings_folder}" if in_file else ""
    where += ", of which the rows in use are cached" if in_file and config.caching else ""
    return f"memory: about {gib(needed)} of {gib(available)} on {memory}, tables {gib(tables)}{where}"


def step_bytes(config: TrainConfig, model: ModelConfig, *, plan: ShardingPlan, rank: int, data: DataShape) -> float:
    """Bytes on a rank while the largest step of the run runs, besides tables and MLPs."""
    steps = _steps(config, data).values()
    return max(size * batch_bytes(model, plan, rank=rank, step=step) for _, size, step in steps)


def _steps(config: TrainConfig, data: DataShape) -> dict[str, tuple[int, int, StepKind]]:
    """Flag -> (the batch that it asks for, samples of the largest batch, the step), for the steps of the run."""
    training, steps = config.mode == "train", {}
    batches = {"batch_size": config.batch_size} if training else {}
    if not training or config.evals_per_epoch or config.eval_every:
        batches["valid_batch_size"] = max(config.valid_batch_sizes)
    for name, asked in batches.items():
        split = "train" if name == "batch_size" else config.eval_split
        size = min(asked, data.num_samples.get(split, asked))
        steps[name] = asked, size, StepKind.of(config, data.hotness, training=name == "batch_size")
    return steps


def _fixed_bytes(config: TrainConfig, model: ModelConfig, *, plan: ShardingPlan, memory: Memory) -> tuple[float, str]:
    """Bytes that do not depend on the batch, and the advice for a model that does not fit."""
    training, optimizer, ranks, shards = config.mode == "train", config.optimizer, memory.ranks, memory.part_of(plan)
    fixed = sum(
        table_bytes(shards, rank, tables=model.tables, optimizer=optimizer, training=training) for rank in ranks
    )
    fixed -= sum(file_bytes(config, model, plan=shards, rank=rank) for rank in ranks)
    fixed += sum(cache_bytes(config, model, plan=shards, rank=rank) for rank in ranks)
    fixed += len(ranks) * (memory.of_device * dense_bytes(model, optimizer) + memory.of_host * PROCESS_BYTES)
    if training and config.checkpoint_async and memory.of_host:
        copies = sum(copy_bytes(model, plan, rank=rank, optimizer=optimizer) for rank in ranks)
        return fixed + copies, (
            f"{gib(copies)} of these bytes are the copy of --checkpoint_async, without which training waits for "
            "checkpoints."
        )
    if not memory.of_host:
        return fixed, (
            "Use more GPUs, a smaller --embedding_dim, or leave tables to the host: --cpu_offloading_threshold_gb."
        )
    return fixed, "Use more machines, a smaller --embedding_dim, or a dataset made with a higher frequency threshold."


def _sample_bytes(model: ModelConfig, plan: ShardingPlan, *, memory: Memory, step: StepKind) -> float:
    """Bytes of a memory for each sample of a global batch. Rows looked up on a host are copied to the device too."""
    if memory.of_device:
        return sum(batch_bytes(model, plan, rank=rank, step=step) for rank in memory.ranks)
    shards = memory.part_of(plan)
    return sum(looked_up_bytes(shards, rank, tables=model.tables, step=step) for rank in memory.ranks)


def gib(num_bytes: float) -> str:
    """Bytes as text, in GiB."""
    return f"{num_bytes / 2**30:.2f} GiB"
