"""The configuration of a run as frozen dataclasses: plain data, validated, to and from JSON. No TensorFlow.

TrainConfig's fields are the trainer's flags (dlrm_tf2/flags.py reads names, types, defaults and help from here).
"""

import dataclasses
import json
from dataclasses import dataclass, field

from criteo_prep.feature_spec import FeatureSpec
from dlrm_tf2.embedding.tables import TableConfig


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
        "tf_raw", "tf_raw reads the dataset; synthetic makes fresh samples of its feature spec's cardinalities",
        ("tf_raw", "synthetic")
    )
    synthetic_dataset_train_batches: int = _flag(64008, "batches of a pass over synthetic training data")
    synthetic_dataset_valid_batches: int = _flag(1350, "batches of the synthetic test data")
    shuffle: str = _flag(
        "none", "order of the training samples, another one each pass: as they stand, permuted within windows of "
        "shuffle_window samples, or in full (reads from all over the files)", ("none", "window", "full")
    )
    shuffle_window: int = _flag(1 << 18, "samples of a window; two windows are in memory")
    drop_last: bool = _flag(False, "do not train on what is left of a pass after its last whole batch")
    batch_size: int = _flag(65536, "global batch size of training; the ranks share it")
    valid_batch_size: int = _flag(65536, "global batch size of evaluation and inference")
    epochs: int | None = _flag(None, "passes over the training data; 1, or as many as max_steps needs")
    max_steps: int = _flag(-1, "stop after this many steps (in eval and inference: batches); -1 is no limit")
    optimizer: str = _flag("sgd", "optimizer of MLPs and tables", ("sgd", "adagrad", "rowwise_adagrad", "adam"))
    momentum: float = _flag(0.0, "momentum of sgd; the tables have none")
    beta1: float = _flag(0.9, "beta1 of adam")
    beta2: float = _flag(0.999, "beta2 of adam")
    learning_rate: float = _flag(24.0, "learning rate after the warm-up")
    warmup_steps: int = _flag(8000, "steps over which the learning rate rises linearly from 0")
    decay_start_step: int = _flag(48000, "step after which the learning rate falls")
    decay_steps: int = _flag(24000, "steps over which it falls to 0, with power 2")
    embedding_dim: int | tuple[int, ...] = _flag(
        128, "width of every embedding table; for the cross interaction also a list of widths, one a table, or the "
        "path of a JSON list"
    )
    bottom_mlp_dims: tuple[int, ...] = _flag((512, 256, 128), "layer widths; for dot the last is embedding_dim")
    top_mlp_dims: tuple[int, ...] = _flag((1024, 1024, 512, 256, 1), "layer widths; the last is 1")
    combiner: str = _flag("sum", "how the vectors of several ids of a sample become one", ("sum", "mean"))
    data_parallel_input: bool = _flag(False, "each rank reads all features of its samples, not those of its tables")
    dedup_ids: str = _flag(
        "auto", "with data_parallel_input: fetch each row once for all samples of a rank; auto does it for features "
        "whose ids repeat much", ("on", "off", "auto")
    )
    dist_strategy: str = _flag(
        "balanced", "how tables are placed: by memory, lookups and traffic together, or one of the published three",
        ("balanced", "basic", "memory_balanced", "memory_optimized")
    )
    column_slice_threshold: int | None = _flag(
        None, "elements (rows * width) above which a table is cut by columns; not given, balanced cuts as balance "
        "needs it, and the others above 5000000000, as published"
    )
    row_slice_threshold: int | None = _flag(
        None, "elements from which on the rows of a table are spread over all ranks; not given, balanced does it to "
        "tables that no cut by columns makes fit, and the others to none"
    )
    data_parallel_threshold: int | None = _flag(
        None, "elements up to which every rank has all of a table; not given, balanced does it where that moves less, "
        "and the others to none"
    )
    cpu_offloading_threshold_gb: float | None = _flag(
        None, "gigabytes (10**9) of tables that a GPU has room for; the largest ones beyond it stay in host memory"
    )
    world_size: int | None = _flag(None, "ranks to plan for (mode plan only); as many as there are when not given")
    num_cross_layers: int = _flag(3, "layers of the cross interaction")
    cross_layer_projection_dim: int = _flag(512, "rank of their matrices; 0 for full matrices")
    interaction: str = _flag(
        "dot", "how vectors meet; the published dot_custom_cuda and dot_tensorflow are dot with the native op (where "
        "there is one) and with TensorFlow's", ("dot", "dot_custom_cuda", "dot_tensorflow", "cross")
    )
    interaction_op: str = _flag(
        "auto", "the op that computes it; auto is native where that is built and serves the device",
        ("auto", "native", "tensorflow")
    )
    amp: bool = _flag(False, "MLPs and interaction in bfloat16 (CPU) or float16 (GPU)")
    loss_scale: float = _flag(65536.0, "static loss scale under amp")
    xla: bool = _flag(False, "compile MLPs and interaction with XLA")
    cpu: bool = _flag(False, "use no GPU")
    seed: int | None = _flag(None, "seed of the initial weights; drawn and logged when not given")
    auc_thresholds: int | None = _flag(None, "bins of NVIDIA's AUC (8000 there); exact AUC when not given")
    evals_per_epoch: int = _flag(1, "evaluations per epoch, equally spaced, the last at the last step; 0 for none")
    print_freq: int = _flag(100, "steps between two lines of the log")
    save_checkpoint_path: str | None = _flag(None, "folder to save the trained model in (mode train only)")
    restore_checkpoint_path: str | None = _flag(None, "folder of a checkpoint to start from")
    log_path: str | None = _flag("dlrm_tf_log.json", "file for the log, one flat JSON object a line")

    def __post_init__(self):
        _require(self.dataset_path is not None, "--dataset_path is missing. Name the folder that holds the dataset.")
        for name in ("batch_size", "valid_batch_size", "num_cross_layers", "print_freq", "decay_steps"):
            _require(getattr(self, name) >= 1, f"--{name} is {getattr(self, name)}; it must be at least 1.")
        for name in ("warmup_steps", "decay_start_step", "evals_per_epoch", "cross_layer_projection_dim"):
            _require(getattr(self, name) >= 0, f"--{name} is {getattr(self, name)}; it must be at least 0.")
        _require(self.max_steps == -1 or self.max_steps >= 1, f"--max_steps is {self.max_steps}; use -1 or at least 1.")
        _require(self.epochs is None or self.epochs >= 1, f"--epochs is {self.epochs}; it must be at least 1.")
        _require(self.seed is None or 0 <= self.seed < 2**63, f"--seed is {self.seed}; it must be from 0 to 2**63 - 1.")
        _require(self.learning_rate > 0, f"--learning_rate is {self.learning_rate}; it must be positive.")
        _require(self.dedup_ids != "on" or self.data_parallel_input,
                 "--dedup_ids on needs --data_parallel_input: without it the ranks exchange no ids.")
        _require(self.loss_scale > 0, f"--loss_scale is {self.loss_scale}; it must be positive.")
        _require(0 <= self.momentum < 1, f"--momentum is {self.momentum}; it must be from 0 to below 1.")
        _require(not self.momentum or self.optimizer == "sgd",
                 f"--momentum {self.momentum} and --optimizer {self.optimizer}: only sgd has a momentum.")
        for name in ("beta1", "beta2"):
            _require(0 < getattr(self, name) < 1, f"--{name} is {getattr(self, name)}; it must be between 0 and 1.")
        _require(
            self.warmup_steps <= self.decay_start_step,
            f"--warmup_steps {self.warmup_steps} is past --decay_start_step {self.decay_start_step}. "
            "Raise decay_start_step or lower warmup_steps.",
        )
        _require(self.auc_thresholds is None or self.auc_thresholds >= 2,
                 f"--auc_thresholds is {self.auc_thresholds}; it must be at least 2, or not given for the exact AUC.")
        for name, least in (("column_slice_threshold", 1), ("row_slice_threshold", 1), ("data_parallel_threshold", 0),
                            ("cpu_offloading_threshold_gb", 0), ("world_size", 1)):
            value = getattr(self, name)
            _require(value is None or value >= least, f"--{name} is {value}; it must be at least {least}.")
        _require(self.column_slice_threshold is None or self.optimizer != "rowwise_adagrad",
                 f"--column_slice_threshold {self.column_slice_threshold} and --optimizer rowwise_adagrad: it keeps "
                 "one number a row and needs the whole row. Use --row_slice_threshold, or --optimizer adagrad.")
        for name in ("bottom_mlp_dims", "top_mlp_dims"):
            dims = getattr(self, name)
            _require(bool(dims) and min(dims) >= 1, f"--{name} is {dims}; it needs positive layer widths.")
        dims = self.embedding_dim if isinstance(self.embedding_dim, tuple) else (self.embedding_dim,)
        _require(bool(dims) and min(dims) >= 1, f"--embedding_dim is {self.embedding_dim}; it must be at least 1.")
        _require(self.interaction == "cross" or dims == (self.bottom_mlp_dims[-1],) * len(dims),
                 f"--bottom_mlp_dims ends with {self.bottom_mlp_dims[-1]}, --embedding_dim is {self.embedding_dim}. "
                 "The dot interaction needs them equal; --interaction cross does not.")
        _require(self.interaction != "cross" or self.interaction_op == "auto",
                 f"--interaction cross and --interaction_op {self.interaction_op}: the op is for the dot interaction.")
        _require(self.top_mlp_dims[-1] == 1, f"--top_mlp_dims ends with {self.top_mlp_dims[-1]}; it must be 1.")
        _require(self.interaction != "dot_tensorflow" or self.interaction_op != "native",
                 "--interaction dot_tensorflow contradicts --interaction_op native. Leave one of them out.")
        _require(self.interaction != "dot_custom_cuda" or self.interaction_op != "tensorflow",
                 "--interaction dot_custom_cuda contradicts --interaction_op tensorflow. Leave one of them out.")
        _require(self.dataset_type != "synthetic" or self.shuffle == "none",
                 f"--shuffle {self.shuffle} and --dataset_type synthetic: synthetic samples come in no order. Leave "
                 "--shuffle out.")
        _require(self.mode in ("train", "plan") or self.restore_checkpoint_path is not None,
                 f"--mode {self.mode} needs --restore_checkpoint_path: the checkpoint to use.")

    @property
    def interaction_op_asked(self) -> str:
        """--interaction_op, or what a published spelling of --interaction says about it."""
        return "tensorflow" if self.interaction == "dot_tensorflow" else self.interaction_op

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "TrainConfig":
        values = json.loads(text)
        return cls(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})


