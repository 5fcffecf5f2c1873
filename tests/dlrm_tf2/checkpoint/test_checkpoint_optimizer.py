"""Optimizer state is restored as what it is, or not at all: --fresh_optimizer, other optimizers, evaluation."""

import numpy as np
import pytest
from support import in_process
from support.checkpoint_case import PLANS, TABLES, Variable, dense_of, weights_of
from support.small_dataset import write_dataset

from dlrm_tf2.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from dlrm_tf2.runtime.comm import SingleProcess

KERNEL = "bottom_mlp/0/kernel"


def dense_with(seed, *slots):
    dense = dense_of(seed)
    state = {f"{KERNEL}.{slot}": Variable(np.full((13, 4), seed + 0.5, np.float32)) for slot in slots}
    return dense | state


@pytest.fixture
def roundtrip(array_embedding, tmp_path):
    """Saves with some state of tables and variables, and restores into a model with other state."""

    def roundtrip(saved, needed, *, document=None, **options):
        plan, comm = PLANS["1 cut"], SingleProcess()
        slots = ("weights", *saved[0])
        embedding = array_embedding(TABLES, plan, 0, slots, weights_of(slots))
        document = {"step": 1, **(document or {})}
        save_checkpoint(
            tmp_path / "saved", comm, dense=dense_with(3, *saved[1]), embedding=embedding, document=document
        )
        restored, dense, lines = (
            array_embedding(TABLES, plan, 0, ("weights", *needed[0])),
            dense_with(9, *needed[1]),
            [],
        )
        load_checkpoint(tmp_path / "saved", comm, dense=dense, embedding=restored, say=lines.append, **options)
        return embedding, restored, dense, lines

    return roundtrip


def test_the_same_state_is_restored(roundtrip):
    saved, restored, dense, lines = roundtrip((["accumulator"], ["accumulator"]), (["accumulator"], ["accumulator"]))
    for key, values in saved.parts.items():
        np.testing.assert_array_equal(restored.parts[key], values)
    assert dense[f"{KERNEL}.accumulator"].value[0, 0] == 3.5 and lines == []


def test_state_of_another_meaning_is_refused(roundtrip):
    adagrad, rowwise = (["accumulator"], ["accumulator"]), (["row_accumulator"], ["accumulator"])
    with pytest.raises(CheckpointError, match="no optimizer state row_accumulator, .* found accumulator. .*fresh_opt"):
        roundtrip(adagrad, rowwise)
    with pytest.raises(CheckpointError, match="no optimizer state accumulator, .* found accumulator, row_accumulator"):
        roundtrip(rowwise, adagrad)
    with pytest.raises(CheckpointError, match="no optimizer state momentum, .* found none"):
        roundtrip(([], []), ([], ["momentum"]))


def test_a_checkpoint_in_which_rowwise_adagrad_used_the_name_of_adagrad(roundtrip):
    document = {"config": {"optimizer": "rowwise_adagrad"}}
    with pytest.raises(CheckpointError, match="no optimizer state accumulator"):
        roundtrip((["accumulator"], []), (["accumulator"], []), document=document)
    _, restored, _, _ = roundtrip((["accumulator"], []), (["row_accumulator"], []), document=document)
    expected = weights_of(("weights", "accumulator"))["accumulator", "cat_0"]
    shard = PLANS["1 cut"].of_table("cat_0")[0]
    np.testing.assert_array_equal(
        restored.parts["row_accumulator", shard], expected[slice(*shard.rows), slice(*shard.columns)]
    )


def test_state_that_the_model_does_not_need_is_left_aside_aloud(roundtrip):
    adam = ["first_moment", "second_moment"]
    *_, dense, lines = roundtrip((adam, adam), ([], []))
    assert dense[KERNEL].value.tolist() == dense_of(3)[KERNEL].value.tolist()
    assert len(lines) == 1 and "(first_moment, second_moment) is not restored" in lines[0]


def test_without_state_the_weights_alone_are_restored(roundtrip):
    _, restored, dense, lines = roundtrip(
        (["accumulator"], ["accumulator"]), (["accumulator"], ["accumulator"]), with_state=False
    )
    for (slot, shard), values in restored.parts.items():
        assert np.isnan(values).any() == (slot != "weights"), shard  # the fixture makes tables of NaN
    assert dense[f"{KERNEL}.accumulator"].value[0, 0] == 9.5  # as the new model made it
    assert dense[KERNEL].value.tolist() == dense_of(3)[KERNEL].value.tolist()
    assert "(accumulator) is not restored" in lines[0]


