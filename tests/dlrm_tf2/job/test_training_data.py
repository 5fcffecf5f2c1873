"""The data of a run: where a restored run continues, synthetic samples, and the end of a job with a bad file."""

import json
import os

import numpy as np
import pytest
from support import in_process
from support.programs import SCHEDULE, SMALL, horovodrun, needs_horovod, start
from support.small_dataset import write_dataset

from criteo_prep.feature_spec import Feature, tf_raw_spec

SHUFFLED = ["--shuffle", "window", "--shuffle_window", 300]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    root = tmp_path_factory.mktemp("dataset")
    write_dataset(root)
    return root


def test_stopped_and_restored_training_is_as_if_it_had_not_stopped(dataset, tmp_path, capsys):
    """Stopped in the second of three passes; the seed of the order comes from the checkpoint, not from the flag."""

    def run(name, *more):
        flags = [*SMALL, *SCHEDULE, *SHUFFLED, "--drop_last", *more]
        return in_process.run(dataset, tmp_path / name, *flags), capsys.readouterr().out

    whole, said = run("whole.json", "--epochs", 3)
    assert "drop_last: the last 104 samples of each pass are not trained on" in said
    assert len(whole.column("loss")) == 3 * 7
    before, _ = run("before.json", "--max_steps", 10, "--save_checkpoint_path", tmp_path / "saved")
    document = json.loads((tmp_path / "saved/manifest.json").read_text())["document"]
    assert document["data"] == {"epoch": 1, "sample": 384, "seed": 7, "shuffle": "window", "shuffle_window": 300,
                                "num_samples": 1000}  # fmt: skip
    after, said = run("after.json", "--epochs", 2, "--restore_checkpoint_path", tmp_path / "saved", "--seed", 8)
    assert "data: continues at sample 384 of pass 2" in said
    np.testing.assert_allclose(before.column("loss") + after.column("loss"), whole.column("loss"), rtol=1e-5)
    evaluated = [[(r["step"], r["auc"]) for r in run.records if "test_loss" in r] for run in (whole, after)]
    assert [step for step, _ in evaluated[0]] == [7, 14, 21] and [step for step, _ in evaluated[1]] == [14, 21]
    np.testing.assert_allclose(evaluated[1], evaluated[0][1:], rtol=1e-5)


def test_synthetic_data_needs_a_spec_and_no_files(tmp_path, capsys):
    features = [Feature("a", "int32", 100, alpha=1.2), Feature("b", "int8", 50, 3, alpha=0.0)]
    tf_raw_spec(features, num_numerical=13, splits=()).save(tmp_path / "feature_spec.yaml")
    run = in_process.run(tmp_path, tmp_path / "log.json", *SMALL, *SCHEDULE, "--dataset_type", "synthetic",
                         "--synthetic_dataset_train_batches", 5, "--synthetic_dataset_valid_batches", 3)  # fmt: skip
    assert len(run.column("loss")) == 5
    assert f"{3 * 90} samples" in capsys.readouterr().out
    assert run.records[-1]["auc"] == pytest.approx(0.5, abs=0.15)


@needs_horovod
@pytest.mark.long
def test_a_bad_id_found_while_training_ends_the_job_on_all_ranks(tmp_path):
    write_dataset(tmp_path)
    file = tmp_path / "train/cat_1.bin"
    with open(file, "r+b") as changed:
        changed.seek(777)
        changed.write(bytes([9]))
    arguments = ["--dataset_path", tmp_path, *SMALL, *SCHEDULE, "--cpu", "--log_path", tmp_path / "log.json"]
    run = start(arguments, launcher=horovodrun(2))
    assert run.returncode != 0
    said = run.stdout + run.stderr
    assert "train/cat_1.bin: row 777: id 9 of 'cat_1' is not below its cardinality 7" in said
    assert "Traceback" not in said
    assert os.path.exists(file)
