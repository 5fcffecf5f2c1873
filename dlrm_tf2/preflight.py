"""What a run will need in memory, counted before anything is allocated. No TensorFlow."""

from collections.abc import Sequence

from dlrm_tf2.config import ModelConfig, TrainConfig
from dlrm_tf2.embedding.plan import ShardingPlan

_FLOAT_BYTES = 4
# TensorFlow itself, its threads and this program, measured as resident memory of a process that trained a tiny model.
_PROCESS_BYTES = 900 << 20


class DoesNotFit(ValueError):
    """The run needs more memory than there is."""


def weight_bytes(model: ModelConfig, plan: ShardingPlan, rank: int) -> int:
    """Bytes of weights on a rank: its shards, and the MLPs with their gradients."""
    bottom = (-(-model.num_numerical // 8) * 8, *model.bottom_mlp_dims)
    top = (model.interaction_width, *model.top_mlp_dims)
    dense = sum((a + 1) * b for widths in (bottom, top) for a, b in zip(widths, widths[1:], strict=False))
    return plan.bytes_of(rank) + 3 * dense * _FLOAT_BYTES


def batch_bytes(model: ModelConfig, plan: ShardingPlan, rank: int, training: bool, xla: bool) -> float:
    """Bytes that one sample of the global batch needs on a rank while a step runs.

    Counts the vectors looked up, for the whole global batch, and in training the update of their rows; and for the
    rank's share of the batch the vectors as exchanged, the products of the interaction and the activations of the MLPs.
    XLA keeps those of the gradients besides, where TensorFlow reuses the memory.

    Source: fitted to the resident memory of processes that trained with batches of 8192 to 65536; a little above it.
    """
    local = len(plan.of_rank(rank)) * model.embedding_dim
    vectors = (len(model.features) + 1) * model.embedding_dim
    products = (len(model.features) + 1) ** 2
    layers = model.interaction_width + sum(model.bottom_mlp_dims) + sum(model.top_mlp_dims)
    looked_up, share = local, products + vectors * (1 if plan.world_size == 1 else 3) + 2 * layers
    if training:
        looked_up, share = 2 * local, share * (2 if xla else 1)
    return _FLOAT_BYTES * (looked_up + share / plan.world_size)


def check(
    config: TrainConfig, model: ModelConfig, plan: ShardingPlan, ranks: Sequence[int], available_bytes: int
) -> str:
    """Compares what the ranks of one machine need with what is there.

    Args:
      ranks: the ranks that share the memory.
      available_bytes: memory that they may use, all of them together.

    Returns:
      One line for the log.

    Raises:
      DoesNotFit: with the bytes needed and there, and the largest batch that fits, if any does.
    """
    training = config.mode == "train"
    batches = {"batch_size": config.batch_size} if training else {}
    if not training or config.evals_per_epoch:
        batches["valid_batch_size"] = config.valid_batch_size
    tables = sum(plan.bytes_of(rank) for rank in ranks)
    fixed = sum(weight_bytes(model, plan, rank) + _PROCESS_BYTES for rank in ranks)
    where = "this machine" if len(ranks) == 1 else f"this machine ({len(ranks)} ranks)"
    needed = fixed
    for name, size in batches.items():
        each = sum(batch_bytes(model, plan, rank, name == "batch_size", config.xla) for rank in ranks)
        if fixed + each > available_bytes:
            raise DoesNotFit(
                f"The model does not fit on {where}: it needs {fixed} bytes ({_gib(fixed)}, {_gib(tables)} of them "
                f"tables), and {available_bytes} bytes ({_gib(available_bytes)}) are there. Use more machines, a "
                "smaller --embedding_dim, or a dataset made with a higher frequency threshold."
            )
        if fixed + size * each > available_bytes:
            fits = int((available_bytes - fixed) / each)
            raise DoesNotFit(
                f"--{name} {size} does not fit on {where}: it needs {int(size * each)} bytes ({_gib(size * each)}) "
                f"beside the {_gib(fixed)} of the model, and {available_bytes} bytes ({_gib(available_bytes)}) are "
                f"there. The largest that fits is --{name} {fits}."
            )
        needed = max(needed, fixed + size * each)
    return f"memory: about {_gib(needed)} of {_gib(available_bytes)} on {where}, tables {_gib(tables)}"


def _gib(num_bytes: float) -> str:
    return f"{num_bytes / 2**30:.2f} GiB"
