"""The model against an independent DLRM in numpy: logits, every gradient one by one, and training steps."""

import numpy as np
import pytest
from support.numpy_dlrm import NumpyDlrm
from support.small_dataset import write_dataset

from criteo_prep.batch import Batch, Ids
from criteo_prep.feature_spec import Feature, FeatureSpec, tf_raw_spec
from criteo_prep.transcribe.tf_raw import Writer
from dlrm_tf2.config import ConfigError, TrainConfig
from dlrm_tf2.data.batches import RankData, RankShare
from dlrm_tf2.model.config import ModelConfig
from dlrm_tf2.model.dlrm import ComputeSettings, Dlrm
from dlrm_tf2.runtime.comm import SingleProcess
from dlrm_tf2.sharding.plan import make_plan
from dlrm_tf2.training.step import TrainingStep


def model_of(spec, root, dtype="float32", **flags):
    values = {"embedding_dim": 8, "bottom_mlp_dims": (12, 8), "top_mlp_dims": (10, 6, 1)}
    config = TrainConfig(dataset_path=str(root), **{**values, **flags})
    shape = ModelConfig.of(config, spec)
    settings = ComputeSettings(compute_dtype=dtype, xla=config.xla)
    return Dlrm(shape, make_plan(shape.tables, 1), comm=SingleProcess(), seed=3, settings=settings)


def batches_of(spec, model):
    return RankData(spec, "train", share=RankShare(global_features=model.embedding.global_features)).batches(64)


def table_of(model, name):
    shard = model.embedding.plan.of_table(name)[0]
    return model.embedding.read_rows(shard, "weights", start=0, stop=shard.num_rows)


def weights_of(model):
    """Name -> float64 copy of a variable or table, for all of them."""
    found = {name: variable.numpy() for name, variable in model.dense_by_name.items()}
    found |= {name: table_of(model, name) for name in model.config.features}
    return {name: np.array(value, np.float64) for name, value in found.items()}


def twin_of(model):
    config = model.config
    return NumpyDlrm(weights_of(model), config.features, config.combiner, config.interaction == "cross")


DOT = {}
CROSS = {"interaction": "cross", "embedding_dim": (4, 2, 6, 8), "num_cross_layers": 2, "cross_layer_projection_dim": 0}
LOW_RANK = CROSS | {"cross_layer_projection_dim": 3}
PROJECTION = {
    "interaction": "projection", "projection_branch1_dims": (7, 24), "projection_branch2_dims": (16,),
}  # fmt: skip


CARDINALITIES = (5, 9, 30, 7)


def write_bags(root, hotness, samples=24):
    """Writes a dataset of one batch, with repeated ids and empty bags; returns (spec, label, numerical, bags)."""
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


# Ids per sample of four features; None for any number.
@pytest.mark.parametrize(
    "hotness, combiner", [((1, 1, 1, 1), "sum"), ((1, 3, None, None), "sum"), ((1, 3, None, None), "mean")]
)
@pytest.mark.parametrize(
    "interaction", [DOT, CROSS, LOW_RANK, PROJECTION], ids=["dot", "cross", "low rank", "projection"]
)
def test_logits_and_every_gradient_equal_numpy(tmp_path, interaction, hotness, combiner):
    """SGD with a power of two as learning rate: a step subtracts the gradient, to float32's last digits."""
    spec, label, numerical, bags = write_bags(tmp_path, hotness)
    assert (None in hotness) == any(len(bag) == 0 for bag in bags["cat_2"])
    model, rate = model_of(spec, tmp_path, combiner=combiner, **interaction), 1024.0
    (batch,), twin = batches_of(spec, model), twin_of(model)
    logits, gradients = twin.logits_and_gradients(label, numerical, bags)
    found = model.logits(batch.numerical, model.lookup(batch.ids))
    np.testing.assert_allclose(found.numpy(), logits, rtol=1e-5, atol=1e-5)
    TrainingStep(model)(batch, rate, step=1)
    after = weights_of(model)
    assert after.keys() == gradients.keys()
    for name, gradient in gradients.items():
        found, largest = (twin.weights[name] - after[name]) / rate, np.abs(gradient).max()
        assert largest > 0
        np.testing.assert_allclose(found, gradient, rtol=1e-5, atol=1e-5 * largest, err_msg=name)
        np.testing.assert_array_equal(found[gradient == 0], 0, err_msg=f"{name}, rows that no sample names")


