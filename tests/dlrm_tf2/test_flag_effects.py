"""Every flag has an effect: a run with the flag differs from a run without it, in the thing that the flag is for.

The tests of the other rooms check that the effect is right. A flag that needs several ranks, another process or a file
is listed with the test file that covers it.
"""

import dataclasses
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import yaml
from support import in_process
from support.in_process import TINY
from support.key_dataset import write_keys
from support.small_dataset import write_dataset

from criteo_prep.feature_spec import Feature, FeatureSpec, tf_raw_spec
from dlrm_tf2 import flags, ops
from dlrm_tf2.config import TrainConfig
from dlrm_tf2.job import planning
from dlrm_tf2.model.config import ModelConfig


def losses(run):
    return run.column("loss")


def num_steps(run):
    return len(losses(run))


def learning_rates(run):
    return run.column("learning_rate")


def evaluations(run):
    return [record["step"] for record in run.records if "test_loss" in record and "step" in record]


def test_losses(run):
    return run.column("test_loss")


test_losses.__test__ = False


def skipped(run):
    return run.column("skipped_steps")


def shapes(run):
    model = run.job.model
    return [variable.shape for variable in model.dense_variables], model.config.dims, model.config.cardinalities


def compiled(run):
    return getattr(run.job.model._dense, "_jit_compile", None)


def counted(run):
    return list(run.job.model.embedding.dynamic_tables["cat_0"].counted())


def result_keys(run):
    return set(run.records[-1])


SYNTHETIC = """--feature_spec larger.yaml --dataset_type synthetic --synthetic_dataset_train_batches 3
    --synthetic_dataset_valid_batches 2""".split()
SEVERAL_IDS = [*SYNTHETIC, "--feature_spec", "several_ids.yaml"]
ADAM = "--optimizer adam --learning_rate 0.01".split()
DECAY = "--decay_start_step 1 --decay_steps 3".split()
CROSS = "--interaction cross --interaction_op auto --num_cross_layers 1 --cross_layer_projection_dim 2".split()
PROJECTION = "--interaction projection --interaction_op auto --projection_branch1_dims 3,4".split()
PROJECTION += ["--projection_branch2_dims", "4"]
FLOAT16 = "--amp --amp_dtype float16 --loss_scale 1e9".split()

# flag -> (arguments of both runs, arguments of the second run, what differs between the runs)
RUNS: dict[str, tuple[list[str], str, Callable]] = {
    "mode": (["--restore_checkpoint_path", "{saved}"], "--mode eval", result_keys),
    "dataset_path": ([], "--dataset_path {other}", losses),
    "feature_spec": ([], "--feature_spec larger.yaml", shapes),
    "dataset_type": (["--feature_spec", "larger.yaml", "--max_steps", "2"], "--dataset_type synthetic", losses),
    "synthetic_dataset_train_batches": (SYNTHETIC, "--synthetic_dataset_train_batches 5", num_steps),
    "synthetic_dataset_valid_batches": (SYNTHETIC, "--synthetic_dataset_valid_batches 4", test_losses),
    "shuffle": ([], "--shuffle window", losses),
    "shuffle_window": (["--shuffle", "window"], "--shuffle_window 60", losses),
    "drop_last": (["--batch_size", "60"], "--drop_last", num_steps),
    "batch_size": ([], "--batch_size 100", num_steps),
    "epochs": ([], "--epochs 2", num_steps),
    "max_steps": ([], "--max_steps 3", num_steps),
    "optimizer": ([], "--optimizer adagrad", losses),
    "epsilon": (["--optimizer", "adagrad"], "--epsilon 0.1", losses),
    "lr_policy": (["--warmup_steps", "3", *DECAY, "--decay_start_step", "4"], "--lr_policy torchrec", learning_rates),
    "momentum": ([], "--momentum 0.9", losses),
    "beta1": (ADAM, "--beta1 0.5", losses),
    "beta2": (ADAM, "--beta2 0.9", losses),
    "learning_rate": ([], "--learning_rate 0.25", learning_rates),
    "warmup_steps": ([], "--warmup_steps 3", learning_rates),
    "decay_start_step": (DECAY, "--decay_start_step 2", learning_rates),
    "decay_steps": (DECAY, "--decay_steps 5", learning_rates),
    "embedding_dim": (["--bottom_mlp_dims", "6,4"], "--embedding_dim 8 --bottom_mlp_dims 6,8", shapes),
    "bottom_mlp_dims": ([], "--bottom_mlp_dims 7,4", shapes),
    "top_mlp_dims": ([], "--top_mlp_dims 9,1", shapes),
    "mlp_init": ([], "--mlp_init linear", losses),
    "table_dtype": ([], "--table_dtype bfloat16", losses),
    "combiner": (SEVERAL_IDS, "--combiner mean", losses),
    "num_cross_layers": (CROSS, "--num_cross_layers 2", shapes),
    "cross_layer_projection_dim": (CROSS, "--cross_layer_projection_dim 3", shapes),
    "projection_branch1_dims": (PROJECTION, "--projection_branch1_dims 8", shapes),
    "projection_branch2_dims": (PROJECTION, "--projection_branch2_dims 2,8", shapes),
    "interaction": ([], " ".join(CROSS), shapes),
    "amp": ([], "--amp", losses),
    "amp_dtype": (["--amp"], "--amp_dtype float16", losses),
    "loss_scale": (FLOAT16, "--loss_scale 16", skipped),
    "loss_scaling": ([*FLOAT16, "--epochs", "8"], "--loss_scaling dynamic", skipped),
    "xla": ([], "--xla", compiled),
    "seed": ([], "--seed 4", losses),
    "eval_split": ([], "--eval_split validation", test_losses),
    "auc_thresholds": ([], "--auc_thresholds 3", lambda run: run.column("auc")),
    "evals_per_epoch": ([], "--evals_per_epoch 2", evaluations),
    "eval_every": ([], "--eval_every 1", evaluations),
    "eval_within_epoch": (["--epochs", "2", "--eval_every", "3"], "--eval_within_epoch", evaluations),
    "final_split": ([], "--final_split validation", result_keys),
    "auc_threshold": (["--eval_every", "1"], "--auc_threshold 0.01", num_steps),
    "print_freq": ([], "--print_freq 2", num_steps),
    "save_checkpoint_path": ([], "--save_checkpoint_path {folder}/new", lambda run: Path(run.folder, "new").exists()),
    "restore_checkpoint_path": ([], "--restore_checkpoint_path {saved}", lambda run: run.column("step")[0]),
    "log_path": ([], "--log_path {folder}/mine.json", lambda run: Path(run.folder, "mine.json").exists()),
}

