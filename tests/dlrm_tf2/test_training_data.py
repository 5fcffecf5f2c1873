"""What the program does with its data: where it goes on, what it makes up, and how it ends when a file is bad."""

import json
import os

import numpy as np
import pytest
from small_dataset import write_dataset
from test_dlrm_program import SCHEDULE, SMALL, entries, horovodrun, losses, needs_horovod, start

from criteo_prep.feature_spec import Feature, tf_raw_spec

SHUFFLED = ["--shuffle", "window", "--shuffle_window", 300]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    root = tmp_path_factory.mktemp("dataset")
    write_dataset(root)
    return root


def arguments(dataset, log, *more):
    return ["--dataset_path", dataset, *SMALL, *SCHEDULE, "--cpu", "--log_path", log, *more]


def test_stopped_and_restored_training_is_as_if_it_had_not_stopped(dataset, tmp_path):
    """Stopped in the second of three passes; the seed of the order comes from the checkpoint, not from the flag."""
    whole, before, after = (tmp_path / name for name in ("whole.json", "before.json", "after.json"))
    run = start(arguments(dataset, whole, *SHUFFLED, "--epochs", 3))
    assert run.returncode == 0, run.stderr
    run = start(arguments(dataset, before, *SHUFFLED, "--max_steps", 11, "--save_checkpoint_path", tmp_path / "saved"))
    assert run.returncode == 0, run.stderr
    document = json.loads((tmp_path / "saved/manifest.json").read_text())["document"]
    assert document["data"] == {"epoch": 1, "sample": 384, "seed": 7, "shuffle": "window", "shuffle_window": 300,
                                "num_samples": 1000}  # fmt: skip
    run = start([*arguments(dataset, after, *SHUFFLED, "--epochs", 2, "--restore_checkpoint_path", tmp_path / "saved"),
                 "--seed", 8])  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert "data: on from sample 384 of pass 2" in run.stdout
    np.testing.assert_allclose(losses(before) + losses(after), losses(whole), rtol=1e-5)
    evaluated = [[(e["step"], e["auc"]) for e in entries(log) if "test_loss" in e] for log in (whole, after)]
    assert [step for step, _ in evaluated[0]] == [8, 16, 24] and [step for step, _ in evaluated[1]] == [16, 24]
    np.testing.assert_allclose(evaluated[1], evaluated[0][1:], rtol=1e-5)
    run = start(arguments(dataset, after, "--max_steps", 1, "--restore_checkpoint_path", tmp_path / "saved"))
    assert run.returncode == 0 and "this run begins a new pass" in run.stdout


def test_drop_last_says_what_it_drops(dataset, tmp_path):
    run = start(arguments(dataset, tmp_path / "log.json", "--drop_last", "--evals_per_epoch", 0))
    assert run.returncode == 0, run.stderr
    assert "drop_last: the last 104 samples of each pass are not trained on" in run.stdout
    assert len(losses(tmp_path / "log.json")) == 7


def test_synthetic_data_needs_a_spec_and_no_files(tmp_path):
    features = [Feature("a", "int32", 100, alpha=1.2), Feature("b", "int8", 50, 3, alpha=0.0)]
    tf_raw_spec(features, num_numerical=13, splits=()).save(tmp_path / "feature_spec.yaml")
    run = start(arguments(tmp_path, tmp_path / "log.json", "--dataset_type", "synthetic",
                          "--synthetic_dataset_train_batches", 5, "--synthetic_dataset_valid_batches", 3))  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert len(losses(tmp_path / "log.json")) == 5
    assert f"{3 * 90} samples" in run.stdout
    assert entries(tmp_path / "log.json")[-1]["auc"] == pytest.approx(0.5, abs=0.15)


@pytest.mark.parametrize("ranks", [1, pytest.param(2, marks=needs_horovod)])
def test_a_bad_id_found_while_training_ends_the_job_on_all_ranks(tmp_path, ranks):
    write_dataset(tmp_path)
    file = tmp_path / "train/cat_1.bin"
    with open(file, "r+b") as changed:
        changed.seek(777)
        changed.write(bytes([9]))
    run = start(arguments(tmp_path, tmp_path / "log.json"), launcher=horovodrun(ranks) if ranks > 1 else ())
    assert run.returncode != 0
    said = run.stdout + run.stderr
    assert "train/cat_1.bin: row 777: id 9 of 'cat_1' is not below its cardinality 7" in said
    assert "Traceback" not in said
    assert os.path.exists(file)
