"""The memory that a synthetic model needs, counted before anything is allocated; its plan as text. No TensorFlow."""

import math
from dataclasses import dataclass, replace

from dlrm_tf2.benchmarks.zoo_config import ZooConfig
from dlrm_tf2.job.preflight import PROCESS_BYTES, DoesNotFit, Memory, StepKind, gib, looked_up_bytes, table_bytes
from dlrm_tf2.sharding.optimizer_state import OPTIMIZERS
from dlrm_tf2.sharding.plan import ShardingPlan
from dlrm_tf2.sharding.plan_report import plan_text

_FLOAT_BYTES = _ID_BYTES = 4


def plan_report(config: ZooConfig, world_size: int) -> str:
    """The text of --plan_only.

    Raises:
      PlanError: two flags contradict each other.
    """
    model, plan = config.zoo_model, config.plan(world_size)
    activations = [step_bytes(config, plan, rank) for rank in range(world_size)]
    scale = "" if config.scale == 1 else f", rows times {config.scale:g}"
    title = (
        f"{config.model}: {config.dist_strategy}, {world_size} ranks, batch {config.global_batch}, "
        f"{config.optimizer}{scale}; {len(model.hotness)} features, {sum(model.hotness.values())} ids a sample"
    )
    return f"{title}\n{plan_text(plan, model.tables, step=config.step, activation_bytes=activations)}"


def step_bytes(config: ZooConfig, plan: ShardingPlan, rank: int) -> float:
    """Bytes that a training step needs on a rank besides weights and state, counted as in preflight.batch_bytes."""
    model = config.zoo_model
    share = model.output_width * (1 if plan.world_size == 1 else 3) + 2 * (model.mlp_input_width + sum(model.mlp_dims))
    kind = StepKind(
        True,
        config.optimizer,
        hotness=model.hotness,
        embedding_op=config.embedding_op,
        data_parallel_input=config.dp_input,
    )
    looked_up = looked_up_bytes(plan, rank, tables=model.tables, step=kind)
    return config.global_batch * (looked_up + _FLOAT_BYTES * share / plan.world_size)


@dataclass(frozen=True)
class _Need:
    """Bytes that the ranks of one memory need: tables, which --scale changes, and the rest."""

    tables: int
    rest: float

    @classmethod
    def of(cls, config: ZooConfig, plan: ShardingPlan, memory: Memory) -> "_Need":
        tables = sum(
            table_bytes(plan, rank, tables=config.zoo_model.tables, optimizer=config.optimizer, training=True)
            for rank in memory.ranks
        )
        model, slots = config.zoo_model, len(OPTIMIZERS[config.optimizer].slots)
        each = (3 + slots) * model.num_dense_weights * _FLOAT_BYTES + PROCESS_BYTES * memory.of_host
        rest = sum(
            each + step_bytes(config, plan, rank) + _data_bytes(config, plan.world_size) for rank in memory.ranks
        )
        return cls(tables, rest)

    @property
    def all(self) -> int:
        return int(self.tables + self.rest)


def check_memory(config: ZooConfig, plan: ShardingPlan, memory: Memory) -> str:
    """Compares the bytes that the ranks of a memory need with its available bytes.

    Returns:
      One line for the log.

    Raises:
      DoesNotFit: with the bytes needed and available, and what does fit.
    """
    if not memory.of_device:
        return f"memory: {gib(memory.available_bytes)} available on {memory}"
    need, available = _Need.of(config, plan, memory), memory.available_bytes
    if need.all <= available:
        return f"memory: about {gib(need.all)} of {gib(available)} on {memory}, tables with state {gib(need.tables)}"
    scale = _scale_that_fits(config, plan.world_size, memory)
    advice = f"It fits with --scale {scale:g}." if scale else "Use a smaller --batch_size or --num_data_batches."
    raise DoesNotFit(
        f"{config.model} does not fit on {memory}: it needs {need.all} bytes ({gib(need.all)}, {gib(need.tables)} of "
        f"them tables with the state of {config.optimizer}), and {available} bytes ({gib(available)}) are available. "
        f"{advice}"
    )


def _scale_that_fits(config: ZooConfig, world_size: int, memory: Memory) -> float | None:
    """A scale of few digits with which the model fits, close to the largest; None if none does."""
    scale = config.scale
    while scale * max(table.num_rows for table in config.zoo_model.tables) > 1:
        smaller = replace(config, scale=scale)
        need = _Need.of(smaller, smaller.plan(world_size), memory)
        if need.all <= memory.available_bytes:
            return scale
        if need.rest > memory.available_bytes:
            return None
        # The tables grow with the scale. The next try is below the last one.
        scale = _rounded_down(min(scale * (memory.available_bytes - need.rest) / need.tables, 0.99 * scale))
    return None


def _rounded_down(number: float) -> float:
    """A positive number, cut after its first two digits."""
    unit = 10.0 ** (math.floor(math.log10(number)) - 1)
    return float(f"{math.floor(number / unit) * unit:.1e}")


def _data_bytes(config: ZooConfig, world_size: int) -> float:
    """At most the bytes of the batches on a rank, one of them twice while it is made."""
    model = config.zoo_model
    share = 1 / world_size if config.dp_input else 1
    a_sample = _ID_BYTES * sum(model.hotness.values()) * share + _FLOAT_BYTES * (model.num_numerical + 1) / world_size
    return (config.num_data_batches + 1) * config.global_batch * a_sample
