"""The dense variables of an export: each file is its variable, bit for bit, with the names and shapes of the docs."""

import json

import numpy as np
import pytest
from support import in_process
from support.small_dataset import CARDINALITIES, write_dataset

from dlrm_tf2.checkpoint import CheckpointError, open_checkpoint, save_checkpoint
from dlrm_tf2.export import __main__ as export
from dlrm_tf2.export.npy import write_dense
from dlrm_tf2.runtime.comm import SingleProcess
from dlrm_tf2.sharding.plan import make_plan
from dlrm_tf2.sharding.tables import TableConfig


class Variable:
    def __init__(self, value):
        self.value = value

    def numpy(self):
        return self.value


VALUES = {
    "bottom_mlp_0_kernel": np.arange(48, dtype=np.float32).reshape(16, 3) / 7,
    "bottom_mlp_0_bias": np.float32([1.5, -0.0, np.finfo(np.float32).tiny / 2]),
    "top_mlp_0_kernel": np.float32([[0.1], [-1e38], [2.0]]),
    "scale": np.float64(3.25),
    "été/1": np.int64([7]),
}
STATE = {"bottom_mlp_0_kernel.momentum": np.ones((16, 3), np.float32), "scale.first_moment": np.float64(1.0)}


@pytest.fixture
def saved(array_embedding, tmp_path):
    tables = (TableConfig("store", 4, 2),)
    weights = {("weights", "store"): np.zeros((4, 2), np.float32)}
    embedding = array_embedding(tables, make_plan(tables, 1), 0, weights=weights)
    dense = {name: Variable(value) for name, value in (VALUES | STATE).items()}
    save_checkpoint(tmp_path / "saved", SingleProcess(), dense=dense, embedding=embedding, document={"step": 1})
    return tmp_path / "saved"


def test_each_file_is_its_variable_and_optimizer_state_has_none(saved, tmp_path):
    (tmp_path / "out").mkdir()
    files = write_dense(*open_checkpoint(saved), tmp_path / "out")
    assert files == {
        "bottom_mlp_0_kernel": "dense/bottom_mlp_0_kernel.npy", "bottom_mlp_0_bias": "dense/bottom_mlp_0_bias.npy",
        "top_mlp_0_kernel": "dense/top_mlp_0_kernel.npy", "scale": "dense/scale.npy",
        "été/1": "dense/%C3%A9t%C3%A9%2F1.npy",
    }  # fmt: skip
    assert {f"dense/{path.name}" for path in (tmp_path / "out/dense").iterdir()} == set(files.values())
    for name, file in files.items():
        array = np.load(tmp_path / "out" / file)
        assert array.dtype == VALUES[name].dtype and array.shape == VALUES[name].shape
        assert array.tobytes() == VALUES[name].tobytes()


def test_a_damaged_variable_is_not_exported(saved, tmp_path):
    path = saved / "dense/top_mlp_0_kernel.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    (tmp_path / "out").mkdir()
    with pytest.raises(CheckpointError, match="top_mlp_0_kernel.npy: .*damaged"):
        write_dense(*open_checkpoint(saved), tmp_path / "out")


VECTORS = len(CARDINALITIES)
SHAPES = {  # of TINY: width 4, a bottom MLP of 6 and 4 units, a top MLP of 5 and 1; 13 numericals are padded to 16
    "bottom_mlp_0_kernel": (16, 6), "bottom_mlp_0_bias": (6,), "bottom_mlp_1_kernel": (6, 4), "bottom_mlp_1_bias": (4,),
    "top_mlp_0_bias": (5,), "top_mlp_1_kernel": (5, 1), "top_mlp_1_bias": (1,),
}  # fmt: skip
CROSS_WIDTH = 4 * (1 + VECTORS)
CROSS = {f"cross_{layer}_{part}": shape for layer in (0, 1)
         for part, shape in (("u", (CROSS_WIDTH, 3)), ("v", (3, CROSS_WIDTH)), ("bias", (CROSS_WIDTH,)))}  # fmt: skip
CROSS["top_mlp_0_kernel"] = (CROSS_WIDTH, 5)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    write_dataset(root := tmp_path_factory.mktemp("dense") / "data", train=100, test=20)
    return root


@pytest.mark.parametrize("form", ["npy", "published"])
@pytest.mark.parametrize("flags, shapes", [
    (["--momentum", 0.9], SHAPES),
    (["--optimizer", "adam", "--learning_rate", 0.01, "--interaction", "cross", "--interaction_op", "auto",
      "--num_cross_layers", 2, "--cross_layer_projection_dim", 3], SHAPES | CROSS),
], ids=["dot", "cross"])  # fmt: skip
def test_a_trained_model_has_the_names_and_shapes_of_the_docs(dataset, tmp_path, form, flags, shapes):
    run = in_process.run(dataset, tmp_path / "log", *flags, "--save_checkpoint_path", tmp_path / "saved")
    arguments = ["--checkpoint", str(tmp_path / "saved"), "--output", str(tmp_path / "out"), "--format", form]
    assert export.main(arguments) == 0
    listed = json.loads((tmp_path / "out/export.json").read_text())["dense"]
    assert listed == {name: f"dense/{name}.npy" for name in listed}
    found = {path.stem: np.load(path) for path in (tmp_path / "out/dense").glob("*.npy")}
    assert set(found) == set(listed) == set(shapes) | {"top_mlp_0_kernel"}
    assert {name: found[name].shape for name in shapes} == shapes
    variables = {name: value.numpy() for name, value in run.job.model.dense_by_name.items()}
    assert {name for name in variables if "." not in name} == set(found)
    for name, array in found.items():
        np.testing.assert_array_equal(array, variables[name], strict=True)
