"""Checkpoints written behind the training, older checkpoints, and processes that are killed at any moment."""

import errno
import os
import shutil
import threading

import numpy as np
import pytest
from support.checkpoint_case import PLANS, TABLES, Variable, dense_of, folder_bytes, weights_of

from dlrm_tf2.checkpoint import (
    CheckpointError,
    CheckpointWriter,
    best_path,
    load_checkpoint,
    of_other_runs,
    part,
    read_document,
    save_checkpoint,
)
from dlrm_tf2.runtime.comm import SingleProcess

SLOTS = ("weights", "accumulator")


def document(step, run="a"):
    return {"step": step, "run": {"id": run}}


@pytest.fixture
def save_step(array_embedding):
    """Saves, on one rank, weights that depend on the step."""

    def save_step(path, step, keep=1, run="a"):
        embedding = array_embedding(TABLES, PLANS["1 whole"], 0, weights=weights_of(seed=step))
        return save_checkpoint(
            path, SingleProcess(), dense=dense_of(step), embedding=embedding, document=document(step, run), keep=keep
        )

    return save_step


@pytest.fixture
def step_in(array_embedding):
    """The step of the checkpoint in a folder, after a check that all weights belong to that step."""

    def step_in(path):
        embedding = array_embedding(TABLES, PLANS["1 whole"], 0)
        step = load_checkpoint(path, SingleProcess(), dense=dense_of(0), embedding=embedding)["step"]
        expected = weights_of(seed=step)
        for (slot, shard), values in embedding.parts.items():
            np.testing.assert_array_equal(values, expected[slot, shard.table])
        return step

    return step_in


# Written behind.


