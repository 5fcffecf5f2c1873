"""The command line: published names and defaults, no silent acceptance."""

import dataclasses
import re

import pytest

from dlrm_tf2 import dcnv2
from dlrm_tf2.config import GROUPS, ConfigError, TrainConfig
from dlrm_tf2.flags import NOT_SUPPORTED, parse

DATASET = ["--dataset_path", "data"]

# Source: NVIDIA's dlrm.py and main.py, except auc_thresholds (8000 there), where the exact AUC is the default here.
PUBLISHED_DEFAULTS = {
    "mode": "train",
    "batch_size": 65536,
    "valid_batch_size": 65536,
    "top_mlp_dims": (1024, 1024, 512, 256, 1),
    "bottom_mlp_dims": (512, 256, 128),
    "embedding_dim": 128,
    "optimizer": "sgd",
    "learning_rate": 24.0,
    "warmup_steps": 8000,
    "decay_start_step": 48000,
    "decay_steps": 24000,
    "amp": False,
    "xla": False,
    "cpu": False,
    "loss_scale": 65536.0,
    "seed": None,
    "max_steps": -1,
    "evals_per_epoch": 1,
    "print_freq": 100,
    "save_checkpoint_path": None,
    "restore_checkpoint_path": None,
    "log_path": "dlrm_tf_log.json",
    "feature_spec": "feature_spec.yaml",
}


def parsed(*arguments):
    return parse([*DATASET, *arguments], "dlrm")


def test_published_defaults():
    config = dataclasses.asdict(parsed())
    assert {name: config[name] for name in PUBLISHED_DEFAULTS} == PUBLISHED_DEFAULTS


def test_every_field_is_a_flag_and_every_flag_reaches_its_field():
    values = {
        "mode": "inference", "dataset_path": "d", "feature_spec": "f.yaml", "batch_size": 3, "valid_batch_size": 4,
        "epochs": 5, "max_steps": 6, "optimizer": "adam", "beta1": 0.8, "beta2": 0.7, "learning_rate": 0.5,
        "warmup_steps": 7, "eval_split": "validation",
        "decay_start_step": 8, "decay_steps": 9, "embedding_dim": 16, "bottom_mlp_dims": (4, 16),
        "top_mlp_dims": (5, 1), "amp": True, "loss_scale": 2.0, "xla": True, "cpu": True, "seed": 11,
        "auc_thresholds": 12, "evals_per_epoch": 13, "print_freq": 14, "save_checkpoint_path": "s",
        "combiner": "mean", "table_dtype": "bfloat16", "momentum": 0.0,
        "data_parallel_input": True, "dedup_ids": "on", "network_gbit": 9.5, "pipeline": "off",
        "num_cross_layers": 2, "cross_layer_projection_dim": 31, "projection_branch1_dims": (3, 32),
        "mlp_init": "linear",
        "projection_branch2_dims": (16,), "epsilon": 0.25, "lr_policy": "torchrec", "eval_within_epoch": True,
        "final_split": "test", "mllog": "m",
        "dist_strategy": "basic", "column_slice_threshold": 20, "row_slice_threshold": 21,
        "data_parallel_threshold": 0, "cpu_offloading_threshold_gb": 1.5, "world_size": 22,
        "dataset_type": "tf_raw", "synthetic_dataset_train_batches": 23, "synthetic_dataset_valid_batches": 24,
        "shuffle": "window", "shuffle_window": 25, "drop_last": True,
        "sok_gradients": True,
        "restore_checkpoint_path": "r", "amp_dtype": "float16", "loss_scaling": "dynamic", "eval_every": 26,
        "auc_threshold": 0.75, "checkpoint_every": 27, "checkpoint_async": True, "keep_checkpoints": 28,
        "checkpoint_gather": True,
        "keep_best": True, "fresh_optimizer": True, "resume": "off", "predictions_path": "p", "stall_timeout_s": 29.5,
        "elastic": True,
        "inter_op_parallelism": 30, "intra_op_parallelism": 31, "profiler_start_step": 32, "profiled_rank": 33,
        "profiler_path": "q", "tensorboard": "t", "log_path": "l",
        "interaction": "dot_custom_cuda", "interaction_op": "native", "embedding_op": "native",
        "dynamic_capacity": (34, 35), "evict": "lfu", "admit_after": 36, "admission_counter": "sketch",
        "admit_probability": 1.0, "expire_after_steps": 37, "evict_below_norm": 38.5, "safe_check": "warn",
        "hbm_for_embeddings": 0.5, "embeddings_folder": "e", "caching": False,
    }  # fmt: skip
    assert set(values) == {field.name for field in dataclasses.fields(TrainConfig)}
    arguments = []
    for name, value in values.items():
        text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
        arguments += [f"--{name}"] if value is True else [f"--{name}", text]
    assert parse(arguments, "dlrm") == TrainConfig(**values)