@dataclass(frozen=True)
class ModelConfig:
    """The shape of a DLRM: what two runs must agree on to share a checkpoint.

    Attributes:
      features: categorical feature names, in channel order.
      cardinalities: ids of each feature, in the same order.
      num_numerical: numerical columns.
      embedding_dim: width of all tables, or of the widest where they differ.
      bottom_mlp_dims, top_mlp_dims, combiner, num_cross_layers, cross_layer_projection_dim: as the flags.
      embedding_dims: width of each table; empty where all have embedding_dim.
      interaction: "dot" or "cross".
      hotness: ids a sample of each feature, None for any number; empty where all have one.
    """

    features: tuple[str, ...]
    cardinalities: tuple[int, ...]
    num_numerical: int
    embedding_dim: int
    bottom_mlp_dims: tuple[int, ...]
    top_mlp_dims: tuple[int, ...]
    hotness: tuple[int | None, ...] = ()
    combiner: str = "sum"
    embedding_dims: tuple[int, ...] = ()
    interaction: str = "dot"
    num_cross_layers: int = 0
    cross_layer_projection_dim: int = 0

    @classmethod
    def of(cls, config: TrainConfig, spec: FeatureSpec) -> "ModelConfig":
        """The model that `config` asks for on the dataset of `spec`."""
        if not spec.numerical:
            raise ConfigError(f"{spec.path}: the dataset has no numerical features; the bottom MLP needs at least one.")
        hotness = tuple(None if feature.ragged else feature.hotness for feature in spec.categorical)
        dims = config.embedding_dim
        dims = dims if isinstance(dims, tuple) else (dims,) * len(spec.categorical)
        _require(len(dims) == len(spec.categorical),
                 f"--embedding_dim has {len(dims)} widths, the dataset {len(spec.categorical)} categorical features. "
                 "Give one for each, or one for all.")
        cross = config.interaction == "cross"
        return cls(
            features=spec.channels["categorical"],
            cardinalities=tuple(feature.cardinality for feature in spec.categorical),
            num_numerical=len(spec.numerical),
            embedding_dim=max(dims),
            bottom_mlp_dims=config.bottom_mlp_dims,
            top_mlp_dims=config.top_mlp_dims,
            hotness=() if set(hotness) == {1} else hotness,
            combiner=config.combiner,
            embedding_dims=dims if len(set(dims)) > 1 else (),
            interaction="cross" if cross else "dot",
            num_cross_layers=config.num_cross_layers if cross else 0,
            cross_layer_projection_dim=config.cross_layer_projection_dim if cross else 0,
        )

    @property
    def hotness_of(self) -> dict[str, int | None]:
        """Ids a sample, by feature; None for any number."""
        return dict(zip(self.features, self.hotness or (1,) * len(self.features), strict=True))

    @property
    def tables(self) -> tuple[TableConfig, ...]:
        """One table per categorical feature, in channel order."""
        return tuple(
            TableConfig(name, rows, dim, None if self.hotness_of[name] == 1 else self.combiner)
            for name, rows, dim in zip(self.features, self.cardinalities, self.dims, strict=True)
        )

    @property
    def dims(self) -> tuple[int, ...]:
        """Width of each table."""
        return self.embedding_dims or (self.embedding_dim,) * len(self.features)

    @property
    def num_cross_weights(self) -> int:
        """Numbers in the kernels and biases of the cross layers."""
        width, rank = self.interaction_width, self.cross_layer_projection_dim
        return self.num_cross_layers * (width * (2 * rank if rank else width) + width)

    @property
    def interaction_width(self) -> int:
        """Width of the interaction's output, which the top MLP takes in; that of dot is padded to a multiple of 8."""
        if self.interaction == "cross":
            return self.bottom_mlp_dims[-1] + sum(self.dims)
        vectors = len(self.features) + 1
        return -(-(self.embedding_dim + vectors * (vectors - 1) // 2) // 8) * 8

    def document(self) -> dict:
        """As JSON-able data, the form a checkpoint keeps."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    def check_same(self, other: dict, path: str) -> None:
        """Raises ConfigError naming the first thing in which the checkpoint at `path` is another model."""
        shape = [field.name for field in dataclasses.fields(self) if field.default is dataclasses.MISSING]
        plain = type(self)(*(getattr(self, name) for name in shape)).document()
        for name, ours in self.document().items():
            theirs = other.get(name, None if name in shape else plain[name])  # of checkpoints from before the field
            if ours == theirs:
                continue
            if isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
                index = next(i for i, (a, b) in enumerate(zip(ours, theirs, strict=True)) if a != b)
                name, ours, theirs = f"{name}[{index}]", ours[index], theirs[index]
            raise ConfigError(
                f"{path}: the checkpoint's {name} is {theirs!r}, this run's is {ours!r}. "
                "Use the flags and the dataset that it was trained with."
            )


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ConfigError(message)
