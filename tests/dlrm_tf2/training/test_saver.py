"""The checkpoints of a training, flag by flag: when they are saved, which stay, and what is left when it fails."""

import errno
import os
import threading

import pytest
from support import in_process
from support.checkpoint_case import folder_bytes
from support.small_dataset import write_dataset

from dlrm_tf2 import flags
from dlrm_tf2.checkpoint import CheckpointError, part, read_document
from dlrm_tf2.config import ConfigError
from dlrm_tf2.evaluation.metrics import Evaluation
from dlrm_tf2.training.step import TrainingStep


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    write_dataset(root, train=400, test=100, cardinalities=(20, 7))
    return root


@pytest.fixture
def train(data, tmp_path):
    """Trains 8 steps and saves; the number of `checkpoint_every` and more flags follow."""

    def train(every, *more):
        return in_process.run(data, tmp_path / "log.json", "--checkpoint_every", every, "--save_checkpoint_path",
                              tmp_path / "saved", *more)  # fmt: skip

    return train


def said(capsys, start):
    return [line for line in capsys.readouterr().out.splitlines() if line.startswith(start)]


def test_checkpoint_every_and_keep_checkpoints(train, tmp_path, capsys):
    train(3, "--keep_checkpoints", 3)
    saved = tmp_path / "saved"
    assert said(capsys, "saved") == [f"saved {saved}: step {step}" for step in (3, 6, 8)]
    steps = {name: read_document(tmp_path / name)["step"] for name in os.listdir(tmp_path) if name != "log.json"}
    assert steps == {"saved": 8, "saved.step-6": 6, "saved.step-3": 3}
    assert [read_document(tmp_path / name)["run"]["finished"] for name in ("saved", "saved.step-6")] == [True, False]


def test_a_run_that_is_refused_leaves_the_log_of_the_one_before(train, tmp_path):
    train(100)
    log = (tmp_path / "log.json").read_bytes()
    with pytest.raises(ValueError, match="bottom_mlp_dims"):
        train(100, "--restore_checkpoint_path", tmp_path / "saved", "--bottom_mlp_dims", "7,4")
    (tmp_path / "saved" / "notes.txt").touch()
    with pytest.raises(CheckpointError, match="holds files that do not belong to a checkpoint"):
        train(100)
    assert (tmp_path / "log.json").read_bytes() == log


@pytest.mark.parametrize("flag", ["--checkpoint_every 3", "--checkpoint_async", "--keep_checkpoints 2", "--keep_best"])
def test_flags_of_checkpoints_need_a_place_to_save(flag):
    with pytest.raises(ConfigError, match=f"{flag.split()[0]}.* needs --save_checkpoint_path"):
        flags.parse(["--dataset_path", "data", *flag.split()], "dlrm")


def test_keep_best_keeps_the_best_evaluation(train, tmp_path, monkeypatch):
    found = iter([0.6, 0.8, 0.7, None])
    monkeypatch.setattr("dlrm_tf2.evaluation.evaluator.Evaluator.evaluate", evaluations(found))
    train(100, "--keep_best", "--eval_every", 2)
    document = read_document(tmp_path / "saved.best")
    assert (document["step"], document["run"]["best_auc"], document["run"]["finished"]) == (4, 0.8, False)
    assert read_document(tmp_path / "saved")["run"]["best_auc"] == 0.8


def evaluations(aucs):
    """In the place of Evaluator.evaluate: finds these AUCs, one after the other."""
    return lambda *_, **__: Evaluation(next(aucs), loss=0.5, normalized_entropy=0.9, calibration=1.0, num_samples=100)


def test_the_best_so_far_is_known_after_a_resume(train, tmp_path, monkeypatch):
    monkeypatch.setattr("dlrm_tf2.evaluation.evaluator.Evaluator.evaluate", evaluations(iter([0.9, 0.5])))
    with pytest.MonkeyPatch.context() as patch:
        step_of = TrainingStep.__call__

        def call(self, batch, learning_rate, *, step, **others):
            if step == 5:
                raise KeyboardInterrupt
            return step_of(self, batch, learning_rate, step=step, **others)

        patch.setattr(TrainingStep, "__call__", call)
        with pytest.raises(KeyboardInterrupt):
            train(4, "--keep_best", "--eval_every", 4)
    train(4, "--keep_best", "--eval_every", 4)
    assert read_document(tmp_path / "saved.best")["step"] == 4


