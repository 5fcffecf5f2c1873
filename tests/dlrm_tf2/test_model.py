"""Training steps of the model against an independent DLRM in numpy: losses, MLPs and tables."""

import numpy as np
import pytest
from numpy_dlrm import NumpyDlrm
from small_dataset import write_dataset

from dlrm_tf2.comm import SingleProcess
from dlrm_tf2.config import ModelConfig, TrainConfig
from dlrm_tf2.embedding.plan import make_plan
from dlrm_tf2.model import Dlrm
from dlrm_tf2.run_log import RunLog
from dlrm_tf2.trainer import Trainer

LEARNING_RATE = 0.5


def trainer_of(root, **flags):
    spec = write_dataset(root)
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


@pytest.mark.parametrize("xla", [False, True])
def test_steps_equal_numpy(tmp_path, xla):
    trainer, model = trainer_of(tmp_path, xla=xla)
    twin = NumpyDlrm(
        bottom=list(zip(*([v.numpy() for v in part] for part in (model.bottom_mlp.kernels, model.bottom_mlp.biases)),
                        strict=True)),
        top=list(zip(*([v.numpy() for v in part] for part in (model.top_mlp.kernels, model.top_mlp.biases)),
                     strict=True)),
        tables=[table_of(model, name) for name in model.config.features],
    )
    for batch in trainer._training.batches(64):
        loss = float(trainer._train_step(batch.label, batch.numerical, batch.ids, LEARNING_RATE, 1.0))
        ids = batch.ids.of_all.fixed
        assert loss == pytest.approx(twin.step(batch.label, batch.numerical, ids, LEARNING_RATE), rel=1e-5)
    for mlp, twin_layers in ((model.bottom_mlp, twin.bottom), (model.top_mlp, twin.top)):
        for kernel, bias, (twin_kernel, twin_bias) in zip(mlp.kernels, mlp.biases, twin_layers, strict=True):
            np.testing.assert_allclose(kernel.numpy(), twin_kernel, rtol=1e-4, atol=1e-5)
            np.testing.assert_allclose(bias.numpy(), twin_bias, rtol=1e-4, atol=1e-5)
    for name, twin_table in zip(model.config.features, twin.tables, strict=True):
        np.testing.assert_allclose(table_of(model, name), twin_table, rtol=1e-4, atol=1e-5)


def test_initial_weights_have_the_published_ranges(tmp_path):
    _, model = trainer_of(tmp_path, embedding_dim=128, bottom_mlp_dims=(512, 128), top_mlp_dims=(256, 1))
    for name, rows in zip(model.config.features, model.config.cardinalities, strict=True):
        table, bound = table_of(model, name), rows**-0.5
        assert np.abs(table).max() <= bound
        assert table.std() == pytest.approx(bound / 3**0.5, rel=0.15)
    kernel, bias = model.bottom_mlp.kernels[1].numpy(), model.bottom_mlp.biases[0].numpy()
    assert kernel.std() == pytest.approx((2 / (512 + 128)) ** 0.5, rel=0.05)
    assert bias.std() == pytest.approx(512**-0.5, rel=0.2)


def test_mixed_precision_trains_to_nearly_the_same_loss(tmp_path):
    from dataclasses import replace

    trainer, model = trainer_of(tmp_path / "a")
    exact = [float(trainer._train_step(b.label, b.numerical, b.ids, 0.1, 1.0)) for b in trainer._training.batches(64)]
    trainer, model = trainer_of(tmp_path / "b")
    half = Dlrm(model.config, model.embedding.plan, SingleProcess(), 3, "bfloat16")
    mixed = Trainer(
        replace(trainer._config, amp=True), trainer._spec, half, SingleProcess(), RunLog(None, enabled=False)
    )
    rate = 0.1
    losses = [float(mixed._train_step(b.label, b.numerical, b.ids, rate, 1.0)) for b in mixed._training.batches(64)]
    np.testing.assert_allclose(losses, exact, rtol=0.02)
    assert losses != exact