@pytest.mark.parametrize("xla", [False, True])
def test_steps_equal_numpy(tmp_path, xla):
    spec, rate = write_dataset(tmp_path), 0.5
    model = model_of(spec, tmp_path, xla=xla)
    step, twin = TrainingStep(model), twin_of(model)
    for batch in batches_of(spec, model):
        loss = step.outcome(step(batch, rate, step=1)).loss
        bags = dict(zip(model.config.features, batch.ids.global_ids.fixed.T[:, :, np.newaxis], strict=True))
        assert loss == pytest.approx(twin.step(batch.label, batch.numerical, bags, rate), rel=1e-5)
    for name, value in weights_of(model).items():
        np.testing.assert_allclose(value, twin.weights[name], rtol=1e-4, atol=1e-5, err_msg=name)


def test_without_numericals_the_cross_layers_combine_the_embeddings_alone(tmp_path):
    spec, rate = write_dataset(tmp_path, num_numerical=0), 0.5
    model = model_of(spec, tmp_path, **CROSS | {"embedding_dim": (4, 2, 6, 8, 3)})
    assert not any("bottom" in name for name in model.dense_by_name)
    assert model.config.interaction_width == 4 + 2 + 6 + 8 + 3
    step = TrainingStep(model)
    losses = [step.outcome(step(batch, rate, step=1)).loss for batch in batches_of(spec, model)]
    assert sum(losses[-4:]) < sum(losses[:4])


def test_without_numericals_dot_says_what_to_do(tmp_path):
    with pytest.raises(ConfigError, match="no numerical features, and the dot interaction .* Use --interaction cross"):
        model_of(write_dataset(tmp_path, num_numerical=0), tmp_path)


def test_without_categoricals_there_is_no_model(tmp_path):
    with pytest.raises(ConfigError, match="feature_spec.yaml: the dataset has no categorical features"):
        model_of(write_dataset(tmp_path, cardinalities=()), tmp_path)


def test_initial_weights_have_the_published_ranges(tmp_path):
    flags = {"embedding_dim": 128, "bottom_mlp_dims": (512, 128), "top_mlp_dims": (256, 1)}
    model = model_of(write_dataset(tmp_path), tmp_path, **flags)
    for name, rows in zip(model.config.features, model.config.cardinalities, strict=True):
        table, bound = table_of(model, name), rows**-0.5
        assert np.abs(table).max() <= bound
        assert table.std() == pytest.approx(bound / 3**0.5, rel=0.15)
    kernel, bias = model.bottom_mlp.kernels[1].numpy(), model.bottom_mlp.biases[0].numpy()
    assert kernel.std() == pytest.approx((2 / (512 + 128)) ** 0.5, rel=0.05)
    assert bias.std() == pytest.approx(512**-0.5, rel=0.2)


def test_mixed_precision_trains_to_nearly_the_same_loss(tmp_path):
    spec, losses = write_dataset(tmp_path), {}
    for dtype in ("float32", "bfloat16", "float16"):
        model = model_of(spec, tmp_path, dtype)
        step = TrainingStep(model)
        losses[dtype] = [step.outcome(step(batch, 0.1, step=1)).loss for batch in batches_of(spec, model)]
    for dtype in ("bfloat16", "float16"):
        np.testing.assert_allclose(losses[dtype], losses["float32"], rtol=0.02)
        assert losses[dtype] != losses["float32"]
