"""The model against an independent DLRM in numpy: logits, every gradient one by one, and training steps."""

from dataclasses import replace

import numpy as np
import pytest
from numpy_dlrm import NumpyDlrm
from small_dataset import write_dataset

from criteo_prep.batch import Batch, Ids
from criteo_prep.feature_spec import Feature, FeatureSpec, tf_raw_spec
from criteo_prep.transcribe.tf_raw import Writer
from dlrm_tf2.comm import SingleProcess
from dlrm_tf2.config import ModelConfig, TrainConfig
from dlrm_tf2.embedding.plan import make_plan
from dlrm_tf2.model import Dlrm
from dlrm_tf2.run_log import RunLog
from dlrm_tf2.trainer import Trainer

LEARNING_RATE = 0.5


def trainer_of(spec, root, **flags):
    values = {"embedding_dim": 8, "bottom_mlp_dims": (12, 8), "top_mlp_dims": (10, 6, 1), "batch_size": 64, "seed": 3}
    schedule = {"learning_rate": LEARNING_RATE, "warmup_steps": 0, "print_freq": 1, "log_path": None}
    config = TrainConfig(dataset_path=str(root), **{**values, **schedule, **flags})
    shape = ModelConfig.of(config, spec)
    comm = SingleProcess()
    model = Dlrm(shape, make_plan(shape.tables, 1), comm, config.seed, "float32", config.xla)
    return Trainer(config, spec, model, comm, RunLog(None, enabled=False)), model


def table_of(model, name):
    shard = model.embedding.plan.of_table(name)[0]
    return model.embedding.read_rows(shard, "weights", 0, shard.num_rows)


def weights_of(model):
    """Name -> copy in float64, of all variables and tables."""
    found = {name: variable.numpy() for name, variable in model.dense_by_name.items()}
    found |= {name: table_of(model, name) for name in model.config.features}
    return {name: np.array(value, np.float64) for name, value in found.items()}


def twin_of(model):
    config = model.config
    return NumpyDlrm(weights_of(model), config.features, config.combiner, config.interaction == "cross")


DOT = {}
CROSS = {"interaction": "cross", "embedding_dim": (4, 2, 6, 8), "num_cross_layers": 2, "cross_layer_projection_dim": 0}
LOW_RANK = CROSS | {"cross_layer_projection_dim": 3}


CARDINALITIES = (5, 9, 30, 7)


def write_bags(root, hotness, samples=24):
    """A dataset of one batch; returns (spec, label, numerical, bags): rows named again and again, and empty bags."""
    rng = np.random.default_rng(8)
    label, numerical = rng.random(samples) < 0.4, rng.normal(size=(samples, 13)).astype(np.float16)
    features, columns, bags = [], {}, {}
    for number, (width, rows) in enumerate(zip(hotness, CARDINALITIES, strict=True)):
        name = f"cat_{number}"
        features.append(Feature(name, "int32", rows, hotness=width or 2, ragged=width is None))
        lengths = np.full(samples, width) if width else rng.integers(0, 4, samples)
        ids = rng.integers(0, rows, lengths.sum())
        columns[name] = Ids(ids, None if width == 1 else lengths.astype(np.int32))
        bags[name] = np.split(ids, np.cumsum(lengths)[:-1])
    spec = tf_raw_spec(features)
    for split in ("train", "test"):
        with Writer(root, spec, split) as writer:
            writer.write(Batch(label, numerical, columns))
    spec.save(root / "feature_spec.yaml")
    return FeatureSpec.load(root / "feature_spec.yaml"), label, numerical, bags


