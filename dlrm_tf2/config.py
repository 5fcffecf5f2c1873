"""The configuration of a run as a frozen dataclass: plain data, validated. No TensorFlow.

TrainConfig's fields are the trainer's flags (dlrm_tf2/flags.py reads names, types, defaults and help from here).
"""

from dataclasses import dataclass, field

from dlrm_tf2.sharding.optimizer_state import DEFAULT_OPTIMIZER, OPTIMIZERS
from dlrm_tf2.sharding.plan_rules import DEFAULT_STRATEGY, STRATEGIES


class ConfigError(ValueError):
    """A flag has a value that it cannot have, or two flags contradict each other."""


def _flag(default: object, help: str, choices: tuple[str, ...] | None = None):
    return field(default=default, metadata={"help": help, "choices": choices})


@dataclass(frozen=True)
class TrainConfig:
    """One run of the trainer. The names and defaults are NVIDIA's, where its DLRM has the flag.

    Raises:
      ConfigError: a value is out of range, or two contradict each other.
    """

    mode: str = _flag("train", "what to do", ("train", "eval", "inference", "plan"))
    dataset_path: str | None = _flag(None, "folder of the dataset")
    feature_spec: str = _flag("feature_spec.yaml", "name of the feature spec inside dataset_path")
    dataset_type: str = _flag(
        "tf_raw",
        "tf_raw reads the dataset; synthetic makes fresh samples of its feature spec's cardinalities",
        ("tf_raw", "synthetic"),
    )
    synthetic_dataset_train_batches: int = _flag(64008, "batches of a pass over synthetic training data")
    synthetic_dataset_valid_batches: int = _flag(1350, "batches of the synthetic test data")
    shuffle: str = _flag(
        "none",
        "order of the training samples, another one each pass: as they stand, permuted within windows of "
        "shuffle_window samples, or in full (reads from all over the files)",
        ("none", "window", "full"),
    )
    shuffle_window: int = _flag(1 << 18, "samples of a window; two windows are in memory")
    drop_last: bool = _flag(False, "do not train on what is left of a pass after its last whole batch")
    batch_size: int = _flag(65536, "global batch size of training; the ranks share it")
    valid_batch_size: int | tuple[int, ...] = _flag(
        65536, "global batch size of evaluation and inference; for inference also a list, each of them measured"
    )
    epochs: int | None = _flag(None, "passes over the training data; 1, or as many as max_steps needs")
    max_steps: int = _flag(
        -1, "stop after this many steps (in eval and inference: batches); -1 is no limit, in inference 1000"
    )
    optimizer: str = _flag(DEFAULT_OPTIMIZER, "optimizer of MLPs and tables", tuple(OPTIMIZERS))
    momentum: float = _flag(0.0, "momentum of sgd; the tables have none")
    beta1: float = _flag(0.9, "beta1 of adam")
    beta2: float = _flag(0.999, "beta2 of adam")
    learning_rate: float = _flag(24.0, "learning rate after the warm-up")
    warmup_steps: int = _flag(8000, "steps over which the learning rate rises linearly from 0")
    decay_start_step: int = _flag(48000, "step after which the learning rate falls")
    decay_steps: int = _flag(24000, "steps over which it falls to 0, with power 2")
    embedding_dim: int | tuple[int, ...] = _flag(
        128,
        "width of every embedding table; for the cross interaction also a list of widths, one a table, or the "
        "path of a JSON list",
    )
    bottom_mlp_dims: tuple[int, ...] = _flag((512, 256, 128), "layer widths; for dot the last is embedding_dim")
    top_mlp_dims: tuple[int, ...] = _flag((1024, 1024, 512, 256, 1), "layer widths; the last is 1")
    combiner: str = _flag("sum", "how the vectors of several ids of a sample become one", ("sum", "mean"))
    data_parallel_input: bool = _flag(False, "each rank reads all features of its samples, not those of its tables")
    dedup_ids: str = _flag(
        "auto",
        "with data_parallel_input: fetch each row once for all samples of a rank; auto does it for features "
        "whose ids repeat much",
        ("on", "off", "auto"),
    )
    dist_strategy: str = _flag(
        DEFAULT_STRATEGY,
        "how tables are placed: by memory, lookups and traffic together, or one of the published three",
        STRATEGIES,
    )
    column_slice_threshold: int | None = _flag(
        None,
        "elements (rows * width) above which a table is cut by columns; not given, balanced cuts as balance "
        "needs it, and the others above 5000000000, as published",
    )
    row_slice_threshold: int | None = _flag(
        None,
        "elements from which on the rows of a table are spread over all ranks; not given, balanced does it to "
        "tables that no cut by columns makes fit, and the others to none",
    )
    data_parallel_threshold: int | None = _flag(
        None,
        "elements up to which every rank has all of a table; not given, balanced does it where that moves less, "
        "and the others to none",
    )
    cpu_offloading_threshold_gb: float | None = _flag(
        None, "gigabytes (10**9) of tables that a GPU has room for; the largest ones beyond it stay in host memory"
    )
    world_size: int | None = _flag(None, "ranks to plan for (mode plan only); as many as there are when not given")
    num_cross_layers: int = _flag(3, "layers of the cross interaction")
    cross_layer_projection_dim: int = _flag(512, "rank of their matrices; 0 for full matrices")
    interaction: str = _flag(
        "dot",
        "how vectors meet; the published dot_custom_cuda and dot_tensorflow are dot with the native op (where "
        "there is one) and with TensorFlow's",
        ("dot", "dot_custom_cuda", "dot_tensorflow", "cross"),
    )
    interaction_op: str = _flag(
        "auto",
        "the op that computes it; auto is native where that is built and serves the device",
        ("auto", "native", "tensorflow"),
    )
    amp: bool = _flag(False, "MLPs and interaction in 16 bits")
    amp_dtype: str | None = _flag(
        None, "their type under amp; bfloat16 on a CPU and float16 on a GPU when not given", ("float16", "bfloat16")
    )
    loss_scale: float = _flag(65536.0, "factor of the loss in float16, so that small gradients are not lost")
    loss_scaling: str = _flag(
        "static",
        "dynamic halves the factor when a gradient overflows, and doubles it after 2000 steps without; a "
        "step that overflows is skipped either way",
        ("static", "dynamic"),
    )
    xla: bool = _flag(False, "compile MLPs and interaction with XLA")
    cpu: bool = _flag(False, "use no GPU")
    seed: int | None = _flag(
        None,
        "seed of the initial weights and of the samples' order; drawn and logged when not "
        "given. A checkpoint's data keeps its own",
    )
    auc_thresholds: int | None = _flag(None, "bins of NVIDIA's AUC (8000 there); exact AUC when not given")
    evals_per_epoch: int = _flag(1, "evaluations per epoch, equally spaced, the last at the last step; 0 for none")
    eval_every: int | None = _flag(
        None, "steps between two evaluations, in place of evals_per_epoch; another follows the last step"
    )
    auc_threshold: float | None = _flag(None, "stop when an evaluation reaches this AUC")
    print_freq: int = _flag(100, "steps between two lines of the log")
    save_checkpoint_path: str | None = _flag(None, "folder to save the trained model in (mode train only)")
    checkpoint_every: int | None = _flag(None, "steps between two checkpoints in save_checkpoint_path")
    checkpoint_async: bool = _flag(False, "write them while training goes on; takes the memory of a copy of the tables")
    keep_checkpoints: int = _flag(
        1, "how many to keep: the last in save_checkpoint_path, those before it beside it, as NAME.step-N"
    )
    keep_best: bool = _flag(False, "keep the checkpoint of the best evaluation too, beside it as NAME.best")
    resume: str = _flag(
        "auto",
        "auto goes on with the unfinished run whose checkpoint is in save_checkpoint_path; off starts anew",
        ("auto", "off"),
    )
    restore_checkpoint_path: str | None = _flag(None, "folder of a checkpoint to start from")
    predictions_path: str | None = _flag(
        None, "Parquet file for the scores of eval and inference: row, score (the click's probability), label"
    )
    stall_timeout_s: float = _flag(600.0, "seconds without progress after which a job ends itself; 0 for never")
    inter_op_parallelism: int | None = _flag(None, "operations that TensorFlow runs at a time on a CPU")
    intra_op_parallelism: int | None = _flag(
        None, "threads of an operation; this rank's share of the cores when not given"
    )
    profiler_start_step: int | None = _flag(None, "profile 100 steps from this one on")
    profiled_rank: int = _flag(0, "the rank that is profiled")
    profiler_path: str = _flag("logdir", "folder for the profile, which TensorBoard shows")
    tensorboard: str | None = _flag(None, "folder for loss, AUC, learning rate and speed as TensorBoard scalars")
    log_path: str | None = _flag("dlrm_tf_log.json", "file for the log, one flat JSON object a line")

    def __post_init__(self):
        require(self.dataset_path is not None, "--dataset_path is missing. Name the folder that holds the dataset.")
        self._check_ranges()
        self._check_shape()
        self._check_contradictions()

    def _check_ranges(self) -> None:
        for name, least in _LEAST.items():
            value = getattr(self, name)
            value = min(value, default=0) if isinstance(value, tuple) else value
            require(
                value is None or value >= least,
                f"--{name} is {_text(getattr(self, name))}; it must be at least {least}.",
            )
        require(self.max_steps == -1 or self.max_steps >= 1, f"--max_steps is {self.max_steps}; use -1 or at least 1.")
        require(self.seed is None or 0 <= self.seed < 2**63, f"--seed is {self.seed}; it must be from 0 to 2**63 - 1.")
        for name in ("learning_rate", "loss_scale"):
            require(getattr(self, name) > 0, f"--{name} is {getattr(self, name)}; it must be positive.")
        require(0 <= self.momentum < 1, f"--momentum is {self.momentum}; it must be from 0 to below 1.")
        for name in ("beta1", "beta2", "auc_threshold"):
            value = getattr(self, name)
            require(value is None or 0 < value < 1, f"--{name} is {value}; it must be between 0 and 1.")
        require(
            self.auc_thresholds is None or self.auc_thresholds >= 2,
            f"--auc_thresholds is {self.auc_thresholds}; it must be at least 2, or not given for the exact AUC.",
        )

    def _check_shape(self) -> None:
        dims = self.embedding_dim if isinstance(self.embedding_dim, tuple) else (self.embedding_dim,)
        require(
            self.interaction == "cross" or dims == (self.bottom_mlp_dims[-1],) * len(dims),
            f"--bottom_mlp_dims ends with {self.bottom_mlp_dims[-1]}, --embedding_dim is "
            f"{_text(self.embedding_dim)}. The dot interaction needs them equal; --interaction cross does not.",
        )
        require(self.top_mlp_dims[-1] == 1, f"--top_mlp_dims ends with {self.top_mlp_dims[-1]}; it must be 1.")

    def _check_contradictions(self) -> None:
        require(
            self.warmup_steps <= self.decay_start_step,
            f"--warmup_steps {self.warmup_steps} is past --decay_start_step {self.decay_start_step}. "
            "Raise decay_start_step or lower warmup_steps.",
        )
        require(
            not self.momentum or self.optimizer == "sgd",
            f"--momentum {self.momentum} and --optimizer {self.optimizer}: only sgd has a momentum.",
        )
        require(
            self.dedup_ids != "on" or self.data_parallel_input,
            "--dedup_ids on needs --data_parallel_input: without it the ranks exchange no ids.",
        )
        require(
            self.column_slice_threshold is None or self.optimizer != "rowwise_adagrad",
            f"--column_slice_threshold {self.column_slice_threshold} and --optimizer rowwise_adagrad: it keeps "
            "one number a row and needs the whole row. Use --row_slice_threshold, or --optimizer adagrad.",
        )
        require(
            self.interaction != "cross" or self.interaction_op == "auto",
            f"--interaction cross and --interaction_op {self.interaction_op}: the op is for the dot interaction.",
        )
        require(
            self.interaction != "dot_tensorflow" or self.interaction_op != "native",
            "--interaction dot_tensorflow contradicts --interaction_op native. Leave one of them out.",
        )
        require(
            self.interaction != "dot_custom_cuda" or self.interaction_op != "tensorflow",
            "--interaction dot_custom_cuda contradicts --interaction_op tensorflow. Leave one of them out.",
        )
        require(
            self.dataset_type != "synthetic" or self.shuffle == "none",
            f"--shuffle {self.shuffle} and --dataset_type synthetic: synthetic samples come in no order. Leave "
            "--shuffle out.",
        )
        require(self.amp_dtype is None or self.amp, f"--amp_dtype {self.amp_dtype} needs --amp.")
        require(
            self.mode == "inference" or isinstance(self.valid_batch_size, int),
            f"--valid_batch_size {_text(self.valid_batch_size)}: only --mode inference takes a list. Give one.",
        )
        for name in ("checkpoint_every", "checkpoint_async", "keep_best"):
            require(
                not getattr(self, name) or self.save_checkpoint_path is not None,
                f"--{name} needs --save_checkpoint_path: the folder to save in.",
            )
        require(
            self.keep_checkpoints == 1 or self.save_checkpoint_path is not None,
            f"--keep_checkpoints {self.keep_checkpoints} needs --save_checkpoint_path: the folder to save in.",
        )
        evaluates = self.evals_per_epoch or self.eval_every
        for name in ("auc_threshold", "keep_best"):
            require(
                not getattr(self, name) or evaluates,
                f"--{name} and --evals_per_epoch 0: without evaluations there is no AUC. Leave one of them out.",
            )
        require(
            self.mode in ("train", "plan") or self.restore_checkpoint_path is not None,
            f"--mode {self.mode} needs --restore_checkpoint_path: the checkpoint to use.",
        )

    @property
    def valid_batch_sizes(self) -> tuple[int, ...]:
        """--valid_batch_size as a list."""
        return self.valid_batch_size if isinstance(self.valid_batch_size, tuple) else (self.valid_batch_size,)

    @property
    def interaction_op_asked(self) -> str:
        """--interaction_op, or what a published spelling of --interaction says about it."""
        return "tensorflow" if self.interaction == "dot_tensorflow" else self.interaction_op


# The least value of the flags that have one; of every number of a list.
_LEAST = {
    **dict.fromkeys(
        (
            "batch_size",
            "valid_batch_size",
            "num_cross_layers",
            "print_freq",
            "decay_steps",
            "epochs",
            "column_slice_threshold",
            "row_slice_threshold",
            "world_size",
            "bottom_mlp_dims",
            "top_mlp_dims",
            "embedding_dim",
            "shuffle_window",
            "synthetic_dataset_train_batches",
            "synthetic_dataset_valid_batches",
            "eval_every",
            "checkpoint_every",
            "keep_checkpoints",
            "inter_op_parallelism",
            "intra_op_parallelism",
            "profiler_start_step",
        ),
        1,
    ),
    **dict.fromkeys(
        (
            "warmup_steps",
            "decay_start_step",
            "evals_per_epoch",
            "cross_layer_projection_dim",
            "data_parallel_threshold",
            "cpu_offloading_threshold_gb",
            "profiled_rank",
            "stall_timeout_s",
        ),
        0,
    ),
}


def _text(value: object) -> str:
    """A value as it is written on the command line."""
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def require(condition: bool, message: str) -> None:
    """Raises ConfigError unless the condition holds."""
    if not condition:
        raise ConfigError(message)
