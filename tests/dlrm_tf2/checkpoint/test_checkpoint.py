"""Saving and restoring with ranks as threads: from any plan to any plan, and the folder after a failure."""

import errno
import fcntl
import os
import shutil

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.checkpoint_case import (
    DOCUMENT,
    PLANS,
    STRATEGY_PLANS,
    TABLES,
    assert_restored,
    dense_of,
    folder_bytes,
    split_plan,
    weights_of,
)

from dlrm_tf2.checkpoint import (
    CheckpointError,
    check_destination,
    files,
    load_checkpoint,
    read_document,
    save_checkpoint,
    staging,
)
from dlrm_tf2.runtime.comm import SingleProcess
from dlrm_tf2.sharding.plan import make_plan
from dlrm_tf2.sharding.tables import TableConfig


@pytest.mark.parametrize("before", [*PLANS, *STRATEGY_PLANS])
def test_any_plan_restores_what_any_plan_saved(save, load, tmp_path, monkeypatch, before):
    """Plans of strategies restore each other, for any number of ranks; so do the plans that are cut by hand."""
    plans = PLANS if before in PLANS else STRATEGY_PLANS
    monkeypatch.setattr(files, "_BLOCK_BYTES", 48)  # small blocks: a shard has several
    slots = ("weights", "accumulator")
    save(tmp_path / "saved", plans[before], slots)
    for plan in plans.values():
        assert_restored(load(tmp_path / "saved", plan, slots), slots)


def test_the_strategies_replicate_and_cut():
    for ranks in (2, 3, 4):
        plans = {name[2:]: plan for name, plan in STRATEGY_PLANS.items() if name.startswith(str(ranks))}
        assert plans["balanced"].replicated and plans["memory_optimized"].replicated
        for name, axis in (("memory_balanced", "columns"), ("memory_optimized", "rows"), ("balanced and cut", "rows")):
            assert len({getattr(shard, axis) for shard in plans[name].of_table("cat_0")}) > 1, (ranks, name)


@st.composite
def cut_plans(draw):
    world_size = draw(st.integers(1, 3))
    cuts = [draw(st.lists(st.integers(1, limit), unique=True).map(sorted)) for limit in (10, 5)]
    return split_plan(world_size, *cuts)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(before=cut_plans(), after=cut_plans())
def test_any_grid_restores_what_any_grid_saved(save, load, tmp_path, before, after):
    save(tmp_path / "saved", before)
    assert_restored(load(tmp_path / "saved", after))


def test_the_folder_on_disk(save, tmp_path):
    save(tmp_path / "saved", PLANS["2 columns"])
    folder = tmp_path / "saved"
    assert sorted(folder_bytes(folder)) == [
        "dense/bottom_mlp%2F0%2Fbias.npy",
        "dense/bottom_mlp%2F0%2Fkernel.npy",
        "dense/iterations.npy",
        "manifest.json",
        "tables/cat_0.weights.r0-11.c0-3.npy",
        "tables/cat_0.weights.r0-11.c3-6.npy",
        "tables/shop%2F%C3%A9t%C3%A9.bin.weights.r0-7.c0-3.npy",
        "tables/shop%2F%C3%A9t%C3%A9.bin.weights.r0-7.c3-6.npy",
        "tables/tiny.weights.r0-1.c0-3.npy",
        "tables/tiny.weights.r0-1.c3-6.npy",
    ]
    mapped = np.load(folder / "tables/cat_0.weights.r0-11.c3-6.npy", mmap_mode="r")
    np.testing.assert_array_equal(mapped, weights_of()["weights", "cat_0"][:, 3:])
    assert np.load(folder / "dense/iterations.npy") == 0
    assert os.listdir(tmp_path) == ["saved"]


def test_the_document_alone(save, tmp_path):
    save(tmp_path / "saved", PLANS["2 whole"])
    shutil.rmtree(tmp_path / "saved" / "tables")
    with pytest.raises(CheckpointError, match="cannot be read: No such file"):
        read_document(tmp_path / "saved")
    save(tmp_path / "again", PLANS["2 whole"], document={"step": 3, 5: (1, float("inf"))})
    assert read_document(f"{tmp_path}/again/") == {"step": 3, "5": [1, float("inf")]}


