"""Which configurations are allowed: ranges of single flags, and flags that contradict each other. No TensorFlow."""

import dataclasses
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dlrm_tf2.config import TrainConfig


# Steps and samples are int64. Losses, weights and learning rates are float32, where a larger number is infinite.
_LARGEST: dict[type, float] = {int: 2**63 - 1, float: 3.4e38}
LARGEST_SKETCH_COUNT = 2**16 - 1  # of the counters of --admission_counter sketch
LONGEST_STALL_S = 10**9  # beyond it the clocks of Python's threads and of Horovod overflow


class ConfigError(ValueError):
    """A flag has a value that is not allowed, or two flags contradict each other."""


def require(condition: object, message: str) -> None:
    """Raises ConfigError unless the condition holds."""
    if not condition:
        raise ConfigError(message)


def check_config(config: "TrainConfig") -> None:
    """Raises ConfigError if a value is out of range, or two values contradict each other."""
    require(config.dataset_path is not None, "--dataset_path is missing. Name the folder that holds the dataset.")
    _check_least_values(config)
    _check_largest_values(config)
    _check_ranges(config)
    _check_widths(config)
    _check_optimizer(config)
    _check_ops(config)
    _check_data(config)
    _check_checkpoints(config)
    _check_dynamic(config)


def _check_least_values(config: "TrainConfig") -> None:
    for field in dataclasses.fields(config):
        value, least = getattr(config, field.name), field.metadata["least"]
        if value is None or least is None:
            continue
        smallest = min(value, default=0) if isinstance(value, tuple) else value
        require(smallest >= least, f"--{field.name} is {_text(value)}; it must be at least {least}.")


