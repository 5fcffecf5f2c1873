"""The SavedModel of a checkpoint, in a process with TensorFlow and without our packages, against the model in numpy."""

import json
import os
import subprocess
import sys

import ml_dtypes
import numpy as np
import pytest
from support.numpy_dlrm import NumpyDlrm

from dlrm_tf2.checkpoint import save_checkpoint
from dlrm_tf2.export import __main__ as export
from dlrm_tf2.model.config import ModelConfig
from dlrm_tf2.sharding.plan import make_plan

BASE = {"cardinalities": (5, 9, 30, 7), "num_numerical": 13, "top_mlp_dims": (10, 6, 1)}
DOT = ModelConfig(**BASE, features=("a", "b", "c", "d"), embedding_dim=4, bottom_mlp_dims=(6, 4))
MODELS = {
    "dot": DOT,
    # Names that cannot be names of arguments.
    "cross_bags": ModelConfig(
        **BASE, features=("user id", "7", "ids/x", "é"), embedding_dim=8, embedding_dims=(4, 2, 6, 8),
        bottom_mlp_dims=(6, 3), hotness=(2, None, 1, 3), interaction="cross", num_cross_layers=2,
        cross_layer_projection_dim=3, combiner="mean",
    ),
    "bfloat16": DOT,
}  # fmt: skip
SAMPLES = 17
ASKER = """
import sys
class Absent:
    def find_spec(self, name, *_):
        if name.partition(".")[0] in ("dlrm_tf2", "criteo_prep"):
            raise ImportError(f"{name} is not here")
sys.meta_path.insert(0, Absent())
import numpy, pathlib, tensorflow as tf
for folder in map(pathlib.Path, sys.argv[1:]):
    answer = tf.saved_model.load(str(folder / "model")).signatures["serving_default"]
    inputs = dict(numpy.load(folder / "inputs.npz"))
    numpy.savez(folder / "answers.npz", **answer(**{name: tf.constant(array) for name, array in inputs.items()}))
    inputs["categorical_features"][3, 1] = 5000
    try:
        answer(**{name: tf.constant(array) for name, array in inputs.items()})
    except tf.errors.InvalidArgumentError as error:
        print(repr(error.message))
assert not {"dlrm_tf2", "criteo_prep"} & set(sys.modules)
"""


class Variable:
    def __init__(self, value):
        self.value = value

    def numpy(self):
        return self.value


def dense_weights(shape, rng):
    """Name of a variable -> its values, float32."""
    found = {}
    for mlp, width, dims in (
        ("bottom_mlp", 16, shape.bottom_mlp_dims),
        ("top_mlp", shape.interaction_width, shape.top_mlp_dims),
    ):
        for layer, units in enumerate(dims):
            found[f"{mlp}_{layer}_kernel"] = rng.normal(0, width**-0.5, (width, units))
            found[f"{mlp}_{layer}_bias"] = rng.normal(0, 0.1, units)
            width = units
    for layer in range(shape.num_cross_layers):
        wide, low = shape.interaction_width, shape.cross_layer_projection_dim
        found[f"cross_{layer}_u"], found[f"cross_{layer}_v"] = rng.normal(0, 0.3, (2, wide, low))
        found[f"cross_{layer}_v"] = found[f"cross_{layer}_v"].T
        found[f"cross_{layer}_bias"] = rng.normal(0, 0.1, wide)
    return {name: np.float32(array) for name, array in found.items()}


@pytest.fixture
def saved(run_ranks, array_embedding, tmp_path):
    """Name -> its weights, in float64, of models whose checkpoints two ranks saved in tmp_path/<name>/checkpoint."""
    models = {}
    for seed, (name, shape) in enumerate(MODELS.items()):
        rng = np.random.default_rng(seed)
        dense, plan = dense_weights(shape, rng), make_plan(shape.tables, 2, row_slice_threshold=60)
        tables = {
            ("weights", table.name): rng.normal(size=(table.num_rows, table.embedding_dim)).astype(np.float32)
            for table in shape.tables
        }
        if name == "bfloat16":
            tables = {key: table.astype(ml_dtypes.bfloat16).astype(np.float32) for key, table in tables.items()}

        def save(comm, name=name, shape=shape, dense=dense, plan=plan, tables=tables):
            embedding = array_embedding(shape.tables, plan, comm.rank, weights=tables)
            embedding.table_dtype = "bfloat16" if name == "bfloat16" else "float32"
            save_checkpoint(
                tmp_path / name / "checkpoint",
                comm,
                dense={key: Variable(value) for key, value in dense.items()},
                embedding=embedding,
                document={"model": shape.document(), "step": 3},
            )

        (tmp_path / name).mkdir()
        run_ranks(2, save)
        whole = dense | {table: values for (_, table), values in tables.items()}
        models[name] = {key: value.astype(np.float64) for key, value in whole.items()}
    return models


