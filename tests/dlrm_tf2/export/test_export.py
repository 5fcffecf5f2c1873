import errno
import json
import os
import subprocess
import sys

import numpy as np
import pytest

from dlrm_tf2.checkpoint import files, save_checkpoint
from dlrm_tf2.export import __main__ as export
from dlrm_tf2.model.config import ModelConfig
from dlrm_tf2.runtime.comm import SingleProcess
from dlrm_tf2.sharding.plan import Shard, ShardingPlan, make_plan
from dlrm_tf2.sharding.tables import TableConfig

TABLES = (TableConfig("store", 9, 4), TableConfig("item", 5, 4, features=("item", "last_item")))
WEIGHTS = {
    ("weights", "store"): np.arange(36, dtype=np.float32).reshape(9, 4),
    ("weights", "item"): -np.arange(20, dtype=np.float32).reshape(5, 4),
}
# Two ranks; `store` cut in rows and columns, `item` in columns.
PLAN = ShardingPlan(
    2,
    (
        Shard("store", 0, rows=(0, 6), columns=(0, 1)),
        Shard("store", 1, rows=(0, 6), columns=(1, 4)),
        Shard("store", 1, rows=(6, 9), columns=(0, 4)),
        Shard("item", 0, rows=(0, 5), columns=(0, 2)),
        Shard("item", 1, rows=(0, 5), columns=(2, 4)),
    ),
)


class Variable:
    def __init__(self, value):
        self.value = value

    def numpy(self):
        return self.value


@pytest.fixture(params=["float32", "bfloat16"])
def checkpoint(run_ranks, array_embedding, tmp_path, monkeypatch, request):
    """All weights are small whole numbers, which both types hold."""
    monkeypatch.setattr(files, "_BLOCK_BYTES", 32)  # two rows at a time

    def save(comm):
        dense = {"top_mlp/0/bias": Variable(np.array([1.5, 2.5], np.float32))}
        embedding = array_embedding(TABLES, PLAN, comm.rank, weights=WEIGHTS)
        embedding.table_dtype = request.param
        save_checkpoint(tmp_path / "saved", comm, dense=dense, embedding=embedding, document={"step": 7})

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
        "file": "feature_2.npy",
        "feature": "last_item",
        "table": "item",
        "rows": 5,
        "embedding_dim": 4,
    }
    assert contents["document"] == {"step": 7} and contents["format"] == "npy"
    assert contents["dense"] == {"top_mlp/0/bias": "dense/top_mlp%2F0%2Fbias.npy"}
    assert sorted(os.listdir(tmp_path)) == ["plain", "saved"]
    assert capsys.readouterr().out.splitlines() == [
        "feature_0.npy: store, 9 x 4",
        "feature_1.npy: item, 5 x 4",
        "feature_2.npy: last_item, 5 x 4",
        f"{tmp_path}/plain/: 3 tables, 1 dense variables",
    ]