# Whole runs.


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A dataset, and checkpoints of three steps of adagrad and of sgd with momentum."""
    root = tmp_path_factory.mktemp("optimizers")
    write_dataset(root / "data", train=150, test=50)
    for name, flags in {"adagrad": ["--optimizer", "adagrad"], "momentum": ["--momentum", 0.9]}.items():
        in_process.run(root / "data", root / f"{name}.json", *flags, "--save_checkpoint_path", root / name)
    return root


def test_fresh_optimizer_begins_the_state_again(saved, tmp_path):
    arguments = [saved / "data", tmp_path / "log.json", "--optimizer", "rowwise_adagrad", "--evals_per_epoch", 0,
                 "--restore_checkpoint_path", saved / "adagrad"]  # fmt: skip
    with pytest.raises(CheckpointError, match="no optimizer state row_accumulator.*--fresh_optimizer"):
        in_process.run(*arguments)
    run = in_process.run(*arguments, "--fresh_optimizer", "--max_steps", 1)
    assert run.column("step")[0] == 4


@pytest.mark.parametrize("checkpoint, flags, message", [
    ("adagrad", ["--optimizer", "rowwise_adagrad"], "no optimizer state row_accumulator, .* found accumulator"),
    ("adagrad", ["--optimizer", "adam"], "no optimizer state first_moment, second_moment, .* found accumulator"),
    ("adagrad", ["--momentum", 0.5], "no optimizer state momentum, .* found accumulator"),
    ("momentum", ["--optimizer", "adagrad"], "no optimizer state accumulator, .* found momentum. Use the optimizer"),
])  # fmt: skip
def test_missing_state_is_found_before_a_table_is_made(saved, tmp_path, monkeypatch, checkpoint, flags, message):
    made = []
    monkeypatch.setattr("dlrm_tf2.job.start.Dlrm", lambda *_, **__: made.append("the model"))
    with pytest.raises(CheckpointError, match=message):
        in_process.run(saved / "data", tmp_path / "log.json", *flags, "--restore_checkpoint_path", saved / checkpoint)
    assert made == [] and not (tmp_path / "log.json").exists()


def test_adam_counts_its_steps_from_the_begin_of_its_state(saved, tmp_path):
    """Its first update then has the size of the learning rate in every weight, as at step 1 of a training."""
    arguments = ["--optimizer", "adam", "--learning_rate", 0.01, "--evals_per_epoch", 0, "--max_steps", 1,
                 "--restore_checkpoint_path", saved / "adagrad", "--fresh_optimizer"]  # fmt: skip
    run = in_process.run(saved / "data", tmp_path / "log.json", *arguments, "--save_checkpoint_path", tmp_path / "new")
    moved = np.load(tmp_path / "new/dense/top_mlp_1_bias.npy") - np.load(saved / "adagrad/dense/top_mlp_1_bias.npy")
    np.testing.assert_allclose(np.abs(moved), 0.01, rtol=1e-3)
    resumed = in_process.run(saved / "data", tmp_path / "more.json", *arguments[:-3], "--restore_checkpoint_path",
                             tmp_path / "new")  # fmt: skip
    assert run.column("step") + resumed.column("step") == [4, 5]


@pytest.mark.parametrize("name", ["adagrad", "momentum"])
def test_any_checkpoint_is_evaluated_without_naming_its_optimizer(saved, tmp_path, name):
    run = in_process.run(saved / "data", tmp_path / "log.json", "--mode", "eval", "--restore_checkpoint_path",
                         saved / name)  # fmt: skip
    assert run.records[-1]["num_samples"] == 50


def test_any_checkpoint_is_trained_further_with_sgd(saved, tmp_path, capsys):
    run = in_process.run(saved / "data", tmp_path / "log.json", "--evals_per_epoch", 0, "--restore_checkpoint_path",
                         saved / "adagrad")  # fmt: skip
    assert run.column("step") == [4, 5, 6]
    assert "the optimizer state of the checkpoint (accumulator) is not restored" in capsys.readouterr().out
