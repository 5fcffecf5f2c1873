"""The program as users start it: one process, and several under horovodrun.

Tests that need no process of their own run in the test's process, on the dataset and checkpoint of one that had.
"""

import json
import re

import numpy as np
import pytest
from pyarrow import parquet
from sklearn.metrics import roc_auc_score
from support import in_process
from support.programs import REPOSITORY, SCHEDULE, SMALL, horovodrun, needs_horovod, start
from support.small_dataset import write_dataset

from criteo_prep.feature_spec import tf_raw_spec
from criteo_prep.synthetic import presets
from dlrm_tf2.training.trainer import TrainingError


def entries(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def losses(path):
    return [entry["loss"] for entry in entries(path) if "loss" in entry]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A dataset, and a run of one process over it that saved a checkpoint."""
    root = tmp_path_factory.mktemp("trained")
    write_dataset(root / "data")
    arguments = ["--dataset_path", root / "data", *SMALL, *SCHEDULE, "--epochs", 3]
    run = start([*arguments, "--save_checkpoint_path", f"{root}/checkpoint/", "--log_path", root / "log.json"])
    assert run.returncode == 0, run.stderr
    return root, arguments, run


def test_the_log_is_flat_json_with_the_published_summary(trained):
    root, _, _ = trained
    log = entries(root / "log.json")
    assert log[0]["batch_size"] == 128 and log[0]["seed"] == 7
    steps = [entry for entry in log if "loss" in entry]
    assert [entry["step"] for entry in steps] == list(range(1, 25))  # 3 epochs of 8 batches, the last of 104 samples
    keys = {"step", "loss", "learning_rate", "samples_per_s", "step_ms", "data_wait_ms", "exchange_ms",
            "exchange_ms_of_ranks", "memory_gib"}  # fmt: skip
    assert all(set(entry) == keys and 0 <= entry["data_wait_ms"] <= entry["step_ms"] for entry in steps)
    assert all(entry["exchange_ms"] == 0 and len(entry["memory_gib"]) == 1 for entry in steps)
    metrics = {"auc", "test_loss", "normalized_entropy", "calibration", "num_samples"}
    evaluations = [entry for entry in log if set(entry) == {"step", *metrics}]
    assert [entry["step"] for entry in evaluations] == [8, 16, 24]
    assert set(log[-1]) == {
        "throughput", "mean_step_time_ms", "auc", "validation_loss", "data_wait_ms", "exchange_ms",
        "exchange_ms_of_ranks", "memory_gib", "peak_memory_gib", "skipped_steps", "steps", "total_s", "evaluating_s",
    }  # fmt: skip
    assert log[-1]["peak_memory_gib"] >= log[-1]["memory_gib"]
    assert log[-1]["auc"] == evaluations[-1]["auc"] > 0.55


def test_evaluation_of_the_checkpoint_repeats_the_last_evaluation_of_training(trained):
    """The published evaluation command is the training command and two more flags. It must not write the checkpoint."""
    root, arguments, _ = trained
    before = (root / "checkpoint/manifest.json").stat().st_mtime_ns
    more = ["--save_checkpoint_path", root / "checkpoint", "--restore_checkpoint_path", root / "checkpoint"]
    run = start([*arguments, *more, "--mode", "eval", "--log_path", root / "eval.json"])
    assert run.returncode == 0, run.stderr
    last = entries(root / "log.json")[-1]
    assert re.search(rf"^AUC {last['auc']:.6f}\b", run.stdout, re.M)
    record = entries(root / "eval.json")[-1]
    assert (record["auc"], record["test_loss"]) == (last["auc"], last["validation_loss"])
    assert record["num_samples"] == 300 and 0.8 < record["normalized_entropy"] < 1.0 < 2 * record["calibration"] < 4
    assert (root / "checkpoint/manifest.json").stat().st_mtime_ns == before


def test_inference_reports_latency_and_throughput(trained):
    root, arguments, _ = trained
    run = in_process.run(root / "data", root / "inference.json", *arguments, "--mode", "inference",
                         "--valid_batch_size", "100,10", "--restore_checkpoint_path", root / "checkpoint")  # fmt: skip
    summary = run.records[-1]
    assert [record.get("batch_size") for record in run.records[-2:]] == [100, 10]
    assert set(summary) == {
        "batch_size", "mean_inference_throughput", "mean_inference_latency", "p50_inference_latency",
        "p90_inference_latency", "p95_inference_latency", "p99_inference_latency", "auc", "num_samples",
    }  # fmt: skip
    assert summary["p99_inference_latency"] >= summary["p90_inference_latency"] > 0
    assert summary["auc"] == pytest.approx(entries(root / "log.json")[-1]["auc"], abs=1e-9)


def test_restored_training_continues_at_its_step(trained, tmp_path):
    root, arguments, _ = trained
    run = in_process.run(root / "data", tmp_path / "log.json", *arguments, "--max_steps", 2,
                         "--restore_checkpoint_path", root / "checkpoint")  # fmt: skip
    assert [record["step"] for record in run.records if "loss" in record] == [25, 26]


@needs_horovod
@pytest.mark.parametrize("ranks", [2, pytest.param(3, marks=pytest.mark.long)])
def test_ranks_train_and_evaluate_as_one_process_does(trained, tmp_path, ranks):
    root, arguments, _ = trained
    run = start([*arguments, "--log_path", tmp_path / "log.json", "--save_checkpoint_path", tmp_path / "checkpoint"],
                launcher=horovodrun(ranks))  # fmt: skip
    assert run.returncode == 0, run.stdout + run.stderr
    np.testing.assert_allclose(losses(tmp_path / "log.json"), losses(root / "log.json"), rtol=1e-5)
    ours, theirs = entries(tmp_path / "log.json")[-1], entries(root / "log.json")[-1]
    assert len(ours["memory_gib"]) == len(ours["exchange_ms_of_ranks"]) == ranks
    assert ours["exchange_ms_of_ranks"][0] == ours["exchange_ms"]
    assert all(0 < exchange_ms < ours["mean_step_time_ms"] for exchange_ms in ours["exchange_ms_of_ranks"])
    assert ours["auc"] == pytest.approx(theirs["auc"], abs=1e-5)
    assert ours["validation_loss"] == pytest.approx(theirs["validation_loss"], rel=1e-5)
    alone = in_process.run(root / "data", tmp_path / "eval.json", *arguments, "--mode", "eval",
                           "--restore_checkpoint_path", tmp_path / "checkpoint")  # fmt: skip
    assert alone.records[-1]["auc"] == pytest.approx(ours["auc"], abs=1e-6)


def pipelined(trained, log, pipeline):
    """(step, loss, AUC, test loss) of every record of a run on 2 ranks whose ids and rows travel."""
    flags = ["--data_parallel_input", "--row_slice_threshold", 3000, "--evals_per_epoch", 2, "--pipeline", pipeline]
    run = start([*trained[1], *flags, "--log_path", log], launcher=horovodrun(2))
    assert run.returncode == 0, run.stdout + run.stderr
    keys = "loss", "auc", "test_loss"
    return [(entry["step"], *map(entry.get, keys)) for entry in entries(log) if "step" in entry]


@needs_horovod
@pytest.mark.long
def test_the_pipeline_loses_no_batch(trained, tmp_path):
    """embedding/test_pipeline.py has the quick tests."""
    numbers = pipelined(trained, tmp_path / "on.json", "on")
    assert len(numbers) == 24 + 6
    found = [loss for _, loss, *_ in numbers if loss]
    np.testing.assert_allclose(found, losses(trained[0] / "log.json"), rtol=1e-5)


@needs_horovod
@pytest.mark.long
def test_the_pipeline_changes_no_bit(trained, tmp_path):
    on, off = (pipelined(trained, tmp_path / f"{pipeline}.json", pipeline) for pipeline in ("on", "off"))
    assert on == off


@pytest.fixture
def no_horovod(tmp_path):
    """Variables that keep a process from importing Horovod."""
    (tmp_path / "horovod").mkdir()
    (tmp_path / "horovod/__init__.py").write_text("raise ImportError('not here')")
    return {"PYTHONPATH": str(tmp_path)}


def test_run_as_a_file_from_anywhere_without_horovod(trained, tmp_path, no_horovod):
    _, arguments, _ = trained
    one_step = [*arguments, "--max_steps", 1, "--evals_per_epoch", 0]
    run = start(one_step, program=[REPOSITORY / "dlrm_tf2/dlrm.py"], cwd=tmp_path, **no_horovod)
    assert run.returncode == 0, run.stderr
    assert losses(tmp_path / "dlrm_tf_log.json")


@pytest.mark.parametrize("steps", [5, 20])
def test_n_steps_are_n_steps(trained, tmp_path, capsys, steps):
    """8 steps are an epoch; 20 steps reach the third epoch."""
    root, arguments, _ = trained
    without_epochs = arguments[: arguments.index("--epochs")]
    run = in_process.run(
        root / "data",
        tmp_path / "log.json",
        *without_epochs,
        "--max_steps",
        steps,
        "--evals_per_epoch",
        0,
        "--world_size",
        4,
    )
    assert "--world_size does nothing here: only --mode plan reads it" in capsys.readouterr().out
    assert len(run.column("loss")) == steps


def test_a_dataset_smaller_than_a_batch_trains_on_all_samples(trained, tmp_path, capsys):
    root, arguments, _ = trained
    run = in_process.run(root / "data", tmp_path / "log.json", *arguments, "--batch_size", 5000)
    said = capsys.readouterr().out
    assert "holds 1000 samples, fewer than batch_size 5000" in said and "does nothing here" not in said
    assert len(run.column("loss")) == 3


def test_published_auc_thresholds_and_predictions_path(trained, tmp_path):
    root, arguments, _ = trained
    run = in_process.run(root / "data", tmp_path / "eval.json", *arguments, "--mode", "eval", "--auc_thresholds", 8000,
                         "--restore_checkpoint_path", root / "checkpoint", "--predictions_path",
                         tmp_path / "scores.parquet")  # fmt: skip
    exact = entries(root / "log.json")[-1]["auc"]
    assert run.records[-1]["auc"] == pytest.approx(exact, abs=2e-3)
    scores = parquet.read_table(tmp_path / "scores.parquet")
    assert scores["row"].to_pylist() == list(range(300))
    assert roc_auc_score(scores["label"].to_numpy(), scores["score"].to_numpy()) == pytest.approx(exact, abs=1e-6)


def test_the_split_that_is_scored_can_be_chosen(trained, tmp_path):
    root, arguments, _ = trained
    evaluate = [*arguments, "--mode", "eval", "--restore_checkpoint_path", root / "checkpoint", "--eval_split"]
    write_dataset(tmp_path / "data", validation=77)
    run = in_process.run(root / "data", tmp_path / "log.json", *evaluate, "validation", "--dataset_path",
                         tmp_path / "data")  # fmt: skip
    assert run.records[-1]["num_samples"] == 77
    with pytest.raises(ValueError, match=r"there is no split 'validation'; the splits are \['train', 'test'\]"):
        in_process.run(root / "data", tmp_path / "log.json", *evaluate, "validation")


def misuse(run, *parts):
    assert run.returncode != 0
    assert "Traceback" not in run.stderr
    assert run.stderr.startswith("dlrm: ") and run.stderr.count("\n") == 1, run.stderr
    for part in parts:
        assert part in run.stderr


def test_a_checkpoint_of_another_model_is_refused(trained, tmp_path):
    root, arguments, _ = trained
    with pytest.raises(ValueError, match=r"bottom_mlp_dims\[0\] is 12, this run's is 20"):
        in_process.run(root / "data", tmp_path / "log.json", *arguments, "--bottom_mlp_dims", "20,8", "--mode", "eval",
                       "--restore_checkpoint_path", root / "checkpoint")  # fmt: skip


def test_a_diverging_run_stops_and_saves_nothing(trained, tmp_path):
    root, arguments, _ = trained
    with pytest.raises(TrainingError, match="step 1: bottom_mlp_0_bias is not finite .* No checkpoint was saved"):
        in_process.run(root / "data", tmp_path / "log.json", *arguments, "--learning_rate", "1e38",
                       "--save_checkpoint_path", tmp_path / "checkpoint")  # fmt: skip
    assert not (tmp_path / "checkpoint").exists()


def test_a_missing_dataset_is_one_line(tmp_path):
    misuse(start(["--dataset_path", tmp_path / "nowhere"]), "nowhere/feature_spec.yaml: there is no such file")


def test_a_destination_with_other_files_is_refused_before_training(trained, tmp_path):
    _, arguments, _ = trained
    (tmp_path / "precious.txt").write_text("not a checkpoint")
    run = start([*arguments, "--save_checkpoint_path", tmp_path, "--log_path", tmp_path.parent / "log.json"])
    misuse(run, str(tmp_path))
    assert (tmp_path / "precious.txt").exists() and "step 1 " not in run.stdout


def test_ranks_without_horovod_are_refused(trained, no_horovod):
    _, arguments, _ = trained
    run = start(arguments, **no_horovod, OMPI_COMM_WORLD_SIZE="2", OMPI_COMM_WORLD_RANK="0")
    assert run.returncode == 1 and "Traceback" not in run.stderr
    assert "2 processes were started, but Horovod cannot be imported" in run.stderr


def test_tables_that_do_not_fit_are_refused_before_they_are_allocated(tmp_path):
    tf_raw_spec(presets.PRESETS["criteo_t0"].categorical).save(tmp_path / "feature_spec.yaml")
    run = start(["--dataset_path", tmp_path, "--batch_size", 8192, "--valid_batch_size", 8192])
    misuse(run, "420.94 GiB of them tables", "bytes", "are available")