@pytest.mark.parametrize(
    "arguments, amp",
    [(["--amp"], True), (["--amp=true"], True), (["--amp=False"], False), (["--amp", "--noamp"], False), ([], False)],
)
def test_booleans_as_absl_writes_them(arguments, amp):
    assert parsed(*arguments).amp is amp


def test_hyphens_are_underscores():
    hyphens = parsed("--valid-batch-size=7", "--learning-rate", "0.1")
    assert hyphens == parsed("--valid_batch_size", "7", "--learning_rate=0.1")


def test_print_freq_may_be_written_as_a_float():
    assert parsed("--print_freq", "100.0").print_freq == 100


@pytest.mark.parametrize("name", sorted(NOT_SUPPORTED))
def test_published_flags_that_are_not_supported_are_refused_by_name(name):
    with pytest.raises(ConfigError, match=f"--{name} is a flag of the published trainers"):
        parsed(f"--{name}", "1")


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--auc_threshold", "1"], "--auc_threshold is 1.0; it must be between 0 and 1"),
        (["--batch", "3"], "--batch is not a flag"),
        (["--batch_size", "many"], "'many' is not a whole number"),
        (["--batch_size", "1.5"], "'1.5' is not a whole number"),
        (["--batch_size", "0"], "--batch_size is 0; it must be at least 1"),
        (["--max_steps", "0"], "--max_steps is 0"),
        (["--bottom_mlp_dims", "64,x"], "'64,x' is not a list of whole numbers"),
        (["--bottom_mlp_dims", "64,32"], "ends with 32, --embedding_dim is 128"),
        (["--top_mlp_dims", "64,2"], "it must be 1"),
        (["--mode", "deploy"], "invalid choice: 'deploy'"),
        (["--mode", "eval"], "--mode eval needs --restore_checkpoint_path"),
        (["--optimizer", "lamb"], "invalid choice: 'lamb'"),
        (["--warmup_steps", "60000"], "--warmup_steps 60000 is past --decay_start_step 48000"),
        (["--learning_rate", "-1"], "it must be positive"),
        (["--learning_rate", "nan"], "it must be positive"),
        (["--amp=maybe"], "'maybe' is neither true nor false"),
        (["--seed", "-3"], "--seed is -3"),
        (["--column_slice_threshold", "0"], "--column_slice_threshold is 0; it must be at least 1"),
        (["--row_slice_threshold", "-5"], "--row_slice_threshold is -5; it must be at least 1"),
        (["--data_parallel_threshold", "-1"], "--data_parallel_threshold is -1; it must be at least 0"),
        (["--cpu_offloading_threshold_gb", "-1"], "--cpu_offloading_threshold_gb is -1.0; it must be at least 0"),
        (["--dist_strategy", "greedy"], "invalid choice: 'greedy'"),
        (["--optimizer", "rowwise_adagrad", "--column_slice_threshold", "9"], "needs the whole row"),
        (["stray"], "'stray' does not belong to any flag"),
        (["--elastic"], "--elastic needs --save_checkpoint_path: the job resumes from the last checkpoint"),
        (["--elastic", "--save_checkpoint_path", "c"], "--elastic needs --checkpoint_every: the job resumes"),
        (["--stall_timeout_s", "inf"], "--stall_timeout_s is inf; it must be at most 1000000000. Use 0 for never"),
        (["--stall_timeout_s", "1e300"], "--stall_timeout_s is 1e\\+300; it must be at most 1000000000"),
        (["--stall_timeout_s", "nan"], "--stall_timeout_s is nan; it must be at least 0"),
        (["--loss_scale", "inf"], "--loss_scale is inf; it must be at most 3.4e\\+38"),
        (["--learning_rate", "1e39"], "--learning_rate is 1e\\+39; it must be at most 3.4e\\+38"),
        (["--cpu_offloading_threshold_gb", "inf"], "it must be at most 3.4e\\+38. Leave it out for no limit"),
        (["--max_steps", "1e30"], "it must be at most 9223372036854775807"),
        (["--batch_size=-inf"], "'-inf' is not a whole number"),
        (
            ["--embedding_dim", "99999999999999999999", "--interaction", "cross"],
            "it must be at most 9223372036854775807",
        ),
    ],
)
def test_misuse_says_what_is_wrong(arguments, message):
    with pytest.raises(ConfigError, match=message):
        parsed(*arguments)