def write_inputs(shape, path, rng):
    """Returns (numerical, feature -> the ids of each sample)."""
    numerical, bags, fixed = rng.normal(size=(SAMPLES, 13)).astype(np.float32), {}, []
    inputs = {"numerical_features": numerical}
    for number, (feature, hotness) in enumerate(shape.hotness_of.items()):
        lengths = rng.integers(0, 4, SAMPLES) if hotness is None else np.full(SAMPLES, hotness)
        ids = rng.integers(0, shape.cardinalities[number], lengths.sum()).astype(np.int32)
        bags[feature] = np.split(ids, np.cumsum(lengths)[:-1])
        if hotness is None:
            inputs[f"feature_{number}_ids"] = ids
            inputs[f"feature_{number}_row_lengths"] = lengths.astype(np.int32)
        else:
            fixed.append(ids.reshape(SAMPLES, hotness))
    inputs["categorical_features"] = np.concatenate(fixed, axis=1)
    np.savez(path, **inputs)
    return numerical, bags


def test_it_returns_the_logits_of_the_model_with_tensorflow_alone(saved, tmp_path):
    expected = {}
    for name, shape in MODELS.items():
        folder = tmp_path / name
        write = export_by_the_program if name == "dot" else export_in_this_process
        write(folder / "checkpoint", folder / "model")
        contents = json.loads((folder / "model/export.json").read_text())
        numerical, bags = write_inputs(shape, folder / "inputs.npz", np.random.default_rng(9))
        with np.load(folder / "inputs.npz") as inputs:
            assert set(inputs) == set(contents["inputs"])
        twin = NumpyDlrm(saved[name], shape.features, shape.combiner, shape.interaction == "cross")
        expected[name], _ = twin.logits_and_gradients(np.zeros(SAMPLES), numerical, bags)
    folders = [str(tmp_path / name) for name in MODELS]
    run = subprocess.run([sys.executable, "-I", "-c", ASKER, *folders], cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    for name, logits in expected.items():
        with np.load(tmp_path / name / "answers.npz") as answers:
            assert answers["logits"].dtype == np.float32 and np.std(logits) > 0.1
            np.testing.assert_allclose(answers["logits"], logits, rtol=1e-5, atol=1e-5, err_msg=name)
            np.testing.assert_allclose(answers["probability"], 1 / (1 + np.exp(-logits)), rtol=1e-5, err_msg=name)
    refused = run.stdout.splitlines()  # an id that is a row of the next table in memory
    for message, feature, last in zip(refused, ("b", "user id", "b"), (8, 4, 8), strict=True):
        assert f"feature '{feature}': its ids must be from 0 to {last}" in message.replace("\\", "")


def test_16_bit_tables_stay_in_16_bits(saved, tmp_path):
    import tensorflow as tf

    for name, dtype in (("dot", tf.float32), ("bfloat16", tf.bfloat16)):
        export_in_this_process(tmp_path / name / "checkpoint", tmp_path / name / "model")
        variables = tf.train.load_checkpoint(str(tmp_path / name / "model/variables/variables"))
        shapes, types = variables.get_variable_to_shape_map(), variables.get_variable_to_dtype_map()
        (tables,) = (types[name] for name, shape in shapes.items() if shape == [5 + 9 + 30 + 7, 4])
        assert tables == dtype


def export_by_the_program(checkpoint, output):
    run = subprocess.run(
        [sys.executable, "-m", "dlrm_tf2.export", "--format", "saved_model", "--checkpoint", checkpoint, "--output",
         output], capture_output=True, text=True,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert run.stdout == f"{output}: a SavedModel with the inputs numerical_features, categorical_features\n"


def export_in_this_process(checkpoint, output):
    """Exports as the program does, in a process that has started TensorFlow already."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export.process, "set_up_process", lambda *_, **__: None)
        export.export(checkpoint, output, "saved_model")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_numerical_that_is_not_finite_is_an_error_and_not_a_probability(saved, tmp_path, value):
    import tensorflow as tf

    folder = tmp_path / "dot"
    export_in_this_process(folder / "checkpoint", folder / "model")
    write_inputs(MODELS["dot"], folder / "inputs.npz", np.random.default_rng(9))
    inputs = dict(np.load(folder / "inputs.npz"))
    inputs["numerical_features"][3, 5] = value
    answer = tf.saved_model.load(str(folder / "model")).signatures["serving_default"]
    with pytest.raises(tf.errors.InvalidArgumentError, match="numerical_features: a number is not finite"):
        answer(**{name: tf.constant(array) for name, array in inputs.items()})


def test_what_cannot_be_written_leaves_nothing(saved, tmp_path, monkeypatch, capsys):
    checkpoint, before = tmp_path / "dot/checkpoint", sorted(os.listdir(tmp_path))
    arguments = ["--checkpoint", str(checkpoint), "--output", str(tmp_path / "model"), "--format", "saved_model"]
    monkeypatch.setattr(export.process, "set_up_process", lambda *_, **__: None)

    def refused(reason):
        assert export.main(arguments) == 1
        printed = capsys.readouterr()
        assert reason in printed.err and printed.err.startswith("export: ") and printed.err.count("\n") == 1
        assert sorted(os.listdir(tmp_path)) == before

    with monkeypatch.context() as little:
        little.setattr(export, "available_memory_bytes", lambda: 1000)
        refused("a SavedModel is written from memory. This model needs")
    with monkeypatch.context() as full:
        import tensorflow as tf

        def no_space(*_, **__):
            raise tf.errors.ResourceExhaustedError(None, None, "variables: No space left on device")

        full.setattr(tf.saved_model, "save", no_space)
        refused("No space left on device")
    (checkpoint / "dense/top_mlp_0_bias.npy").write_bytes(b"x")
    refused("has 1 bytes, the manifest says")
