"""The log in MLPerf's format: its lines by hand, and MLPerf's own checker."""

import importlib.util
import json

import pytest
from support.mlperf_checker import complaints, needs_package

from dlrm_tf2.config import TrainConfig
from dlrm_tf2.logs import mlperf_log
from dlrm_tf2.logs.mlperf_log import MlperfLog, MlperfLogError

ADAGRAD = {"optimizer": "adagrad", "lr_policy": "torchrec", "warmup_steps": 0, "decay_start_step": 0, "decay_steps": 0}
DCN = {"interaction": "cross", **ADAGRAD}
DOT = {"lr_policy": "torchrec", "warmup_steps": 2, "decay_start_step": 3, "decay_steps": 4}


def written(path, aucs=(0.5, 0.81), success=True, **flags):
    """Writes the log of a run with an evaluation after each half of its pass; returns [(key, value, metadata)]."""
    config = TrainConfig(dataset_path="d", mllog=str(path), seed=7, batch_size=64, learning_rate=0.004, **flags)
    log = MlperfLog(str(path), config, platform="2 x cpu")
    log.training_begins(640, 89137319, epoch=0.0, epochs=0.5)
    for number, auc in enumerate(aucs, 1):
        log.evaluation_begins(number / 2)
        log.evaluated("validation", auc, num_samples=89137319, epoch=number / 2)
        if number < len(aucs):
            log.training_continues(number / 2, epochs=0.5)
    log.training_ends(len(aucs) / 2, success)
    lines = path.read_text().splitlines()
    assert all(line.startswith(":::MLLOG ") for line in lines)
    records = [json.loads(line.removeprefix(":::MLLOG ")) for line in lines]
    kinds = {"INTERVAL_START": "_start", "INTERVAL_END": "_stop"}
    for record in records:
        assert record["key"].endswith(kinds.get(record["event_type"], ""))
        assert record["metadata"].pop("file") == "dlrm_tf2/logs/mlperf_log.py"  # and no path of this machine
        del record["metadata"]["lineno"]
    return [(record["key"], record["value"], record["metadata"]) for record in records]


@needs_package
def test_lines_by_hand(tmp_path):
    lines = written(tmp_path / "log", **DCN)
    keys = [key for key, _, _ in lines]
    assert keys[:2] == ["cache_clear", "init_start"]
    values = {key: value for key, value, _ in lines}
    assert values | {
        "submission_benchmark": "dlrm_dcnv2", "submission_division": "closed", "submission_platform": "2 x cpu",
        "global_batch_size": 64, "opt_name": "adagrad", "opt_base_learning_rate": 0.004, "opt_adagrad_epsilon": 1e-8,
        "opt_adagrad_learning_rate_decay": 0, "opt_adagrad_initial_accumulator_value": 0, "opt_weight_decay": 0,
        "opt_learning_rate_warmup_steps": 0, "opt_learning_rate_decay_start_step": 0,
        "opt_learning_rate_decay_steps": 0, "gradient_accumulation_steps": 1, "seed": 7,
        "train_samples": 640, "eval_samples": 89137319,
    } == values  # fmt: skip
    assert lines[keys.index("init_stop") :] == [
        ("init_stop", None, {}),
        ("run_start", None, {}),
        ("block_start", None, {"first_epoch_num": 0.0, "epoch_count": 0.5}),
        ("block_stop", None, {"first_epoch_num": 0.0}),
        ("eval_start", None, {"epoch_num": 0.5}),
        ("eval_accuracy", 0.5, {"epoch_num": 0.5}),
        ("eval_stop", None, {"epoch_num": 0.5}),
        ("block_start", None, {"first_epoch_num": 0.5, "epoch_count": 0.5}),
        ("block_stop", None, {"first_epoch_num": 0.5}),
        ("eval_start", None, {"epoch_num": 1.0}),
        ("eval_accuracy", 0.81, {"epoch_num": 1.0}),
        ("eval_stop", None, {"epoch_num": 1.0}),
        ("run_stop", None, {"status": "success", "epoch_num": 1.0}),
    ]


@needs_package
@pytest.mark.parametrize("ruleset, flags", [("2.1.0", DOT), ("5.0.0", DCN), ("6.0.0", DCN)])
def test_the_checker_of_mlperf_has_no_complaint(tmp_path, ruleset, flags):
    written(tmp_path / "log", **flags)
    assert complaints(tmp_path / "log", ruleset) == []


@needs_package
def test_the_checker_finds_another_epsilon_and_a_missed_target(tmp_path):
    """Defect: one version of the published program logs the epsilon 1e-10, and the rules ask for 1e-8."""
    lines = written(tmp_path / "log", aucs=(0.5, None), success=False, **DCN, epsilon=1e-10)
    assert [metadata["status"] for key, _, metadata in lines if key == "run_stop"] == ["aborted"]
    assert sum(key == "eval_accuracy" for key, _, _ in lines) == 1  # an AUC that is not defined is no number
    found = complaints(tmp_path / "log", "6.0.0")
    assert len(found) == 2 and any("opt_adagrad_epsilon" in line for line in found)
    assert any("Failed checks for eval_accuracy" in line for line in found)


@needs_package
@pytest.mark.parametrize(
    "name, message", [("log", "exists, and such a log holds one run"), ("no/log", "does not exist")]
)
def test_a_place_that_is_not_free_is_refused(tmp_path, name, message):
    (tmp_path / "log").write_text("mine")
    with pytest.raises(MlperfLogError, match=f"--mllog .*{name}.*{message}"):
        mlperf_log.check_destination(str(tmp_path / name), resumes=False)
    assert (tmp_path / "log").read_text() == "mine"


def test_without_the_package_the_message_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MlperfLogError, match=r"--mllog .*: needs the package mlperf-logging. Install it: pip install"):
        mlperf_log.check_destination(str(tmp_path / "log"), resumes=False)


@needs_package
def test_the_log_of_a_resumed_run_continues(tmp_path):
    """No second header; the checker takes the two ends of the run, of the same value, as a warning."""
    before, path = written(tmp_path / "log", aucs=(0.5,), success=False, **DCN), str(tmp_path / "log")
    mlperf_log.check_destination(path, resumes=True)
    log = MlperfLog(path, TrainConfig(dataset_path="d", mllog=path, seed=7, **DCN), platform="2 x cpu", resumes=True)
    log.training_begins(640, 89137319, epoch=0.5, epochs=0.5)
    log.evaluation_begins(1.0)
    log.evaluated("validation", 0.81, num_samples=89137319, epoch=1.0)
    log.training_ends(1.0, True)
    keys = [json.loads(line.removeprefix(":::MLLOG "))["key"] for line in (tmp_path / "log").read_text().splitlines()]
    assert keys[len(before) :] == [
        "block_start", "block_stop", "eval_start", "eval_accuracy", "eval_stop", "run_stop"
    ]  # fmt: skip
    assert complaints(tmp_path / "log", "6.0.0") == []