def _check_largest_values(config: "TrainConfig") -> None:
    """Infinity is too large for every flag; nan is left to the other checks."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        for number in value if isinstance(value, tuple) else (value,):
            most, advice = _LARGEST.get(type(number)), ""
            if field.name == "stall_timeout_s":
                most, advice = LONGEST_STALL_S, " Use 0 for never."
            elif field.default is None:
                advice = " Leave it out for no limit."
            if most is not None and number > most:
                raise ConfigError(f"--{field.name} is {_text(value)}; it must be at most {most}.{advice}")


def _check_ranges(config: "TrainConfig") -> None:
    require(
        config.max_steps == -1 or config.max_steps >= 1, f"--max_steps is {config.max_steps}; use -1 or at least 1."
    )
    require(
        config.seed is None or 0 <= config.seed < 2**63, f"--seed is {config.seed}; it must be from 0 to 2**63 - 1."
    )
    for name in ("learning_rate", "loss_scale", "epsilon"):
        require(getattr(config, name) > 0, f"--{name} is {getattr(config, name)}; it must be positive.")
    require(0 <= config.momentum < 1, f"--momentum is {config.momentum}; it must be from 0 to below 1.")
    for name in ("beta1", "beta2", "auc_threshold"):
        value = getattr(config, name)
        require(value is None or 0 < value < 1, f"--{name} is {value}; it must be between 0 and 1.")


def _check_widths(config: "TrainConfig") -> None:
    dims = config.embedding_dim if isinstance(config.embedding_dim, tuple) else (config.embedding_dim,)
    require(
        config.interaction == "cross" or dims == (config.bottom_mlp_dims[-1],) * len(dims),
        f"--bottom_mlp_dims ends with {config.bottom_mlp_dims[-1]}, --embedding_dim is {_text(config.embedding_dim)}. "
        "The dot interaction needs them equal; --interaction cross does not.",
    )
    for name in ("projection_branch1_dims", "projection_branch2_dims"):
        last = getattr(config, name)[-1]
        require(
            config.interaction != "projection" or last % dims[0] == 0,
            f"--{name} ends with {last}, --embedding_dim is {dims[0]}. The last width is a multiple of embedding_dim.",
        )
    require(config.top_mlp_dims[-1] == 1, f"--top_mlp_dims ends with {config.top_mlp_dims[-1]}; it must be 1.")


def _check_optimizer(config: "TrainConfig") -> None:
    has_fall = config.lr_policy != "torchrec" or config.decay_steps > 0
    require(
        config.lr_policy == "torchrec" or config.decay_steps > 0,
        f"--decay_steps is {config.decay_steps}; it must be at least 1.",
    )
    require(
        not has_fall or config.warmup_steps <= config.decay_start_step,
        f"--warmup_steps {config.warmup_steps} is past --decay_start_step {config.decay_start_step}. "
        "Raise decay_start_step or lower warmup_steps.",
    )
    require(
        not config.momentum or config.optimizer == "sgd",
        f"--momentum {config.momentum} and --optimizer {config.optimizer}: only sgd has a momentum.",
    )
    require(
        config.column_slice_threshold is None or config.optimizer != "rowwise_adagrad",
        f"--column_slice_threshold {config.column_slice_threshold} and --optimizer rowwise_adagrad: this optimizer "
        "keeps one number a row and needs the whole row. Use --row_slice_threshold, or --optimizer adagrad.",
    )


def _check_ops(config: "TrainConfig") -> None:
    op = config.interaction_op
    require(
        config.interaction not in ("cross", "projection") or op == "auto",
        f"--interaction {config.interaction} and --interaction_op {op}: the op is for the dot interaction. Leave it "
        "out.",
    )
    for interaction, contradiction in (("dot_tensorflow", "native"), ("dot_custom_cuda", "tensorflow")):
        require(
            config.interaction != interaction or op != contradiction,
            f"--interaction {interaction} contradicts --interaction_op {contradiction}. Leave one of them out.",
        )
    require(config.amp_dtype is None or config.amp, f"--amp_dtype {config.amp_dtype} needs --amp.")


def _check_data(config: "TrainConfig") -> None:
    require(
        config.dataset_type != "synthetic" or config.shuffle == "none",
        f"--shuffle {config.shuffle} and --dataset_type synthetic: synthetic samples have no order. Leave --shuffle "
        "out.",
    )
    require(
        config.dedup_ids != "on" or config.data_parallel_input,
        "--dedup_ids on needs --data_parallel_input: without it the ranks exchange no ids.",
    )
    require(
        config.mode == "inference" or isinstance(config.valid_batch_size, int),
        f"--valid_batch_size {_text(config.valid_batch_size)}: only --mode inference takes a list. Give one size.",
    )


def _check_checkpoints(config: "TrainConfig") -> None:
    asked = {name: getattr(config, name) for name in ("checkpoint_every", "checkpoint_async", "keep_best")}
    asked["keep_checkpoints"] = config.keep_checkpoints > 1
    for name, is_asked in asked.items():
        require(
            not is_asked or config.save_checkpoint_path is not None,
            f"--{name} needs --save_checkpoint_path: the folder to save in.",
        )
    for name in ("save_checkpoint_path", "checkpoint_every"):
        require(
            not config.elastic or config.mode != "train" or getattr(config, name) is not None,
            f"--elastic needs --{name}: the job resumes from the last checkpoint.",
        )
    require(
        not config.checkpoint_gather or config.save_checkpoint_path or config.restore_checkpoint_path,
        "--checkpoint_gather needs --save_checkpoint_path or --restore_checkpoint_path: the folder on rank 0's host.",
    )
    require(
        not config.checkpoint_gather or not config.elastic or config.mode != "train",
        "--checkpoint_gather and --elastic: the checkpoints lie on the host of rank 0, and an elastic job must resume "
        "when that host is lost. Save on a file system that all hosts share, and leave --checkpoint_gather out.",
    )
    require(
        not config.fresh_optimizer or config.restore_checkpoint_path is not None,
        "--fresh_optimizer needs --restore_checkpoint_path: the checkpoint to take the weights from.",
    )
    require(
        not config.eval_within_epoch or config.eval_every is not None,
        "--eval_within_epoch needs --eval_every: the steps between two evaluations of a pass.",
    )
    for name in ("auc_threshold", "keep_best"):
        require(
            not getattr(config, name) or config.evals_per_epoch or config.eval_every,
            f"--{name} and --evals_per_epoch 0: without evaluations there is no AUC. Leave one of them out.",
        )
    require(
        config.mode in ("train", "plan") or config.restore_checkpoint_path is not None,
        f"--mode {config.mode} needs --restore_checkpoint_path: the checkpoint to use.",
    )


def _check_dynamic(config: "TrainConfig") -> None:
    probability = config.admit_probability
    require(0 < probability <= 1, f"--admit_probability is {probability}; it must be above 0 and at most 1.")
    require(
        probability == 1 or config.admit_after == 1,
        f"--admit_probability {probability} and --admit_after {config.admit_after}: a key is admitted by chance or by "
        "its count. Leave one of them out.",
    )
    require(
        config.admission_counter != "sketch" or config.admit_after <= LARGEST_SKETCH_COUNT,
        f"--admit_after is {config.admit_after}; a sketch counts to {LARGEST_SKETCH_COUNT}. Use --admission_counter "
        "exact.",
    )
    norm = config.evict_below_norm
    require(
        norm is None or 0 < norm < float("inf"),
        f"--evict_below_norm is {norm}; it must be a number above 0. Leave it out to keep all keys.",
    )
    require(
        config.dynamic_capacity is None or config.embedding_op != "tensorflow",
        "--embedding_op tensorflow and --dynamic_capacity: only the native ops have dynamic tables. Leave "
        "--embedding_op out.",
    )
    require(
        (config.hbm_for_embeddings is None) == (config.embeddings_folder is None),
        "--hbm_for_embeddings GIB needs --embeddings_folder DIR for the rows beyond it, and the other way round. Give "
        "both, or leave both out.",
    )
    require(
        not config.caching or config.hbm_for_embeddings is not None,
        "--caching needs --hbm_for_embeddings GIB: the memory of the cache. Give it, or leave --caching out.",
    )
    require(
        not config.caching or config.table_dtype == "float32",
        f"--caching and --table_dtype {config.table_dtype}: the rounding of 16-bit weights depends on the place of a "
        "row, which a cache changes. Leave one of them out.",
    )


def _text(value: object) -> str:
    """A value as it is written on the command line."""
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
