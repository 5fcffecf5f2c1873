"""What a run writes is no input of the run, and no part of a checkpoint."""

import pytest
from support import in_process
from support.small_dataset import write_dataset

from dlrm_tf2.config import TrainConfig
from dlrm_tf2.job.destinations import DestinationError, check_apart


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    root = tmp_path_factory.mktemp("destinations")
    return root, write_dataset(root / "data", train=0, test=0)


@pytest.mark.parametrize("flags, message", [
    ({"log_path": "data/feature_spec.yaml"}, "--log_path data/feature_spec.yaml: is a file of the dataset"),
    ({"log_path": "data/train/cat_0.bin"}, "--log_path data/train/cat_0.bin: is a file of the dataset"),
    ({"log_path": "link.bin"}, "--log_path link.bin: is a file of the dataset"),
    ({"log_path": "data/manifest.json"}, "--log_path data/manifest.json: is a file of the dataset"),
    ({"log_path": "old/../old/log"}, "--log_path old/../old/log: lies in the checkpoint old"),
    ({"log_path": "new/log"}, "--log_path new/log: lies in the checkpoint new, which holds nothing else. Name a place"),
    ({"log_path": "new.best/log"}, "--log_path new.best/log: lies in the checkpoint /"),
    ({"tensorboard": "new/board"}, "--tensorboard new/board: lies in the checkpoint new"),
    ({"profiler_path": "new", "profiler_start_step": 3}, "--profiler_path new: lies in the checkpoint new"),
    ({"mode": "eval", "predictions_path": "old/scores"}, "--predictions_path old/scores: lies in the checkpoint old"),
    ({"mode": "eval", "predictions_path": "data/test/label.bin"}, "--predictions_path data/test/label.bin: is a file"),
])  # fmt: skip
def test_an_input_is_no_output(dataset, monkeypatch, flags, message):
    """The files of this dataset are empty, so that their content says nothing."""
    root, spec = dataset
    monkeypatch.chdir(root)
    if not (root / "link.bin").is_symlink():
        (root / "link.bin").symlink_to("data/test/label.bin")
    config = TrainConfig(**{"dataset_path": "data", "restore_checkpoint_path": "old", "save_checkpoint_path": "new"}
                         | flags)  # fmt: skip
    with pytest.raises(DestinationError) as error:
        check_apart(config, spec)
    assert str(error.value).startswith(message)


@pytest.mark.parametrize("flags", [
    {}, {"log_path": "data/log.json"}, {"log_path": "newer/log"}, {"log_path": None},
    {"profiler_path": "new"}, {"predictions_path": "data/test/label.bin"},  # neither has an effect in this mode
])  # fmt: skip
def test_other_outputs_are_allowed(dataset, monkeypatch, flags):
    root, spec = dataset
    monkeypatch.chdir(root)
    check_apart(TrainConfig(dataset_path="data", save_checkpoint_path="new", **flags), spec)


def test_a_run_leaves_its_input_as_it_is(tmp_path):
    write_dataset(tmp_path / "data", train=60, test=20)
    files = {path: path.read_bytes() for path in (tmp_path / "data").rglob("*") if path.is_file()}
    for name in ("feature_spec.yaml", "train/label.bin"):
        with pytest.raises(ValueError, match=f"{name}: is a file of the dataset. Name another file."):
            in_process.run(tmp_path / "data", tmp_path / "data" / name)
    assert files == {path: path.read_bytes() for path in (tmp_path / "data").rglob("*") if path.is_file()}
