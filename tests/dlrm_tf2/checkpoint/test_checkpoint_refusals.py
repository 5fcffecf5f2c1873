"""Checkpoints that are refused, on every rank, and the reasons."""

import json
import os
import shutil

import numpy as np
import pytest
from support.checkpoint_case import PLANS, TABLES, Variable, assert_restored, dense_of, weights_of

from dlrm_tf2.checkpoint import CheckpointError, files, load_checkpoint, manifest
from dlrm_tf2.sharding.tables import TableConfig


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


@pytest.mark.parametrize("file", [TABLE_FILE, DENSE_FILE, "manifest.json"])
def test_a_device_in_the_place_of_a_file(saved, refused, file):
    """Not a pipe, so that a reader that opens it does not wait; it would read zeros for ever."""
    (saved / file).unlink()
    (saved / file).symlink_to("/dev/zero")
    assert f"{saved / file}: cannot be read: is a device, and not a plain file" in refused(saved)


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
    assert f"{path}: its checksum does not fit its content" in refused(saved)
    path.write_text(content.replace('"format": 1', '"format": 4'))
    assert "is of format 4; this program reads the formats 1 to 3" in refused(saved)
    path.write_text('{"format": 1, "splits": {}}')
    assert "is not the manifest of a checkpoint" in refused(saved)
    path.write_text("[]")
    assert "is not the manifest of a checkpoint" in refused(saved)
    path.unlink()
    assert f"{path}: there is no such file, so {saved} is not a checkpoint" in refused(saved)
    shutil.rmtree(saved)
    assert f"so {saved} is not a checkpoint" in refused(saved)


def forged(path, change):
    """Changes the manifest, and makes its checksum right."""
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
        (lambda content: content["tables"].pop(), "has a shard, but the table is not listed"),
        (lambda content: content["shards"][0].update(rows=[1, 12]), "does not lie in the table"),
        (lambda content: content["shards"][0].update(rows=[0, 10]), "is not the float32 or bfloat16 rectangle"),
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
    message = refused(saved, slots=("weights", "accumulator"))
    assert "has no optimizer state accumulator, which the optimizer of this run needs; found none" in message


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
            load_checkpoint(saved, comm, dense=dense, embedding=embedding)
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
    names = {
        manifest.shard_path(name, "weights", rows=(0, 1), columns=(0, 1))
        for name in (one, other, "a/b", "a%2Fb", "..", ".")
    }
    assert len(names) == 6
    assert all(len(name) < 255 and name.count("/") == 1 and not name.startswith("tables/../") for name in names)