def slow(monkeypatch, release, failing=()):
    """Files of a checkpoint are written once `release` is set; the numbers of saves in `failing` find the disk full."""
    write, saves = part.write_part, []

    def write_part(*arguments):
        saves.append(arguments)
        assert release.wait(60)
        if len(saves) in failing:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(*arguments)

    monkeypatch.setattr("dlrm_tf2.checkpoint.saving.write_part", write_part)


def test_checkpoint_async_trains_on_and_saves_the_same_bytes(train, tmp_path, monkeypatch, capsys):
    """The first save is not done before step 6; what it saves is step 3 all the same."""
    train(3, "--keep_checkpoints", 3)
    at_once = folder_bytes(tmp_path / "saved.step-3")
    release, step_of, in_place = threading.Event(), TrainingStep.__call__, {}
    slow(monkeypatch, release)

    def call(self, batch, learning_rate, *, step, **others):
        in_place[step] = read_document(tmp_path / "saved")["step"]
        if step == 6:
            release.set()
        return step_of(self, batch, learning_rate, step=step, **others)

    monkeypatch.setattr(TrainingStep, "__call__", call)
    capsys.readouterr()
    train(3, "--keep_checkpoints", 3, "--checkpoint_async", "--resume", "off")
    assert in_place[6] == 8  # the run before
    behind = folder_bytes(tmp_path / "saved.step-3")
    assert at_once.pop("manifest.json") != behind.pop("manifest.json")  # names run and flags
    assert at_once == behind
    out = capsys.readouterr().out
    assert f"saving {tmp_path / 'saved'}: step 3, copied in " in out and f"saved {tmp_path / 'saved'}: step 6" in out
    assert sorted(os.listdir(tmp_path)) == ["log.json", "saved", "saved.step-3", "saved.step-6"]


def test_checkpoint_async_waits_for_the_one_before_and_says_how_long(train, monkeypatch, capsys):
    release = threading.Event()
    slow(monkeypatch, release)
    is_written = "dlrm_tf2.checkpoint.saving.CheckpointWriter.is_written"

    def not_yet(self):
        release.set()
        return False

    monkeypatch.setattr(is_written, not_yet)
    train(3, "--checkpoint_async", "--print_freq", 100)
    waited = said(capsys, "waited ")
    assert [line.split(" s for ")[1] for line in waited] == ["the checkpoint of step 3", "the checkpoint of step 6"]


def test_checkpoint_async_with_a_full_disk_ends_training_and_keeps_the_one_before(train, tmp_path, monkeypatch):
    release = threading.Event()
    release.set()
    slow(monkeypatch, release, failing={2})
    with pytest.raises(CheckpointError, match="step 6 was not saved; the content of the folder is unchanged"):
        train(3, "--checkpoint_async")
    assert sorted(os.listdir(tmp_path)) == ["log.json", "saved"]
    assert read_document(tmp_path / "saved")["step"] == 3


@pytest.mark.parametrize("how", [[], ["--checkpoint_async"]])
def test_a_loss_that_is_no_number_names_its_step_and_the_checkpoint_that_is_kept(train, tmp_path, monkeypatch, how):
    step_of = TrainingStep.__call__

    def call(self, batch, learning_rate, *, step, **others):
        return step_of(self, batch, float("nan") if step == 5 else learning_rate, step=step, **others)

    monkeypatch.setattr(TrainingStep, "__call__", call)
    with pytest.raises(ValueError, match="step 5: bottom_mlp_0_bias is not finite .* step 4 is kept. Lower --learn"):
        train(2, *how)
    assert read_document(tmp_path / "saved")["step"] == 4
    assert sorted(os.listdir(tmp_path)) == ["log.json", "saved"]


def test_weights_that_are_no_numbers_are_not_saved(train, tmp_path, monkeypatch):
    """The loss of step 6 is a number, the weights after the step are not."""
    step_of = TrainingStep.__call__

    def call(self, batch, learning_rate, *, step, **others):
        return step_of(self, batch, float("nan") if step == 6 else learning_rate, step=step, **others)

    monkeypatch.setattr(TrainingStep, "__call__", call)
    with pytest.raises(ValueError, match="step 6: bottom_mlp_0_bias is not finite .* step 3 is kept"):
        train(3)
    assert read_document(tmp_path / "saved")["step"] == 3
