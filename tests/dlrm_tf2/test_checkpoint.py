import errno
import fcntl
import itertools
import json
import os
import shutil

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dlrm_tf2.checkpoint import (
    CheckpointError,
    check_destination,
    files,
    load_checkpoint,
    manifest,
    read_document,
    save_checkpoint,
    staging,
)
from dlrm_tf2.comm import SingleProcess
from dlrm_tf2.embedding.plan import Shard, ShardingPlan, make_plan
from dlrm_tf2.embedding.tables import TableConfig

TABLES = (
    TableConfig("cat_0", 11, 6),
    TableConfig("shop/été.bin", 7, 6, features=("shop",)),
    TableConfig("tiny", 1, 6),
)
DOCUMENT = {"model": {"embedding_dim": 6}, "step": 41, "auc": 0.5, "note": "käse", "ids": {"7": [1, 2]}}


def split_plan(world_size, row_cuts=(), column_cuts=()):
    """All tables cut into a grid; the pieces dealt to the ranks in turn."""
    shards, turn = [], itertools.cycle(range(world_size))
    for table in TABLES:
        rows = [0, *(cut for cut in row_cuts if cut < table.num_rows), table.num_rows]
        columns = [0, *column_cuts, table.embedding_dim]
        for rectangle in itertools.product(itertools.pairwise(rows), itertools.pairwise(columns)):
            shards.append(Shard(table.name, next(turn), *rectangle))
    return ShardingPlan(world_size, tuple(shards))


PLANS = {
    "1 whole": make_plan(TABLES, 1),
    "1 cut": split_plan(1, row_cuts=(4,), column_cuts=(2,)),
    "2 whole": make_plan(TABLES, 2),
    "2 columns": split_plan(2, column_cuts=(3,)),
    "2 rows": split_plan(2, row_cuts=(5,)),
    "3 whole": make_plan(TABLES, 3),
    "3 columns": split_plan(3, column_cuts=(1, 4)),
    "3 rows": split_plan(3, row_cuts=(2, 3, 8)),
    "3 grid": split_plan(3, row_cuts=(3, 6), column_cuts=(4,)),
}


class Variable:
    """What a checkpoint asks of a tf.Variable."""

    def __init__(self, value):
        self.value = np.array(value)

    def numpy(self):
        return self.value

    def assign(self, value):
        assert np.shape(value) == self.value.shape
        self.value = np.array(value)


def weights_of(slots=("weights",), seed=0):
    rng = np.random.default_rng(seed)
    return {
        (slot, table.name): rng.normal(size=(table.num_rows, table.embedding_dim)).astype(np.float32)
        for slot in slots
        for table in TABLES
    }


def dense_of(seed):
    rng = np.random.default_rng(seed)
    return {
        "bottom_mlp/0/kernel": Variable(rng.normal(size=(13, 4)).astype(np.float32)),
        "bottom_mlp/0/bias": Variable(rng.normal(size=4).astype(np.float32)),
        "iterations": Variable(np.int64(seed)),
    }


@pytest.fixture
def save(run_ranks, array_embedding):
    def save(path, plan, slots=("weights",), seed=0, document=DOCUMENT):
        def work(comm):
            embedding = array_embedding(TABLES, plan, comm.rank, slots, weights_of(slots, seed))
            save_checkpoint(path, comm, dense_of(seed + comm.rank), embedding, document)
            return embedding

        return run_ranks(plan.world_size, work)

    return save


@pytest.fixture
def load(run_ranks, array_embedding):
    """Loads on all ranks; returns what each rank has: (document, dense, embedding), or the exception of each."""

    def load(path, plan, slots=("weights",), tables=TABLES, dense=None):
        def work(comm):
            embedding = array_embedding(tables, plan, comm.rank, slots)
            variables = dense or dense_of(1000 + comm.rank)
            return load_checkpoint(path, comm, variables, embedding), variables, embedding

        return run_ranks(plan.world_size, work)

    return load


