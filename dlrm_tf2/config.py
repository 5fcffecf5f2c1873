"""The configuration of a run as a frozen dataclass: plain data, validated. No TensorFlow.

The fields of TrainConfig are the trainer's flags: flags.py reads names, types, defaults, groups and help from them, and
config_checks.py says which values are allowed.
"""

from dataclasses import dataclass, field

from dlrm_tf2.config_checks import ConfigError, check_config, require
from dlrm_tf2.sharding.dynamic_tables import COUNTERS_OF_ADMISSION
from dlrm_tf2.sharding.optimizer_state import DEFAULT_OPTIMIZER, OPTIMIZERS
from dlrm_tf2.sharding.plan_rules import DEFAULT_STRATEGY, STRATEGIES
from dlrm_tf2.sharding.tables import DEFAULT_TABLE_DTYPE, WEIGHT_BYTES

__all__ = ["ConfigError", "TrainConfig", "require"]

# --evict -> the score of the keys (sharding/dynamic_tables.py). The trainer's time is the step: a run that is
# interrupted and resumed then keeps the same keys as one that is not, and so do any numbers of ranks.
EVICTED = {"lru": "step", "lfu": "lfu", "none": "no_eviction"}

# Group -> its title in --help, in the order of --help.
GROUPS = {
    "run": "the run",
    "data": "data",
    "model": "model",
    "embedding": "embedding tables and their placement",
    "dynamic": "dynamic tables: rows for raw keys, which come and go",
    "optimizer": "optimizer and learning rate",
    "precision": "precision and speed",
    "evaluation": "evaluation and inference",
    "checkpoints": "checkpoints",
    "faults": "faults",
    "watching": "watching a run",
}


def _flags_of(group: str):
    """A function that makes the fields of a group."""
    assert group in GROUPS

    def flag(default: object, help: str, *, choices: tuple[str, ...] | None = None, least: float | None = None):
        """A field that is a flag.

        Args:
          default: value without the flag.
          help: text of --help.
          choices: all allowed values; None where the type decides.
          least: smallest allowed value, of every number where the flag takes a list; None where the checks decide.
        """
        return field(default=default, metadata={"group": group, "help": help, "choices": choices, "least": least})

    return flag


_run = _flags_of("run")
_data = _flags_of("data")
_model = _flags_of("model")
_embedding = _flags_of("embedding")
_dynamic = _flags_of("dynamic")
_optimizer = _flags_of("optimizer")
_precision = _flags_of("precision")
_evaluation = _flags_of("evaluation")
_checkpoints = _flags_of("checkpoints")
_faults = _flags_of("faults")
_watching = _flags_of("watching")