def test_help_has_every_flag_in_its_group(capsys):
    with pytest.raises(SystemExit):
        parse(["--help"], "dlrm")
    text = capsys.readouterr().out
    found, title = {}, None
    for line in text.splitlines():
        if re.match(r"\w.*:$", line):
            title = line.removesuffix(":")
        elif match := re.match(r"  --(\w+)", line):
            found[match[1]] = title
    assert found == {f.name: GROUPS[f.metadata["group"]] for f in dataclasses.fields(TrainConfig)}
    assert list(dict.fromkeys(found.values())) == list(GROUPS.values())
    assert "None" not in text and "(default: 512,256,128)" in text


def test_help_of_dcnv2_has_its_own_defaults(capsys):
    with pytest.raises(SystemExit):
        parse(["--help"], "dcnv2", dcnv2.DEFAULTS)
    assert re.search(r"usage: dcnv2(.|\n)*--optimizer(.|\n)*?default:\s+adam\)", capsys.readouterr().out)


@pytest.mark.parametrize("name", [f.name for f in dataclasses.fields(TrainConfig) if isinstance(f.default, float)])
def test_no_float_flag_is_infinite_or_nan(name):
    for value in ("inf", "-inf", "nan"):
        with pytest.raises(ConfigError, match=f"--{name} is {value}; it must be"):
            parsed(f"--{name}={value}")


def test_dataset_path_is_needed():
    with pytest.raises(ConfigError, match="--dataset_path is missing"):
        parse([], "dlrm")


def test_the_published_evaluation_command_is_the_training_command_and_two_flags():
    training = ["--amp", "--xla", "--save_checkpoint_path", "/c", "--learning_rate", "1"]
    config = parsed(*training, "--restore_checkpoint_path", "/c", "--mode", "eval")
    assert config.mode == "eval" and config.save_checkpoint_path == "/c"


@pytest.mark.parametrize("text, dims", [("64", 64), ("64,32", (64, 32)), ("{folder}/dims.json", (2, 3))])
def test_embedding_widths(tmp_path, text, dims):
    (tmp_path / "dims.json").write_text("[2, 3]")
    cross = ["--interaction", "cross", "--embedding_dim", text.format(folder=tmp_path)]
    assert parsed(*cross).embedding_dim == dims


def test_dcnv2_has_its_published_defaults():
    config = parse(DATASET, "dcnv2", dcnv2.DEFAULTS)
    assert (config.interaction, config.optimizer) == ("cross", "adam")
    assert (config.learning_rate, config.warmup_steps) == (1e-4, 100)
    assert (config.num_cross_layers, config.cross_layer_projection_dim) == (3, 512)
    assert (config.beta1, config.beta2, config.decay_start_step) == (0.9, 0.999, 48000)
    assert parse([*DATASET, "--optimizer", "sgd"], "dcnv2", dcnv2.DEFAULTS).optimizer == "sgd"


@pytest.mark.parametrize(
    "arguments, reason",
    [
        (["--embedding_dim", "128,64"], "The dot interaction needs them equal"),
        (["--interaction", "cross", "--embedding_dim", "nowhere.json"], "nowhere.json: is not a JSON list"),
        (["--interaction", "cross", "--interaction_op", "native"], "the op is for the dot interaction"),
        (["--momentum", "0.9", "--optimizer", "adam"], "only sgd has a momentum"),
        (["--dedup_ids", "on"], "--dedup_ids on needs --data_parallel_input"),
        (["--beta1", "1"], "beta1 is 1.0; it must be between 0 and 1"),
    ],
)
def test_contradictions(arguments, reason):
    with pytest.raises(ConfigError, match=re.escape(reason)):
        parsed(*arguments)