def test_shards_are_written_and_read_in_blocks(run_ranks, array_embedding, tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_BLOCK_BYTES", 400)
    table = TableConfig("big", 1000, 5)
    plan = make_plan([table], 1)
    values = np.arange(5000, dtype=np.float32).reshape(1000, 5)
    saved = array_embedding([table], plan, 0, weights={("weights", "big"): values})
    save_checkpoint(tmp_path / "saved", SingleProcess(), dense={}, embedding=saved, document={})
    restored = array_embedding([table], plan, 0)
    load_checkpoint(tmp_path / "saved", SingleProcess(), dense={}, embedding=restored)
    np.testing.assert_array_equal(restored.parts["weights", plan.shards[0]], values)
    assert saved.largest_block_bytes == restored.largest_block_bytes == 400


def test_a_real_variable_and_a_real_embedding(tmp_path):
    tf = pytest.importorskip("tensorflow")
    from dlrm_tf2.embedding.layer import DistributedEmbedding

    tables = (TableConfig("a", 5, 4), TableConfig("b", 3, 4))
    comm, plan = SingleProcess(), make_plan(tables, 1)
    saved, kernel = DistributedEmbedding(tables, plan, comm=comm, seed=1), tf.Variable([[1.0, 2.0]])
    save_checkpoint(tmp_path / "saved", comm, dense={"kernel": kernel}, embedding=saved, document={"step": 1})
    restored, other = DistributedEmbedding(tables, plan, comm=comm, seed=2), tf.Variable([[0.0, 0.0]])
    assert load_checkpoint(tmp_path / "saved", comm, dense={"kernel": other}, embedding=restored) == {"step": 1}
    assert other.numpy().tolist() == [[1.0, 2.0]]
    for shard in plan.shards:
        np.testing.assert_array_equal(
            restored.read_rows(shard, "weights", start=shard.rows[0], stop=shard.rows[1]),
            saved.read_rows(shard, "weights", start=shard.rows[0], stop=shard.rows[1]),
        )


# Where a checkpoint may be saved.


@pytest.mark.parametrize("prepare", ["absent", "empty", "slash", "nested", "symlink"])
def test_destinations(save, load, tmp_path, prepare):
    path = tmp_path / "saved"
    if prepare == "empty":
        path.mkdir()
    elif prepare == "slash":
        path = f"{path}/"
    elif prepare == "nested":
        path = tmp_path / "a" / "b" / "saved"
    elif prepare == "symlink":
        (tmp_path / "real").mkdir()
        path.symlink_to("real")
    check_destination(path)
    save(path, PLANS["2 whole"])
    assert_restored(load(path, PLANS["1 whole"]))


def test_an_older_checkpoint_is_replaced_whole(save, load, tmp_path):
    save(tmp_path / "saved", PLANS["3 grid"], slots=("weights", "accumulator"))
    save(tmp_path / "saved", PLANS["1 whole"], seed=5)
    assert_restored(load(tmp_path / "saved", PLANS["2 rows"]), seed=5)
    assert len(list((tmp_path / "saved" / "tables").iterdir())) == len(TABLES)
    assert os.listdir(tmp_path) == ["saved"]


def test_other_files_are_not_replaced(save, tmp_path):
    dataset = tmp_path / "dataset"
    dataset.mkdir()
    (dataset / "manifest.json").write_text('{"format": 1, "splits": {}}')
    (tmp_path / "file").write_text("x")
    save(tmp_path / "annotated", PLANS["1 whole"])
    (tmp_path / "annotated" / "notes.txt").write_text("my notes")
    before = folder_bytes(tmp_path)
    for name, reason in (
        ("dataset", "holds files that do not belong to a checkpoint, and saving would replace them"),
        ("annotated", "holds files that do not belong to a checkpoint"),
        ("file", "is not a folder"),
    ):
        with pytest.raises(CheckpointError, match=reason):
            check_destination(tmp_path / name)
        errors = save(tmp_path / name, PLANS["2 whole"])
        assert all(isinstance(error, CheckpointError) and reason in str(error) for error in errors)
    assert folder_bytes(tmp_path) == before
    for root in ("/", "/proc"):
        with pytest.raises(CheckpointError, match="is a mount point"):
            check_destination(root)


def test_a_folder_that_may_not_be_written(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # the tests may run as root, who may write everywhere
    with pytest.raises(CheckpointError, match=rf"a/saved: {tmp_path} is not writable for this user"):
        check_destination(tmp_path / "a" / "saved")


# Failures while saving.


@pytest.mark.parametrize("failing_rank", [0, 1, 2])
@pytest.mark.parametrize("previous", [True, False])
def test_a_full_disk_on_any_rank_keeps_the_previous_checkpoint(
    run_ranks, array_embedding, save, load, tmp_path, failing_rank, previous
):
    if previous:
        save(tmp_path / "saved", PLANS["2 whole"])
    before = folder_bytes(tmp_path)

    def work(comm):
        embedding = array_embedding(TABLES, PLANS["3 grid"], comm.rank, weights=weights_of(seed=9))
        if comm.rank == failing_rank:

            def read_rows(*_, **__):
                raise OSError(errno.ENOSPC, "No space left on device")

            embedding.read_rows = read_rows
        save_checkpoint(tmp_path / "saved", comm, dense=dense_of(9), embedding=embedding, document=DOCUMENT)

    errors = run_ranks(3, work)
    for error in errors:
        assert isinstance(error, CheckpointError)
        assert "saved: the checkpoint of step 41 was not saved; the content of the folder is unchanged" in str(error)
        assert f"rank {failing_rank}: " in str(error) and "No space left on device" in str(error)
    assert folder_bytes(tmp_path) == before
    assert not [name for name in os.listdir(tmp_path) if name != "saved"]
    if previous:
        assert_restored(load(tmp_path / "saved", PLANS["1 whole"]))


def test_a_full_disk_names_the_file(tmp_path):
    def blocks():
        yield np.zeros(3)
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(CheckpointError, match=rf"{tmp_path}/a.npy: cannot be written: No space left on device\."):
        files.write_npy(tmp_path, "a.npy", shape=(6,), dtype="<f8", blocks=blocks())


@pytest.mark.parametrize("step", ["manifest", "first rename", "second rename"])
def test_a_failure_at_the_commit_keeps_the_previous_checkpoint(save, load, tmp_path, monkeypatch, step):
    save(tmp_path / "saved", PLANS["2 whole"])
    rename = os.rename

    def fail(source, target):
        if str(target).endswith(".old") if step == "first rename" else str(source).endswith(".partial"):
            raise OSError(errno.EIO, "Input/output error")
        rename(source, target)

    with monkeypatch.context() as patch:
        if step == "manifest":
            patch.setattr(staging, "write_manifest", lambda *_, **__: fail("x.partial", "y"))
        else:
            patch.setattr(os, "rename", fail)
        errors = save(tmp_path / "saved", PLANS["3 rows"], seed=9)
    assert all(isinstance(error, CheckpointError) and "Input/output error" in str(error) for error in errors)
    assert os.listdir(tmp_path) == ["saved"]
    assert_restored(load(tmp_path / "saved", PLANS["1 whole"]))


def test_ctrl_c_removes_the_staging_folder(array_embedding, tmp_path):
    embedding = array_embedding(TABLES, PLANS["1 whole"], 0, weights=weights_of())

    def read_rows(*_, **__):
        raise KeyboardInterrupt

    embedding.read_rows = read_rows
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(tmp_path / "saved", SingleProcess(), dense=dense_of(0), embedding=embedding, document=DOCUMENT)
    assert os.listdir(tmp_path) == []


def test_a_document_that_is_not_json_fails_before_anything_is_written(save, tmp_path):
    errors = save(tmp_path / "saved", PLANS["2 whole"], document={"step": object()})
    assert all("TypeError" in str(error) for error in errors)
    assert os.listdir(tmp_path) == []


def test_what_a_killed_save_left_is_cleared(save, load, tmp_path):
    leftover = tmp_path / ".saved.partial"
    (leftover / "tables").mkdir(parents=True)
    (leftover / "tables" / "cat_0.weights.r0-11.c0-6.npy").write_text("half")
    save(tmp_path / "saved", PLANS["1 whole"])
    assert_restored(load(tmp_path / "saved", PLANS["1 whole"]))
    assert os.listdir(tmp_path) == ["saved"]


def test_killed_between_the_two_renames(save, load, tmp_path, capfd):
    save(tmp_path / "saved", PLANS["1 whole"])
    os.rename(tmp_path / "saved", tmp_path / ".saved.old")
    assert_restored(load(tmp_path / "saved", PLANS["2 rows"]))
    assert "a save was killed while it replaced this checkpoint" in capfd.readouterr().err

    def fail(*_, **__):
        raise OSError("no")

    with pytest.MonkeyPatch.context() as patch:  # the next save repairs it, even if it then fails itself
        patch.setattr(staging, "write_manifest", fail)
        save(tmp_path / "saved", PLANS["2 whole"], seed=9)
    assert os.listdir(tmp_path) == ["saved"]
    assert_restored(load(tmp_path / "saved", PLANS["2 rows"]))


def test_killed_after_the_second_rename(save, load, tmp_path):
    save(tmp_path / "saved", PLANS["1 whole"])
    shutil.copytree(tmp_path / "saved", tmp_path / ".saved.old")
    save(tmp_path / "saved", PLANS["2 whole"], seed=3)
    assert os.listdir(tmp_path) == ["saved"]
    assert_restored(load(tmp_path / "saved", PLANS["1 whole"]), seed=3)


def test_two_jobs_do_not_save_into_one_folder(save, tmp_path):
    (tmp_path / ".saved.partial").mkdir()
    other_job = os.open(tmp_path / ".saved.partial", os.O_RDONLY)
    fcntl.flock(other_job, fcntl.LOCK_EX)
    errors = save(tmp_path / "saved", PLANS["2 whole"])
    os.close(other_job)
    assert all("another process is writing there" in str(error) for error in errors)
    assert os.listdir(tmp_path) == [".saved.partial"]  # the other job's