# Ids a sample of four features; None for any number.
@pytest.mark.parametrize("hotness, combiner", [
    ((1, 1, 1, 1), "sum"), ((1, 3, None, None), "sum"), ((1, 3, None, None), "mean")
])  # fmt: skip
@pytest.mark.parametrize("interaction", [DOT, CROSS, LOW_RANK], ids=["dot", "cross", "low rank"])
def test_logits_and_every_gradient_equal_numpy(tmp_path, interaction, hotness, combiner):
    """SGD with a power of two as learning rate: what a step takes away is the gradient, to float32's last digits."""
    spec, label, numerical, bags = write_bags(tmp_path, hotness)
    assert (None in hotness) == any(len(bag) == 0 for bag in bags["cat_2"])
    trainer, model = trainer_of(spec, tmp_path, combiner=combiner, **interaction)
    (batch,), twin, rate = trainer._training.batches(64), twin_of(model), 1024.0
    logits, gradients = twin.logits_and_gradients(label, numerical, bags)
    np.testing.assert_allclose(trainer._forward(batch.numerical, batch.ids).numpy(), logits, rtol=1e-5, atol=1e-5)
    trainer._train_step(batch.label, batch.numerical, batch.ids, rate, 1.0)
    after = weights_of(model)
    assert after.keys() == gradients.keys()
    for name, gradient in gradients.items():
        found, largest = (twin.weights[name] - after[name]) / rate, np.abs(gradient).max()
        assert largest > 0
        np.testing.assert_allclose(found, gradient, rtol=1e-5, atol=1e-5 * largest, err_msg=name)
        np.testing.assert_array_equal(found[gradient == 0], 0, err_msg=f"{name}, rows that no sample names")


@pytest.mark.parametrize("xla", [False, True])
def test_steps_equal_numpy(tmp_path, xla):
    trainer, model = trainer_of(write_dataset(tmp_path), tmp_path, xla=xla)
    twin = twin_of(model)
    for batch in trainer._training.batches(64):
        loss = float(trainer._train_step(batch.label, batch.numerical, batch.ids, LEARNING_RATE, 1.0))
        bags = dict(zip(model.config.features, batch.ids.of_all.fixed.T[:, :, np.newaxis], strict=True))
        assert loss == pytest.approx(twin.step(batch.label, batch.numerical, bags, LEARNING_RATE), rel=1e-5)
    for name, value in weights_of(model).items():
        np.testing.assert_allclose(value, twin.weights[name], rtol=1e-4, atol=1e-5, err_msg=name)


def test_initial_weights_have_the_published_ranges(tmp_path):
    flags = {"embedding_dim": 128, "bottom_mlp_dims": (512, 128), "top_mlp_dims": (256, 1)}
    _, model = trainer_of(write_dataset(tmp_path), tmp_path, **flags)
    for name, rows in zip(model.config.features, model.config.cardinalities, strict=True):
        table, bound = table_of(model, name), rows**-0.5
        assert np.abs(table).max() <= bound
        assert table.std() == pytest.approx(bound / 3**0.5, rel=0.15)
    kernel, bias = model.bottom_mlp.kernels[1].numpy(), model.bottom_mlp.biases[0].numpy()
    assert kernel.std() == pytest.approx((2 / (512 + 128)) ** 0.5, rel=0.05)
    assert bias.std() == pytest.approx(512**-0.5, rel=0.2)


def test_mixed_precision_trains_to_nearly_the_same_loss(tmp_path):
    trainer, model = trainer_of(write_dataset(tmp_path / "a"), tmp_path / "a")
    exact = [float(trainer._train_step(b.label, b.numerical, b.ids, 0.1, 1.0)) for b in trainer._training.batches(64)]
    trainer, model = trainer_of(write_dataset(tmp_path / "b"), tmp_path / "b")
    half = Dlrm(model.config, model.embedding.plan, SingleProcess(), 3, "bfloat16")
    mixed = Trainer(
        replace(trainer._config, amp=True), trainer._spec, half, SingleProcess(), RunLog(None, enabled=False)
    )
    rate = 0.1
    losses = [float(mixed._train_step(b.label, b.numerical, b.ids, rate, 1.0)) for b in mixed._training.batches(64)]
    np.testing.assert_allclose(losses, exact, rtol=0.02)
    assert losses != exact