@pytest.mark.parametrize("flags, interaction, dims, hotness", [
    ({}, "dot", (), ()), ({"column_slice_threshold": 99, "batch_size": 512}, "cross", (4, 2), (1, 3)),
])  # fmt: skip
def test_the_published_folders(array_embedding, tmp_path, capsys, flags, interaction, dims, hotness):
    shape = ModelConfig(
        ("item", "store"),
        (5, 9),
        num_numerical=13,
        embedding_dim=4,
        bottom_mlp_dims=(6, 4),
        top_mlp_dims=(5, 1),
        hotness=hotness,
        combiner="sum",
        embedding_dims=dims,
        interaction=interaction,
        num_cross_layers=2 if dims else 0,
        cross_layer_projection_dim=3 if dims else 0,
    )
    weights = {("weights", table.name): np.random.default_rng(0).normal(size=(table.num_rows, table.embedding_dim))
               for table in shape.tables}  # fmt: skip
    embedding = array_embedding(shape.tables, make_plan(shape.tables, 1), 0, weights=weights)
    dense = {"top_mlp_0_bias": Variable(np.float32([1.5]))}
    document = {"model": shape.document(), "config": flags}
    save_checkpoint(tmp_path / "saved", SingleProcess(), dense=dense, embedding=embedding, document=document)
    output = tmp_path / "published"
    assert export.main(["--checkpoint", str(tmp_path / "saved"), "--output", str(output), "--format=published"]) == 0
    assert sorted(str(path.relative_to(output)) for path in output.glob("**/*.*")) == [
        "dense/config.json", "dense/top_mlp_0_bias.npy", "export.json", "sparse/config.json", "sparse/feature_0.npy",
        "sparse/feature_1.npy",
    ]  # fmt: skip
    for number, table in enumerate(shape.tables):
        found = np.load(output / f"sparse/feature_{number}.npy")
        np.testing.assert_array_equal(found, np.float32(weights["weights", table.name]))
    sparse, dense = (json.loads((output / part / "config.json").read_text()) for part in ("sparse", "dense"))
    assert sparse == {  # Source: the keys and defaults of the published trainer
        "use_mde_embeddings": True, "embedding_dim": list(dims) or 4,
        "column_slice_threshold": flags.get("column_slice_threshold", 5_000_000_000),
        "embedding_zeros_initializer": False, "embedding_trainable": True, "categorical_cardinalities": [5, 9],
        "concat_embedding": False, "cpu_offloading_threshold_gb": 75, "data_parallel_input": False,
        "row_slice_threshold": 10_000_000_000, "data_parallel_threshold": None,
    }  # fmt: skip
    assert dense == {
        "embedding_dim": list(dims) or 4, "interaction": "cross" if dims else "dot_tensorflow",
        "bottom_mlp_dims": [6, 4], "top_mlp_dims": [5, 1], "num_numerical_features": 13,
        "categorical_cardinalities": [5, 9], "transpose": False, "num_cross_layers": 2 if dims else 0,
        "cross_layer_projection_dim": 3 if dims else 0, "batch_size": flags.get("batch_size", 65536),
    }  # fmt: skip
    said = capsys.readouterr().out
    assert "sparse/feature_1.npy: store, 9 x " in said and "note: the published trainer loads sparse/" in said
    assert ("has no combiner" in said) == bool(hotness)


@pytest.mark.parametrize("form", ["published", "saved_model"])
def test_a_checkpoint_without_the_model_s_shape_is_refused(checkpoint, tmp_path, capsys, form):
    arguments = ["--checkpoint", str(checkpoint), "--output", str(tmp_path / "plain"), "--format", form]
    assert export.main(arguments) == 1
    assert "does not say the shape of its model" in capsys.readouterr().err
    assert os.listdir(tmp_path) == ["saved"]


def test_an_empty_output_folder_is_fine(checkpoint, tmp_path):
    (tmp_path / "plain").mkdir()
    export.export(checkpoint, tmp_path / "plain")
    assert (tmp_path / "plain" / "feature_0.npy").exists()


def refused(capsys, checkpoint, output):
    """The one line of an export that ends with status 1."""
    assert export.main(["--checkpoint", str(checkpoint), "--output", str(output)]) == 1
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.startswith("export: ") and printed.err.count("\n") == 1
    return printed.err


def test_misuse_is_one_line(checkpoint, tmp_path, capsys):
    assert f"there is no such file, so {tmp_path}/none is not a checkpoint" in refused(
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
    assert refused(capsys, checkpoint, tmp_path / "plain") == f"export: {tmp_path}/plain: No space left on device\n"
    assert os.listdir(tmp_path) == ["saved"]


def test_it_runs_as_a_module_without_tensorflow(checkpoint, tmp_path):
    code = (
        "import sys; from dlrm_tf2.export.__main__ import main; "
        f"status = main(['--checkpoint', {str(checkpoint)!r}, '--output', {str(tmp_path / 'plain')!r}]); "
        "assert 'tensorflow' not in sys.modules; sys.exit(status)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    usage = subprocess.run([sys.executable, "-m", "dlrm_tf2.export"], capture_output=True, text=True)
    assert usage.returncode == 2 and "--checkpoint" in usage.stderr