# flag -> arguments of a second run on raw keys, which differ in the log
KEYS = ["--dataset_path", "{keys}", "--dynamic_capacity", "20,7", "--safe_check", "count"]
RUNS |= {
    "dynamic_capacity": (KEYS, "--dynamic_capacity 5", lambda run: run.column("keys_stored")),
    "evict": ([*KEYS, "--dynamic_capacity", "15", "--batch_size", "5"], "--evict lfu", losses),
    "admit_after": (KEYS, "--admit_after 2", lambda run: run.column("keys_refused")),
    "admission_counter": ([*KEYS, "--admit_after", "30"], "--admission_counter sketch", counted),
    "admit_probability": (KEYS, "--admit_probability 0.5", lambda run: run.column("keys_refused")),
    "evict_below_norm": (
        [*KEYS, "--save_checkpoint_path", "{folder}/small"],
        "--evict_below_norm 1 --save_checkpoint_path {folder}/none",
        lambda run: run.column("keys_erased"),
    ),
    "expire_after_steps": (KEYS, "--expire_after_steps 1 --batch_size 5", lambda run: run.column("keys_expired")),
}

# flag -> arguments that change the text of mode plan
PLANS = {
    "dist_strategy": "--dist_strategy basic",
    "column_slice_threshold": "--column_slice_threshold 1000",
    "row_slice_threshold": "--row_slice_threshold 100",
    "data_parallel_threshold": "--data_parallel_threshold 1000",
    "cpu_offloading_threshold_gb": "--cpu_offloading_threshold_gb 0.000001",
    "world_size": "--world_size 3",
}

