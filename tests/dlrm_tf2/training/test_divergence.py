"""A model that diverges is stopped at the step, by name, also where a layer hides the number that is not finite."""

import math

import numpy as np
import pytest
import tensorflow as tf
from support import in_process
from support.small_dataset import write_dataset

from criteo_prep.feature_spec import FeatureSpec
from dlrm_tf2.checkpoint import read_document
from dlrm_tf2.config import TrainConfig
from dlrm_tf2.data.batches import open_split
from dlrm_tf2.embedding.layer import DistributedEmbedding
from dlrm_tf2.model.config import ModelConfig
from dlrm_tf2.model.dlrm import ComputeSettings, Dlrm
from dlrm_tf2.optim import Optimizer, zero_if_finite
from dlrm_tf2.runtime.comm import SingleProcess
from dlrm_tf2.sharding.plan import make_plan
from dlrm_tf2.training.divergence import first_broken_table
from dlrm_tf2.training.loss_scaling import LossScaling
from dlrm_tf2.training.step import TrainingStep
from dlrm_tf2.training.trainer import TrainingError


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    write_dataset(root, train=400, test=100)
    return root


@pytest.fixture
def hiding_relu(monkeypatch):
    """A ReLU that turns nan into 0, as oneDNN's does."""
    monkeypatch.setattr(tf.nn, "relu", lambda values: tf.where(values > 0, values, tf.zeros_like(values)))


@pytest.mark.parametrize("values, state, is_zero", [
    ([1.0, -2.0], {}, True),
    ([1.0, math.nan], {}, False),
    ([math.inf, -math.inf], {}, False),
    ([1e20], {}, False),  # its square is infinite
    ([1e18], {"accumulator": tf.constant([1e30])}, True),
    ([0.0], {"accumulator": tf.constant([math.inf])}, False),
    ([], {}, True),
])  # fmt: skip
def test_zero_if_finite_by_hand(values, state, is_zero):
    check = float(zero_if_finite(tf.constant(values, tf.float32), state))
    assert check == 0 if is_zero else math.isnan(check)


FLOAT16 = ["--amp", "--amp_dtype", "float16", "--loss_scale", 8]


@pytest.mark.parametrize("precision", [[], ["--amp"], FLOAT16], ids=["float32", "bfloat16", "float16"])
def test_a_hidden_nan_in_an_mlp_ends_training_at_its_step(data, tmp_path, monkeypatch, hiding_relu, precision):
    """The weight that becomes nan before step 5 changes neither the loss nor a gradient."""
    step_of = TrainingStep.__call__

    def call(self, batch, learning_rate, *, step, **others):
        if step == 5:
            kernel = self._model.bottom_mlp.kernels[0]
            kernel.assign(tf.tensor_scatter_nd_update(kernel, [[0, 0]], [math.nan]))
        return step_of(self, batch, learning_rate, step=step, **others)

    monkeypatch.setattr(TrainingStep, "__call__", call)
    arguments = [data, tmp_path / "log", *precision, "--checkpoint_every", 2, "--save_checkpoint_path", tmp_path / "c"]
    message = (
        "step 5: bottom_mlp_0_kernel is not finite after the update: .* The checkpoint of step 4 is kept. Lower --l"
    )
    with pytest.raises(TrainingError, match=message):
        in_process.run(*arguments)
    assert read_document(tmp_path / "c")["step"] == 4


@pytest.mark.parametrize("optimizer", ["sgd", "adagrad", "adam"])
def test_an_infinite_gradient_of_the_last_step_is_found_in_a_table(data, tmp_path, monkeypatch, optimizer):
    """Nothing follows the last step: no loss, no other gradient."""
    apply = DistributedEmbedding.apply_gradient

    def call(self, lookup, gradients, *, learning_rate, step):
        gradients = [tf.where(step == 8, gradient * math.inf, gradient) for gradient in gradients]
        return apply(self, lookup, gradients, learning_rate=learning_rate, step=step)

    monkeypatch.setattr(DistributedEmbedding, "apply_gradient", call)
    flags = ["--evals_per_epoch", 0, "--optimizer", optimizer, "--learning_rate", 0.01]
    with pytest.raises(TrainingError, match="step 8: cat_0 is not finite after the update"):
        in_process.run(data, tmp_path / "log", *flags)


def outcomes_of(root, spec, comm, dtype):
    """Two steps in which rank 1 alone gets an infinite update of its tables. Returns (outcomes, broken table)."""
    config = TrainConfig(dataset_path=str(root), embedding_dim=8, bottom_mlp_dims=(12, 8), top_mlp_dims=(10, 1))
    shape = ModelConfig.of(config, spec)
    settings = ComputeSettings(compute_dtype=dtype, optimizer=Optimizer("adagrad"))
    model = Dlrm(shape, make_plan(shape.tables, comm.size), comm=comm, seed=5, settings=settings)
    step = TrainingStep(model, LossScaling(8.0, False) if dtype == "float16" else None)
    apply = model.embedding.apply_gradient

    def infinite(lookup, gradients, *, learning_rate, step):
        return apply(lookup, gradients, learning_rate=learning_rate * math.inf, step=step)

    if comm.rank == 1:
        model.embedding.apply_gradient = infinite
    data = open_split(config, spec, split="train", embedding=model.embedding, comm=comm)
    batches = zip((1, 2), data.batches(64), strict=False)
    outcomes = [step.outcome(step(batch, 0.01, step=number)) for number, batch in batches]
    return outcomes, first_broken_table(model.embedding), [shard.table for shard in model.embedding.plan.of_rank(1)]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_all_ranks_know_of_a_table_of_one_rank_after_the_next_step(data, run_ranks, dtype):
    spec = FeatureSpec.load(data / "feature_spec.yaml")
    results = run_ranks(2, lambda comm: outcomes_of(data, spec, comm, dtype))
    for rank, (outcomes, table, of_rank_1) in enumerate(results):
        assert [outcome.tables_broken_before for outcome in outcomes] == [False, True]
        assert outcomes[0].own_tables_broken == (rank == 1)
        assert rank == 0 or table in of_rank_1


def test_a_healthy_step_reports_nothing(data):
    spec = FeatureSpec.load(data / "feature_spec.yaml")
    outcomes, table, _ = outcomes_of(data, spec, SingleProcess(), "float32")
    assert all(np.isfinite(outcome.loss) and outcome.broken_variable is None for outcome in outcomes)
    assert not any(outcome.own_tables_broken for outcome in outcomes) and table is None
