import errno
import json
import os
import subprocess
import sys

import numpy as np
import pytest

from dlrm_tf2 import export
from dlrm_tf2.checkpoint import files, save_checkpoint
from dlrm_tf2.embedding.plan import Shard, ShardingPlan
from dlrm_tf2.embedding.tables import TableConfig

TABLES = (TableConfig("store", 9, 4), TableConfig("item", 5, 4, features=("item", "last_item")))
WEIGHTS = {
    ("weights", "store"): np.arange(36, dtype=np.float32).reshape(9, 4),
    ("weights", "item"): -np.arange(20, dtype=np.float32).reshape(5, 4),
}
# Two ranks; `store` cut in rows and columns, `item` in columns.
PLAN = ShardingPlan(2, (
    Shard("store", 0, (0, 6), (0, 1)), Shard("store", 1, (0, 6), (1, 4)), Shard("store", 1, (6, 9), (0, 4)),
    Shard("item", 0, (0, 5), (0, 2)), Shard("item", 1, (0, 5), (2, 4))))


class Variable:
    def __init__(self, value):
        self.value = value

    def numpy(self):
        return self.value


@pytest.fixture
def checkpoint(run_ranks, array_embedding, tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_BLOCK_BYTES", 32)  # two rows at a time

    def save(comm):
        dense = {"top_mlp/0/bias": Variable(np.array([1.5, 2.5], np.float32))}
        embedding = array_embedding(TABLES, PLAN, comm.rank, weights=WEIGHTS)
        save_checkpoint(tmp_path / "saved", comm, dense, embedding, {"step": 7})

    run_ranks(2, save)
    return tmp_path / "saved"


def test_whole_tables_in_channel_order(checkpoint, tmp_path, capsys):
    assert export.main([f"--checkpoint={checkpoint}/", "--output", f"{tmp_path}/plain/"]) == 0
    output = tmp_path / "plain"
    for i, table in enumerate(("store", "item", "item")):
        array = np.load(output / f"feature_{i}.npy", mmap_mode="r")
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, WEIGHTS["weights", table])
    assert np.load(output / "dense/top_mlp%2F0%2Fbias.npy").tolist() == [1.5, 2.5]
    contents = json.loads((output / "export.json").read_text())
    assert [entry["feature"] for entry in contents["features"]] == ["store", "item", "last_item"]
    assert contents["features"][2] == {
        "file": "feature_2.npy", "feature": "last_item", "table": "item", "rows": 5, "embedding_dim": 4
    }
    assert contents["document"] == {"step": 7}
    assert contents["dense"] == {"top_mlp/0/bias": "dense/top_mlp%2F0%2Fbias.npy"}
    assert sorted(os.listdir(tmp_path)) == ["plain", "saved"]
    assert capsys.readouterr().out.splitlines() == [
        "feature_0.npy: store, 9 x 4", "feature_1.npy: item, 5 x 4", "feature_2.npy: last_item, 5 x 4",
        f"{tmp_path}/plain/: 3 tables, 1 dense variables"]


def test_an_empty_output_folder_is_fine(checkpoint, tmp_path):
    (tmp_path / "plain").mkdir()
    export.export(checkpoint, tmp_path / "plain")
    assert (tmp_path / "plain" / "feature_0.npy").exists()


def refused(capsys, checkpoint, output):
    """The one line that the program says as it ends with status 1."""
    assert export.main(["--checkpoint", str(checkpoint), "--output", str(output)]) == 1
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.startswith("export: ") and printed.err.count("\n") == 1
    return printed.err


def test_misuse_is_one_line(checkpoint, tmp_path, capsys):
    assert f"there is no such file, so {tmp_path}/none is no checkpoint" in refused(
        capsys, tmp_path / "none", tmp_path / "plain"
    )
    assert f"{checkpoint}: is not an empty folder. Name another --output" in refused(capsys, checkpoint, checkpoint)
    (tmp_path / "file").write_text("x")
    assert "file: is not an empty folder" in refused(capsys, checkpoint, tmp_path / "file")
    assert sorted(os.listdir(tmp_path)) == ["file", "saved"]


def test_a_damaged_checkpoint_leaves_no_output(checkpoint, tmp_path, capsys):
    damaged = checkpoint / "tables/store.weights.r6-9.c0-4.npy"
    content = bytearray(damaged.read_bytes())
    content[-1] ^= 1
    damaged.write_bytes(content)
    assert "The file is damaged" in refused(capsys, checkpoint, tmp_path / "plain")
    assert os.listdir(tmp_path) == ["saved"]


def test_a_full_disk_leaves_no_output(checkpoint, tmp_path, capsys, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwritev", full)
    assert "No space left on device" in refused(capsys, checkpoint, tmp_path / "plain")
    assert os.listdir(tmp_path) == ["saved"]


def test_it_runs_as_a_module_without_tensorflow(checkpoint, tmp_path):
    code = (
        "import sys; from dlrm_tf2.export import main; "
        f"status = main(['--checkpoint', {str(checkpoint)!r}, '--output', {str(tmp_path / 'plain')!r}]); "
        "assert 'tensorflow' not in sys.modules; sys.exit(status)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    usage = subprocess.run([sys.executable, "-m", "dlrm_tf2.export"], capture_output=True, text=True)
    assert usage.returncode == 2 and "--checkpoint" in usage.stderr