# flag -> the test file that covers the flag and names it
ELSEWHERE = {
    "data_parallel_input": "job/test_ranks.py",
    "dedup_ids": "data/test_repeated_ids.py",
    "network_gbit": "data/test_repeated_ids.py",
    "sok_gradients": "test_sok_benchmark.py",
    "pipeline": "training/test_pipelined_training.py",
    "resume": "training/test_resume.py",
    "cpu": "runtime/test_process.py",
    "inter_op_parallelism": "runtime/test_process.py",
    "intra_op_parallelism": "runtime/test_process.py",
    "stall_timeout_s": "runtime/test_watchdog.py",
    "elastic": "training/test_elastic_training.py",
    "valid_batch_size": "evaluation/test_inference.py",
    "predictions_path": "evaluation/test_predictions.py",
    "checkpoint_every": "training/test_saver.py",
    "checkpoint_async": "training/test_saver.py",
    "checkpoint_gather": "job/test_gathering.py",
    "keep_checkpoints": "training/test_saver.py",
    "keep_best": "training/test_saver.py",
    "fresh_optimizer": "checkpoint/test_checkpoint_optimizer.py",
    "profiler_start_step": "logs/test_profiler.py",
    "profiled_rank": "logs/test_profiler.py",
    "profiler_path": "logs/test_profiler.py",
    "tensorboard": "logs/test_tensorboard.py",
    "mllog": "logs/test_mlperf_log.py",
    "safe_check": "training/test_dynamic_training.py",
    "hbm_for_embeddings": "training/test_tiered_training.py",
    "embeddings_folder": "training/test_tiered_training.py",
    "caching": "training/test_tiered_training.py",
}

ALL = {field.name for field in dataclasses.fields(TrainConfig)}


def test_no_flag_is_without_a_test():
    covered = [*RUNS, *PLANS, *ELSEWHERE, "interaction_op", "embedding_op"]
    assert sorted(covered) == sorted(ALL)


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """Folders by name: two datasets, a checkpoint, and a folder for the files of the runs."""
    root = tmp_path_factory.mktemp("flags")
    names = {name: root / name for name in ("data", "other", "keys", "saved", "folder")}
    for number, name in enumerate(("data", "other")):
        write_dataset(names[name], train=200, test=100, validation=40, cardinalities=(20, 7), seed=number)
    document = yaml.safe_load((names["data"] / "feature_spec.yaml").read_text())
    for feature in ("cat_0", "cat_1"):
        document["feature_spec"][feature] |= {"cardinality": 30, "alpha": 1.1}
    (names["data"] / "larger.yaml").write_text(yaml.safe_dump(document))
    several = [Feature("a", "int8", 20, hotness=3, alpha=1.1), Feature("b", "int8", 7, alpha=0.0)]
    tf_raw_spec(several, splits=()).save(names["data"] / "several_ids.yaml")
    names["folder"].mkdir()
    write_keys(FeatureSpec.load(names["data"] / "feature_spec.yaml"), names["keys"])
    in_process.run(names["data"], root / "log.json", "--save_checkpoint_path", names["saved"])
    return names


@pytest.fixture(scope="module")
def run(places):
    """`run(arguments)`: a run of the program; a second call with the same arguments returns the first run."""

    @cache
    def started(arguments: tuple[str, ...]):
        filled = [argument.format(**places) for argument in arguments]
        return in_process.run(places["data"], places["folder"] / "log.json", *filled)

    return lambda arguments: started(tuple(arguments))


@pytest.mark.parametrize("flag", RUNS)
def test_a_run_with_the_flag_differs_from_one_without(flag, run):
    of_both, with_flag, observed = RUNS[flag]
    assert f"--{flag}" in with_flag
    without = observed(run(of_both))
    assert observed(run([*of_both, *with_flag.split()])) != without


@pytest.mark.skipif(not ops.available(), reason=f"the op library is not available: {ops.why_unavailable()}")
def test_embedding_op(run):
    assert run(["--embedding_op", "native"]).job.model.embedding.native
    assert not run(["--embedding_op", "tensorflow"]).job.model.embedding.native


@pytest.mark.skipif(not ops.available(), reason=f"the op library is not available: {ops.why_unavailable()}")
def test_interaction_op(run):
    assert run([]).job.model.interaction.name == "tensorflow"
    assert run(["--interaction_op", "native"]).job.model.interaction.name == "native"


@pytest.mark.parametrize("flag", PLANS)
def test_a_plan_with_the_flag_differs_from_one_without(flag, places):
    tables = places["folder"] / "tables"
    write_dataset(tables, cardinalities=(500, 40, 7, 300))

    def plan(*more):
        config = flags.parse(["--dataset_path", str(tables), *TINY, "--mode", "plan", *more], "dlrm")
        spec = FeatureSpec.load(tables / "feature_spec.yaml")
        return planning.report_of(config, ModelConfig.of(config, spec), spec=spec, world_size=config.world_size or 2)

    assert f"--{flag}" in PLANS[flag]
    assert plan(*PLANS[flag].split()) != plan()


@pytest.mark.parametrize("flag", ELSEWHERE)
def test_the_test_of_the_flag_names_it(flag):
    source = (Path(__file__).parent / ELSEWHERE[flag]).read_text(encoding="utf-8")
    assert re.search(rf"\b(--)?{flag}\b", source)