@dataclass(frozen=True)
class TrainConfig:
    """One run of the trainer. A flag that NVIDIA's DLRM has too has its name and its default.

    Raises:
      ConfigError: a value is out of range, or two values contradict each other.
    """

    mode: str = _run(
        "train",
        "train; eval: score a split; inference: measure latencies; plan: print where the tables would be",
        choices=("train", "eval", "inference", "plan"),
    )
    epochs: int | None = _run(
        None, "passes over the training data; not given, 1 pass, or as many passes as --max_steps needs", least=1
    )
    max_steps: int = _run(
        -1,
        "most steps of this run; -1 for no limit. A resumed run counts its steps before the interruption too, and a "
        "run with --restore_checkpoint_path counts its own steps only. In eval and inference: most batches; there -1 "
        "means all batches in eval and 1000 in inference",
    )
    seed: int | None = _run(
        None,
        "seed of the initial weights and of the order of the samples; not given, it is drawn and logged. A restored "
        "or resumed run keeps the order of its checkpoint",
    )
    cpu: bool = _run(False, "use no GPU")
    inter_op_parallelism: int | None = _run(
        None, "operations that TensorFlow runs at the same time on a CPU; not given, 2", least=1
    )
    intra_op_parallelism: int | None = _run(
        None, "threads of one operation on a CPU; not given, the cores of the machine divided by its ranks", least=1
    )

    dataset_path: str | None = _data(None, "folder of the dataset")
    feature_spec: str = _data("feature_spec.yaml", "file name of the feature spec inside --dataset_path")
    dataset_type: str = _data(
        "tf_raw",
        "tf_raw: read the files of the dataset, in the layout that its feature spec names: tf_raw, record_binary or "
        "criteo_npy; synthetic: make samples from the cardinalities in the feature spec",
        choices=("tf_raw", "synthetic"),
    )
    synthetic_dataset_train_batches: int = _data(64008, "training batches in a pass over synthetic data", least=1)
    synthetic_dataset_valid_batches: int = _data(1350, "evaluation batches of synthetic data", least=1)
    batch_size: int = _data(65536, "samples of a training step, all ranks together", least=1)
    shuffle: str = _data(
        "none",
        "order of the training samples. none: as in the files; window: each pass permutes windows of --shuffle_window "
        "samples; full: each pass permutes all samples, with random reads in all files",
        choices=("none", "window", "full"),
    )
    shuffle_window: int = _data(1 << 18, "samples of a window of --shuffle window; memory holds two windows", least=1)
    drop_last: bool = _data(False, "leave out the samples of a pass after its last whole batch")

    interaction: str = _model(
        "dot",
        "how a model combines its vectors. dot: products of all pairs (DLRM); cross: cross layers (DCNv2); projection: "
        "the product of two matrices, each made of all vectors by an MLP (TorchRec); "
        "dot_custom_cuda and dot_tensorflow are published names of dot with the native op and with TensorFlow's ops",
        choices=("dot", "dot_custom_cuda", "dot_tensorflow", "cross", "projection"),
    )
    bottom_mlp_dims: tuple[int, ...] = _model(
        (512, 256, 128),
        "layer widths of the bottom MLP; with the dot interaction the last width is --embedding_dim",
        least=1,
    )
    top_mlp_dims: tuple[int, ...] = _model(
        (1024, 1024, 512, 256, 1), "layer widths of the top MLP; the last width is 1", least=1
    )
    mlp_init: str = _model(
        "glorot",
        "first values of the MLPs. glorot: NVIDIA's, Glorot normal with normal biases; linear: PyTorch's and so "
        "TorchRec's, uniform in +-sqrt(1 / inputs)",
        choices=("glorot", "linear"),
    )
    num_cross_layers: int = _model(3, "layers of the cross interaction", least=1)
    cross_layer_projection_dim: int = _model(
        512, "rank of the weight matrices in the cross layers; 0 for full matrices", least=0
    )
    projection_branch1_dims: tuple[int, ...] = _model(
        (2048, 2048),
        "layer widths of the MLP that makes the first matrix of --interaction projection; the last width is a multiple "
        "of --embedding_dim",
        least=1,
    )
    projection_branch2_dims: tuple[int, ...] = _model(
        (2048, 2048), "layer widths of the MLP that makes the second matrix, likewise", least=1
    )

    embedding_dim: int | tuple[int, ...] = _embedding(
        128,
        "width of the embedding tables. With the cross interaction also one width for each table: a list, or the path "
        "of a JSON file with a list",
        least=1,
    )
    combiner: str = _embedding(
        "sum", "how several ids of one feature in one sample become one vector", choices=("sum", "mean")
    )
    table_dtype: str = _embedding(
        DEFAULT_TABLE_DTYPE,
        "type of the tables' weights. bfloat16: half the memory; updated weights are rounded up or down at random, so "
        "that their mean is right. The optimizer's state stays float32",
        choices=tuple(WEIGHT_BYTES),
    )
    data_parallel_input: bool = _embedding(
        False, "each rank reads all features of its samples; without it, all samples of the features of its tables"
    )
    dedup_ids: str = _embedding(
        "auto",
        "with --data_parallel_input: fetch each row once for all samples of a rank. auto: for features whose ids "
        "repeat so often that this saves more time on the network than it costs",
        choices=("on", "off", "auto"),
    )
    network_gbit: float | None = _embedding(
        None,
        "gigabits a second from one host to others, by which --dedup_ids auto decides on a CPU; not given, it is "
        "measured when the job starts, and ranks on one host have no network",
        least=0.001,
    )
    pipeline: str = _embedding(
        "on",
        "with --data_parallel_input, in training and eval: the ids of the next batch travel while a batch is computed; "
        "off: each step waits for its ids",
        choices=("on", "off"),
    )
    dist_strategy: str = _embedding(
        DEFAULT_STRATEGY,
        "how tables are placed on the ranks. balanced: by memory, lookups and traffic together; the others are the "
        "published strategies",
        choices=STRATEGIES,
    )
    column_slice_threshold: int | None = _embedding(
        None,
        "cut tables with more elements (rows * width) than this by columns. Not given, balanced cuts where the balance "
        "needs it, and the published strategies cut above 5000000000 elements",
        least=1,
    )
    row_slice_threshold: int | None = _embedding(
        None,
        "spread the rows of tables with at least this many elements (rows * width) over all ranks. Not given, balanced "
        "spreads tables that fit in no other way, and the published strategies spread none",
        least=1,
    )
    data_parallel_threshold: int | None = _embedding(
        None,
        "copy tables with at most this many elements (rows * width) to every rank. Not given, balanced copies where "
        "that moves fewer bytes, and the published strategies copy none",
        least=0,
    )
    cpu_offloading_threshold_gb: float | None = _embedding(
        None, "gigabytes (10**9 bytes) of tables on each GPU; larger tables beyond it stay in host memory", least=0
    )
    world_size: int | None = _embedding(
        None, "ranks that --mode plan plans for; not given, the ranks that were started", least=1
    )

    dynamic_capacity: int | tuple[int, ...] | None = _dynamic(
        None,
        "keys that the dynamic table of a feature with raw keys has room for: one number, or one for each such feature",
        least=1,
    )
    evict: str = _dynamic(
        "lru",
        "which key of a full table leaves for a new one. lru: the key whose last step is the oldest; lfu: the key "
        "with the fewest uses; none: no key leaves, and a new one finds no room",
        choices=tuple(EVICTED),
    )
    admit_after: int = _dynamic(
        1, "a key is stored in the step in which it occurs for this time; until then it has a vector of zeros", least=1
    )
    admission_counter: str = _dynamic(
        "exact",
        "how --admit_after counts. exact: as many keys as the table has room for, the rarest are forgotten; sketch: "
        "all keys in bounded memory, some too high",
        choices=COUNTERS_OF_ADMISSION,
    )
    admit_probability: float = _dynamic(1.0, "a key that is not stored is stored in a step with this probability")
    expire_after_steps: int | None = _dynamic(
        None, "a key leaves when no batch had it for this many steps, or up to 1/16 more; not given, never", least=1
    )
    evict_below_norm: float | None = _dynamic(
        None,
        "a key leaves whose weights have an L2 norm below this, at the steps of --checkpoint_every and the last step, "
        "before the evaluation and the checkpoint of this step; not given, never",
    )
    safe_check: str = _dynamic(
        "error",
        "what happens when a key finds no room, as where a batch has more keys than the table has rows. error: the run "
        "ends; warn: one warning for each table; count: a number in the log",
        choices=("error", "warn", "count"),
    )
    hbm_for_embeddings: float | None = _dynamic(
        None,
        "GiB of memory on each rank for the rows of dynamic tables (published name; here it is the memory of the CPU). "
        "The other rows are in a file in --embeddings_folder, which ends with the run. Not given, all are in memory",
        least=0,
    )
    embeddings_folder: str | None = _dynamic(
        None, "folder on a local disk for the rows of dynamic tables that --hbm_for_embeddings leaves out of memory"
    )
    caching: bool = _dynamic(
        False,
        "the memory of --hbm_for_embeddings is a cache: rows that batches name move into it, and the coldest leave. "
        "Without it, it holds the first rows for ever",
    )

    optimizer: str = _optimizer(DEFAULT_OPTIMIZER, "optimizer of the MLPs and the tables", choices=tuple(OPTIMIZERS))
    momentum: float = _optimizer(0.0, "momentum of sgd in the MLPs; tables have no momentum")
    beta1: float = _optimizer(0.9, "decay rate of the first moment in adam (published name: beta1)")
    beta2: float = _optimizer(0.999, "decay rate of the second moment in adam (published name: beta2)")
    epsilon: float = _optimizer(1e-8, "constant next to the square roots of adagrad, rowwise_adagrad and adam")
    learning_rate: float = _optimizer(24.0, "learning rate after the warm-up")
    lr_policy: str = _optimizer(
        "nvidia",
        "how the next three flags shape the learning rate. nvidia: a rise, a plateau, a fall to 0; published: the same "
        "rates one step later, as in the published programs, whose first step has rate 0; torchrec: as in TorchRec's "
        "example, which keeps the last rate of its warm-up until the fall, and the last rate of the fall",
        choices=("nvidia", "published", "torchrec"),
    )
    warmup_steps: int = _optimizer(8000, "steps in which the learning rate rises linearly from 0", least=0)
    decay_start_step: int = _optimizer(48000, "step after which the learning rate falls", least=0)
    decay_steps: int = _optimizer(
        24000,
        "steps in which the learning rate falls to 0, as a square; with --lr_policy torchrec also 0 for no fall",
        least=0,
    )
    sok_gradients: bool = _optimizer(
        False,
        "the gradients of the tables are world_size times larger, as in the published SOK benchmark: gradients of the "
        "sum of the ranks' mean losses, not of the mean over the global batch",
    )

    amp: bool = _precision(False, "automatic mixed precision: MLPs and interaction in 16 bits, weights in 32 bits")
    amp_dtype: str | None = _precision(
        None,
        "the 16-bit type of --amp; not given, bfloat16 on a CPU and float16 on a GPU",
        choices=("float16", "bfloat16"),
    )
    loss_scale: float = _precision(
        65536.0, "factor of the loss in float16, so that small gradients do not become 0; at the start, where dynamic"
    )
    loss_scaling: str = _precision(
        "static",
        "static: --loss_scale stays; dynamic: a gradient that overflows halves it, and 2000 steps without an overflow "
        "double it. A step with an overflow is skipped either way",
        choices=("static", "dynamic"),
    )
    xla: bool = _precision(False, "compile MLPs and interaction with XLA, TensorFlow's compiler")
    interaction_op: str = _precision(
        "auto",
        "implementation of the dot interaction. auto: native where it is built and serves the device",
        choices=("auto", "native", "tensorflow"),
    )
    embedding_op: str = _precision(
        "auto",
        "implementation of lookups in the tables and of their updates. auto: native where every rank has it",
        choices=("auto", "native", "tensorflow"),
    )

    valid_batch_size: int | tuple[int, ...] = _evaluation(
        65536,
        "samples of an evaluation or inference batch, all ranks together; in inference also a list of sizes, each "
        "measured on its own",
        least=1,
    )
    evals_per_epoch: int = _evaluation(
        1, "evaluations in a pass, equally spaced, the last after the last step; 0 for none", least=0
    )
    eval_every: int | None = _evaluation(
        None, "steps between two evaluations, in place of --evals_per_epoch; one more follows the last step", least=1
    )
    eval_within_epoch: bool = _evaluation(
        False, "count the steps of --eval_every from the start of each pass, and evaluate after each pass too"
    )
    eval_split: str = _evaluation("test", "split that evaluations and inference score", choices=("test", "validation"))
    final_split: str | None = _evaluation(
        None, "split that a training scores once more, after its last step", choices=("test", "validation")
    )
    auc_thresholds: int | None = _evaluation(
        None, "thresholds of an approximate AUC (8000 in the published program); not given, the AUC is exact", least=2
    )
    auc_threshold: float | None = _evaluation(None, "stop training when an evaluation reaches this AUC")
    predictions_path: str | None = _evaluation(
        None, "Parquet file for the scores of eval and inference: row, score (probability of a click), label"
    )

    save_checkpoint_path: str | None = _checkpoints(
        None, "folder for the checkpoints of a training, the last of which is the trained model"
    )
    checkpoint_every: int | None = _checkpoints(
        None, "steps between two checkpoints in --save_checkpoint_path; not given, one after the last step", least=1
    )
    checkpoint_async: bool = _checkpoints(
        False, "write checkpoints while training continues; needs memory for a copy of the tables"
    )
    checkpoint_gather: bool = _checkpoints(
        False,
        "checkpoints may lie on the disk of rank 0's host alone: rank 0 writes and reads them for the ranks that do "
        "not see it. Without the flag, the hosts must share a file system",
    )
    keep_checkpoints: int = _checkpoints(
        1,
        "checkpoints to keep: the newest is --save_checkpoint_path, older ones are next to it as NAME.step-N",
        least=1,
    )
    keep_best: bool = _checkpoints(
        False, "keep also the checkpoint of the best AUC, next to --save_checkpoint_path as NAME.best"
    )
    restore_checkpoint_path: str | None = _checkpoints(None, "folder of a checkpoint to start from")
    fresh_optimizer: bool = _checkpoints(
        False, "restore the weights of --restore_checkpoint_path only; the state of the optimizer begins at 0"
    )

    resume: str = _faults(
        "auto",
        "auto: resume the unfinished run whose checkpoint is in --save_checkpoint_path; off: begin a new run",
        choices=("auto", "off"),
    )
    stall_timeout_s: float = _faults(
        600.0, "seconds without progress after which a job ends itself; 0 for never", least=0
    )
    elastic: bool = _faults(
        False,
        "a rank of an elastic job, which resumes by itself when ranks or hosts are lost and when they come back. "
        "`python -m dlrm_tf2.elastic` starts such a job, and gives this flag",
    )

    log_path: str | None = _watching(
        "dlrm_tf_log.json",
        "file for the log: one flat JSON object a line; a run appends to it. Not given, eval and inference write "
        "dlrm_tf_log.eval.json and dlrm_tf_log.inference.json",
    )
    print_freq: int = _watching(100, "steps between two lines of the log", least=1)
    mllog: str | None = _watching(
        None, "new file for a training's log in the format of MLPerf; needs the package mlperf-logging"
    )
    tensorboard: str | None = _watching(
        None, "folder for TensorBoard, which then shows loss, AUC, learning rate and speed"
    )
    profiler_start_step: int | None = _watching(None, "first of 100 steps to profile; not given, none", least=1)
    profiled_rank: int = _watching(0, "rank to profile", least=0)
    profiler_path: str = _watching("logdir", "folder for the profile, which TensorBoard shows")

    def __post_init__(self):
        check_config(self)

    @property
    def valid_batch_sizes(self) -> tuple[int, ...]:
        """--valid_batch_size as a list."""
        return self.valid_batch_size if isinstance(self.valid_batch_size, tuple) else (self.valid_batch_size,)

    @property
    def log_file(self) -> str | None:
        """--log_path. Its default has another name in each mode, so that each run has a log of its own."""
        if self.log_path != TrainConfig.log_path or self.mode not in ("eval", "inference"):
            return self.log_path
        return f"dlrm_tf_log.{self.mode}.json"

    @property
    def requested_interaction_op(self) -> str:
        """--interaction_op, or the op that a published name of --interaction asks for."""
        return "tensorflow" if self.interaction == "dot_tensorflow" else self.interaction_op