def assert_restored(results, slots=("weights",), seed=0):
    expected = weights_of(slots, seed)
    for document, dense, embedding in results:
        assert document == DOCUMENT
        for name, variable in dense_of(seed).items():
            np.testing.assert_array_equal(dense[name].value, variable.value)
        for (slot, shard), part in embedding.parts.items():
            np.testing.assert_array_equal(part, expected[slot, shard.table][slice(*shard.rows), slice(*shard.columns)])


def folder_bytes(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("after", PLANS)
@pytest.mark.parametrize("before", PLANS)
def test_any_plan_restores_what_any_plan_saved(save, load, tmp_path, monkeypatch, before, after):
    monkeypatch.setattr(files, "_BLOCK_BYTES", 48)  # blocks of two rows and more: none covers a shard
    slots = ("weights", "accumulator")
    save(tmp_path / "saved", PLANS[before], slots)
    assert_restored(load(tmp_path / "saved", PLANS[after], slots), slots)


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
    save_checkpoint(tmp_path / "saved", SingleProcess(), {}, saved, {})
    restored = array_embedding([table], plan, 0)
    load_checkpoint(tmp_path / "saved", SingleProcess(), {}, restored)
    np.testing.assert_array_equal(restored.parts["weights", plan.shards[0]], values)
    assert saved.largest_block_bytes == restored.largest_block_bytes == 400


def test_a_real_variable_and_a_real_embedding(tmp_path):
    tf = pytest.importorskip("tensorflow")
    from dlrm_tf2.embedding.distributed import DistributedEmbedding

    tables = (TableConfig("a", 5, 4), TableConfig("b", 3, 4))
    comm, plan = SingleProcess(), make_plan(tables, 1)
    saved, kernel = DistributedEmbedding(tables, plan, comm, seed=1), tf.Variable([[1.0, 2.0]])
    save_checkpoint(tmp_path / "saved", comm, {"kernel": kernel}, saved, {"step": 1})
    restored, other = DistributedEmbedding(tables, plan, comm, seed=2), tf.Variable([[0.0, 0.0]])
    assert load_checkpoint(tmp_path / "saved", comm, {"kernel": other}, restored) == {"step": 1}
    assert other.numpy().tolist() == [[1.0, 2.0]]
    for shard in plan.shards:
        np.testing.assert_array_equal(
            restored.read_rows(shard, "weights", *shard.rows), saved.read_rows(shard, "weights", *shard.rows)
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


def test_what_is_no_checkpoint_is_not_replaced(save, tmp_path):
    dataset = tmp_path / "dataset"
    dataset.mkdir()
    (dataset / "manifest.json").write_text('{"format": 1, "splits": {}}')
    (tmp_path / "file").write_text("x")
    save(tmp_path / "annotated", PLANS["1 whole"])
    (tmp_path / "annotated" / "notes.txt").write_text("my notes")
    before = folder_bytes(tmp_path)
    for name, reason in (("dataset", "holds files that are no checkpoint, and saving would replace them"),
                         ("annotated", "holds files that are no checkpoint"), ("file", "is not a folder")):
        with pytest.raises(CheckpointError, match=reason):
            check_destination(tmp_path / name)
        errors = save(tmp_path / name, PLANS["2 whole"])
        assert all(isinstance(error, CheckpointError) and reason in str(error) for error in errors)
    assert folder_bytes(tmp_path) == before
    for root in ("/", "/proc"):
        with pytest.raises(CheckpointError, match="is a mount point"):
            check_destination(root)


def test_a_folder_that_may_not_be_written(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # the tests may run as root, who may do all
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
            def read_rows(*_):
                raise OSError(errno.ENOSPC, "No space left on device")
            embedding.read_rows = read_rows
        save_checkpoint(tmp_path / "saved", comm, dense_of(9), embedding, DOCUMENT)

    errors = run_ranks(3, work)
    for error in errors:
        assert isinstance(error, CheckpointError)
        assert "saved: the checkpoint of step 41 was not saved; what was there is unchanged" in str(error)
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
        files.write_npy(tmp_path, "a.npy", (6,), np.float64, blocks())


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

    def read_rows(*_):
        raise KeyboardInterrupt

    embedding.read_rows = read_rows
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(tmp_path / "saved", SingleProcess(), dense_of(0), embedding, DOCUMENT)
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
    assert "a save was killed as it replaced this" in capfd.readouterr().err

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


# What is refused when loading, on every rank.


@pytest.fixture
def refused(load):
    def refused(path, plan="3 grid", **model):
        errors = load(path, PLANS[plan], **model)
        assert all(isinstance(error, CheckpointError) for error in errors)
        return str(errors[0])

    return refused


@pytest.fixture
def saved(save, tmp_path):
    save(tmp_path / "saved", PLANS["2 columns"])
    return tmp_path / "saved"


TABLE_FILE = "tables/cat_0.weights.r0-11.c3-6.npy"
DENSE_FILE = "dense/bottom_mlp%2F0%2Fkernel.npy"


@pytest.mark.parametrize("plan", ["1 whole", "2 rows", "3 grid"])
@pytest.mark.parametrize("file", [TABLE_FILE, DENSE_FILE, "tables/tiny.weights.r0-1.c0-3.npy"])
def test_any_flipped_byte_is_found_on_any_plan(saved, refused, file, plan):
    content = (saved / file).read_bytes()
    for position in (0, 20, 70, 129, len(content) // 2, len(content) - 1):
        damaged = bytearray(content)
        damaged[position] ^= 4
        (saved / file).write_bytes(damaged)
        message = refused(saved, plan)
        assert f"{saved / file}: " in message and "damaged" in message
    (saved / file).write_bytes(content)


@pytest.mark.parametrize("file", [TABLE_FILE, DENSE_FILE])
def test_a_truncated_or_missing_file(saved, refused, file):
    size = (saved / file).stat().st_size
    os.truncate(saved / file, size - 4)
    assert f"{saved / file}: has {size - 4} bytes, the manifest says {size}. The file is truncated" in refused(saved)
    (saved / file).unlink()
    assert f"{saved / file}: cannot be read: No such file or directory" in refused(saved)


def test_a_file_that_shrinks_while_it_is_read(saved, load, monkeypatch):
    monkeypatch.setattr(files, "_BLOCK_BYTES", 12)
    check_header = files._check_header

    def shrink(path, content, file):
        check_header(path, content, file)
        if path.name.startswith("cat_0"):
            os.truncate(path, len(content) + 12)

    monkeypatch.setattr(files, "_check_header", shrink)
    errors = load(saved, PLANS["1 whole"])
    assert "ended while it was read" in str(errors[0])


def test_the_manifest_is_damaged_missing_or_something_else(saved, refused):
    path = saved / "manifest.json"
    content = path.read_text()
    path.write_text(content[: len(content) // 2])
    assert f"{path}: is not whole" in refused(saved)
    path.write_text(content.replace('"step": 41', '"step": 47'))
    assert f"{path}: its checksum does not fit what it says" in refused(saved)
    path.write_text(content.replace('"format": 1', '"format": 2'))
    assert "is of format 2; this program reads format 1" in refused(saved)
    path.write_text('{"format": 1, "splits": {}}')
    assert "is not the manifest of a checkpoint" in refused(saved)
    path.write_text("[]")
    assert "is not the manifest of a checkpoint" in refused(saved)
    path.unlink()
    assert f"{path}: there is no such file, so {saved} is no checkpoint" in refused(saved)
    shutil.rmtree(saved)
    assert f"so {saved} is no checkpoint" in refused(saved)


def forged(path, change):
    """The manifest with `change` made to it and its checksum right."""
    content = json.loads((path / "manifest.json").read_text())
    del content["crc32"]
    change(content)
    content["crc32"] = manifest._content_checksum(content)
    (path / "manifest.json").write_text(json.dumps(content))


def test_a_manifest_that_contradicts_itself(saved, refused):
    original = (saved / "manifest.json").read_text()
    for change, reason in (
        (lambda content: content["shards"].pop(), "the shards do not cover the 1 x 6 table exactly once"),
        (lambda content: content["shards"].append(content["shards"][0]), "do not cover the 11 x 6 table exactly once"),
        (lambda content: content["tables"].pop(), "a shard of a table that is not listed"),
        (lambda content: content["shards"][0].update(rows=[1, 12]), "does not lie in the table"),
        (lambda content: content["shards"][0].update(rows=[0, 10]), "is not the float32 rectangle"),
        (lambda content: content["dense"]["iterations"].update(path="../../secret"), "leads out of the checkpoint"),
    ):
        forged(saved, change)
        assert reason in refused(saved)
        (saved / "manifest.json").write_text(original)


def test_another_model_is_refused(saved, refused):
    other = TableConfig("cat_0", 12, 6)
    tables = (other, *TABLES[1:])
    message = refused(saved, "1 whole", tables=tables)
    assert "table 'cat_0' has 11 rows of width 6 in the checkpoint, 12 of width 6 in the model" in message
    assert "only the checkpoint has a table 'tiny'" in refused(saved, "1 whole", tables=TABLES[:2])
    more = (*TABLES, TableConfig("new", 2, 6))
    assert "only the model has a table 'new'" in refused(saved, "1 whole", tables=more)
    assert "has no 'accumulator' of the tables, only ['weights']" in refused(saved, slots=("weights", "accumulator"))


def test_other_dense_variables_are_refused(saved, refused):
    kernel = "bottom_mlp/0/kernel"
    message = refused(saved, dense=dense_of(0) | {kernel: Variable(np.zeros((13, 8), np.float32))})
    assert f"dense variable '{kernel}' is <f4 [13, 4] in the checkpoint, <f4 [13, 8] in the model" in message
    message = refused(saved, dense=dense_of(0) | {kernel: Variable(np.zeros((13, 4), np.float64))})
    assert "<f8 [13, 4] in the model" in message
    message = refused(saved, dense=dense_of(0) | {"top_mlp/9/kernel": Variable(0.0)})
    assert "only the model has a dense variable 'top_mlp/9/kernel'" in message
    message = refused(saved, dense={name: variable for name, variable in dense_of(0).items() if name != kernel})
    assert f"only the checkpoint has a dense variable '{kernel}'" in message


def test_refusal_comes_before_any_weight_is_touched(saved, run_ranks, array_embedding):
    def work(comm):
        embedding = array_embedding(TABLES, PLANS["2 rows"], comm.rank, weights=weights_of(seed=7))
        dense = dense_of(7) | {"more": Variable(0.0)}
        with pytest.raises(CheckpointError):
            load_checkpoint(saved, comm, dense, embedding)
        return embedding, dense

    for embedding, dense in run_ranks(2, work):
        for (slot, shard), part in embedding.parts.items():
            whole = weights_of(seed=7)[slot, shard.table]
            np.testing.assert_array_equal(part, whole[slice(*shard.rows), slice(*shard.columns)])
        np.testing.assert_array_equal(dense["iterations"].value, 7)


def test_a_model_for_evaluation_leaves_optimizer_state_alone(save, load, tmp_path):
    save(tmp_path / "saved", PLANS["2 rows"], slots=("weights", "accumulator"))
    assert_restored(load(tmp_path / "saved", PLANS["3 columns"]))


def test_long_names_get_short_files_that_differ():
    one, other = "x" * 300 + "1", "x" * 300 + "2"
    names = {manifest.shard_path(name, "weights", (0, 1), (0, 1)) for name in (one, other, "a/b", "a%2Fb", "..", ".")}
    assert len(names) == 6
    assert all(len(name) < 255 and name.count("/") == 1 and not name.startswith("tables/../") for name in names)