def written_behind(path, comm, array_embedding, while_writing=lambda embedding: None):
    """Saves behind the training, which changes all values before the first byte is written."""
    plan = PLANS[f"{comm.size} rows" if comm.size > 1 else "1 cut"]
    embedding = array_embedding(TABLES, plan, comm.rank, SLOTS, weights_of(SLOTS))
    dense, go = dense_of(3), threading.Event()
    write = part.write_npy

    def wait_and_write(*arguments, **named):
        assert go.wait(60)
        return write(*arguments, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dlrm_tf2.checkpoint.part.write_npy", wait_and_write)
        saving = CheckpointWriter(path, comm, document=document(3))
        saving.write_behind(dense, embedding)
        assert not saving.is_written()
        for values in embedding.parts.values():
            values += 1
        for variable in dense.values():
            variable.value = variable.value + 1
        while_writing(embedding)
        go.set()
        saving.commit()


@pytest.mark.parametrize("ranks", [1, 3])
def test_checkpoint_async_saves_the_bytes_that_a_save_in_place_does(run_ranks, array_embedding, tmp_path, ranks):
    plan = PLANS["3 rows" if ranks == 3 else "1 cut"]

    def work(comm):
        embedding = array_embedding(TABLES, plan, comm.rank, SLOTS, weights_of(SLOTS))
        save_checkpoint(tmp_path / "at_once", comm, dense=dense_of(3), embedding=embedding, document=document(3))
        written_behind(tmp_path / "behind", comm, array_embedding)

    assert run_ranks(ranks, work) == [None] * ranks
    assert folder_bytes(tmp_path / "at_once") == folder_bytes(tmp_path / "behind")


def test_a_slot_of_one_number_a_row_is_copied_as_one_number(array_embedding):
    embedding = array_embedding(TABLES, PLANS["2 columns"], 0)
    embedding.read_rows = lambda shard, slot, start, stop: np.broadcast_to(
        np.arange(start, stop, dtype=np.float32)[:, None], (stop - start, shard.num_columns)
    )
    copy = part.TablesCopy(embedding)
    assert sum(array.nbytes for array in copy._arrays.values()) == 4 * sum(table.num_rows for table in TABLES)
    shard = embedding.plan.of_rank(0)[0]
    np.testing.assert_array_equal(copy.read_rows(shard, "weights", start=2, stop=4), [[2, 2, 2], [3, 3, 3]])


@pytest.mark.parametrize("failing_rank", [0, 2])
def test_a_full_disk_behind_training_is_an_error_on_all_ranks(
    run_ranks, array_embedding, save_step, step_in, tmp_path, monkeypatch, failing_rank
):
    save_step(tmp_path / "saved", 1)
    before, write, ranks_of = folder_bytes(tmp_path), part.write_part, {}

    def full(folder, dense, embedding):
        if embedding.rank == failing_rank:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(folder, dense, embedding)

    monkeypatch.setattr("dlrm_tf2.checkpoint.saving.write_part", full)

    def work(comm):
        embedding = array_embedding(TABLES, PLANS["3 rows"], comm.rank, weights=weights_of(seed=9))
        saving = CheckpointWriter(tmp_path / "saved", comm, document=document(2))
        saving.write_behind(dense_of(9), embedding)
        ranks_of[comm.rank] = True
        saving.commit()

    for error in run_ranks(3, work):
        assert isinstance(error, CheckpointError)
        assert "saved: the checkpoint of step 2 was not saved; the content of the folder is unchanged" in str(error)
        assert f"rank {failing_rank}: " in str(error) and "No space left on device" in str(error)
    assert len(ranks_of) == 3 and folder_bytes(tmp_path) == before
    assert os.listdir(tmp_path) == ["saved"] and step_in(tmp_path / "saved") == 1


def test_a_copy_that_has_no_memory_is_an_error_on_all_ranks(run_ranks, array_embedding, tmp_path):
    def work(comm):
        embedding = array_embedding(TABLES, PLANS["2 rows"], comm.rank, weights=weights_of())
        if comm.rank == 1:

            def read_rows(*_, **__):
                raise MemoryError

            embedding.read_rows = read_rows
        CheckpointWriter(tmp_path / "saved", comm, document=document(1)).write_behind(dense_of(0), embedding)

    errors = run_ranks(2, work)
    assert all("rank 1: MemoryError" in str(error) for error in errors), errors
    assert os.listdir(tmp_path) == []


# Numbers that are not finite.


@pytest.mark.parametrize("where", ["weights", "accumulator", "dense"])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_model_that_diverged_does_not_replace_a_good_one(array_embedding, save_step, step_in, tmp_path, where, bad):
    save_step(tmp_path / "saved", 1)
    embedding = array_embedding(TABLES, PLANS["1 whole"], 0, SLOTS, weights_of(SLOTS))
    dense = dense_of(2)
    if where == "dense":
        dense["bottom_mlp/0/bias"] = Variable(np.array([1, 2, bad, 4], np.float32))
        what = "variable 'bottom_mlp/0/bias': holds numbers that are not finite"
    else:
        embedding.parts[where, PLANS["1 whole"].of_table("cat_0")[0]][7, 2] = bad
        what = f"table 'cat_0', {where}: holds numbers that are not finite"
    with pytest.raises(CheckpointError, match="the checkpoint of step 2 was not saved") as error:
        save_checkpoint(tmp_path / "saved", SingleProcess(), dense=dense, embedding=embedding, document=document(2))
    assert what in str(error.value)
    assert step_in(tmp_path / "saved") == 1 and os.listdir(tmp_path) == ["saved"]


# Older checkpoints.


def test_keep_checkpoints_keeps_the_last_ones_of_the_run(save_step, step_in, tmp_path):
    path = tmp_path / "saved"
    for step in (5, 10, 15, 20):
        assert save_step(path, step, keep=3) == []
    assert sorted(os.listdir(tmp_path)) == ["saved", "saved.step-10", "saved.step-15"]
    assert [step_in(tmp_path / name) for name in sorted(os.listdir(tmp_path))] == [20, 10, 15]
    save_step(path, 20, keep=3)  # the same step again, as at the end of a run
    assert sorted(os.listdir(tmp_path)) == ["saved", "saved.step-10", "saved.step-15"]
    save_step(path, 25, keep=2)
    assert sorted(os.listdir(tmp_path)) == ["saved", "saved.step-20"]
    save_step(path, 30)
    assert os.listdir(tmp_path) == ["saved"]


def test_other_runs_and_other_things_are_left_alone(save_step, step_in, tmp_path):
    path = tmp_path / "saved"
    for step in (5, 10):
        save_step(path, step, keep=2, run="old")
    save_step(best_path(path), 5, run="old")
    (tmp_path / "saved.step-7").mkdir()
    (tmp_path / "saved.step-7" / "precious").write_text("x")
    assert {folder.name for folder in of_other_runs(path, "new")} == {"saved.step-5", "saved.best"}
    assert of_other_runs(path, "old") == []
    for step in (2, 3):
        save_step(path, step, keep=2, run="new")  # the first replaces what was in `path`
    assert sorted(os.listdir(tmp_path)) == ["saved", "saved.best", "saved.step-2", "saved.step-5", "saved.step-7"]
    for step in (5, 7):
        save_step(path, step, keep=2, run="new")
    notes = save_step(path, 9, keep=2, run="new")
    assert "saved.step-7: the checkpoint of that step is not kept" in notes[0]
    assert (tmp_path / "saved.step-7" / "precious").exists() and step_in(path) == 9


def test_a_name_that_another_run_has_is_taken_aloud(save_step, step_in, tmp_path):
    path = tmp_path / "saved"
    for step in (5, 10):
        save_step(path, step, keep=2, run="old")
    save_step(path, 5, keep=2, run="new")
    notes = save_step(path, 6, keep=2, run="new")
    assert len(notes) == 1 and "saved.step-5: the checkpoint there was another run's, and is replaced" in notes[0]
    assert read_document(tmp_path / "saved.step-5") == document(5, "new")


class Killed(BaseException):
    """The process is killed here."""


@pytest.mark.parametrize("keep", [1, 2])
def test_killed_at_any_moment_of_a_save_a_whole_checkpoint_is_there(save_step, step_in, tmp_path, monkeypatch, keep):
    """Killed before each change of the file system in turn: the old or the new checkpoint is there, whole."""
    calls = {"count": 0, "die_at": None}

    def mortal(function):
        def call(*arguments, **options):
            calls["count"] += 1
            if calls["count"] == calls["die_at"]:
                raise Killed
            return function(*arguments, **options)

        return call

    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # the disk keeps the pages of a killed process
    for name in ("rename", "fsync", "unlink", "rmdir", "mkdir"):
        monkeypatch.setattr(os, name, mortal(getattr(os, name)))
    monkeypatch.setattr(
        CheckpointWriter, "discard", lambda self: self._staging.release()
    )  # the system does no more for a killed process
    found = set()
    for die_at in range(1, 200):
        root = tmp_path / str(die_at)
        calls.update(count=0, die_at=None)
        for step in (1, 2, 3):
            save_step(root / "saved", step, keep)
        calls.update(count=0, die_at=die_at)
        try:
            save_step(root / "saved", 4, keep)
        except Killed:
            pass
        dead, calls["die_at"] = calls["count"] == die_at, None
        found.add(step_in(root / "saved"))
        assert found <= {3, 4}
        if keep == 2 and (root / "saved.step-3").exists():
            assert step_in(root / "saved.step-3") == 3
        save_step(root / "saved", 5, keep)
        assert step_in(root / "saved") == 5
        before = 4 if (root / "saved.step-4").exists() else 3
        names = ["saved"] if keep == 1 else ["saved", f"saved.step-{before}"]
        assert sorted(os.listdir(root)) == names
        shutil.rmtree(root)
        if not dead:
            break
    assert found == {3, 4} and die_at > 15
