"""--pipeline changes no bit of a training: evaluated, ended early, or stopped and resumed. The ranks are threads."""

import contextlib
import json
import signal
from pathlib import Path

import numpy as np
import pytest
from support.small_dataset import write_dataset

from criteo_prep.feature_spec import FeatureSpec
from dlrm_tf2.checkpoint import load_checkpoint
from dlrm_tf2.config import TrainConfig
from dlrm_tf2.logs.run_log import RunLog
from dlrm_tf2.model.config import ModelConfig
from dlrm_tf2.model.dlrm import ComputeSettings, Dlrm
from dlrm_tf2.optim import Optimizer
from dlrm_tf2.runtime.stopping import NEVER, Stopped
from dlrm_tf2.sharding.plan import make_plan
from dlrm_tf2.training.saver import Saver
from dlrm_tf2.training.trainer import StartingPoint, Trainer, TrainingError

RANKS = 2
STEPS = 9


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    root = tmp_path_factory.mktemp("dataset")
    write_dataset(root, train=250, test=90)  # passes of 5 steps, the last of 10 samples; evaluations of 3 batches
    return root


class AskedAt:
    """A StopRequest that is asked when `asked` is read for the n-th time."""

    signal = signal.SIGTERM

    def __init__(self, at):
        self._at, self._looks = at, 0

    @property
    def asked(self):
        self._looks += 1
        return self._looks >= self._at


def train(dataset: Path, comm, folder: Path, *, stop=NEVER, resumes=False, **flags):
    """Trains, or resumes from the checkpoint in `folder`: dense variables and tables of this rank."""
    config = TrainConfig(**{
        "dataset_path": str(dataset), "embedding_dim": 4, "bottom_mlp_dims": (6, 4), "top_mlp_dims": (5, 1),
        "batch_size": 60, "valid_batch_size": 40, "learning_rate": 0.3, "warmup_steps": 0, "print_freq": 1,
        "max_steps": STEPS, "seed": 5, "shuffle": "window", "shuffle_window": 70, "evals_per_epoch": 2,
        "optimizer": "adagrad", "data_parallel_input": True, "save_checkpoint_path": str(folder / "saved"), **flags,
    })  # fmt: skip
    spec = FeatureSpec.load(dataset / "feature_spec.yaml")
    shape = ModelConfig.of(config, spec)
    settings = ComputeSettings(optimizer=Optimizer("adagrad"), data_parallel_input=True, deduplicated=["cat_0"])
    plan = make_plan(shape.tables, comm.size, row_slice_threshold=1000, data_parallel_threshold=20)
    model = Dlrm(shape, plan, comm=comm, seed=5, settings=settings)
    document = None
    if resumes:
        document = load_checkpoint(
            folder / "saved", comm, dense=model.dense_by_name, embedding=model.embedding, with_state=True
        )
    log = RunLog(str(folder / "log.json"), enabled=comm.rank == 0, resumed=("run", 4) if resumes else None)
    log.record({"mode": "train", "run": "run"})
    with contextlib.closing(log):
        saver = Saver(config, model, log=log, run="run")
        start = StartingPoint(document, resumes)
        Trainer(config, spec, model=model, log=log, saver=saver, start=start).train(stop)
    parts = [
        model.embedding.read_rows(shard, slot, start=shard.rows[0], stop=shard.rows[1]).copy()
        for shard in model.embedding.plan.of_rank(comm.rank)
        for slot in model.embedding.slots
    ]
    return [variable.numpy() for variable in model.dense_variables] + parts


def numbers_of(folder):
    """(step, key, value) for everything that a training logs about the model."""
    records = map(json.loads, (folder / "log.json").read_text().splitlines())
    keys = ("loss", "test_loss", "auc", "normalized_entropy", "calibration")
    return [
        (record["step"], key, record[key]) for record in records if "step" in record for key in keys if key in record
    ]


@pytest.fixture
def waiting(dataset, run_ranks, tmp_path_factory):
    """`waiting(**flags)`: (numbers, arrays of the ranks) of a whole training without the pipeline."""

    def waiting(**flags):
        folder = tmp_path_factory.mktemp("off")
        arrays = run_ranks(RANKS, lambda comm: train(dataset, comm, folder, pipeline="off", **flags))
        return numbers_of(folder), arrays

    return waiting


def check_same(arrays, others):
    for mine, theirs in zip(arrays, others, strict=True):
        for array, other in zip(mine, theirs, strict=True):
            np.testing.assert_array_equal(array, other)


def test_losses_evaluations_and_weights_have_the_same_bits(dataset, run_ranks, waiting, tmp_path):
    numbers, arrays = waiting()
    assert sum(key == "loss" for _, key, _ in numbers) == STEPS
    assert [step for step, key, _ in numbers if key == "test_loss"] == [3, 5, 8, 9]
    check_same(run_ranks(RANKS, lambda comm: train(dataset, comm, tmp_path)), arrays)
    assert numbers_of(tmp_path) == numbers


def test_a_batch_whose_ids_went_ahead_is_trained_on_after_a_stop(dataset, run_ranks, waiting, tmp_path):
    numbers, arrays = waiting()

    def stopped(comm):
        with pytest.raises(Stopped) as stopped:
            train(dataset, comm, tmp_path, stop=AskedAt(4 if comm.rank == 1 else 1000))
        return stopped.value.step, stopped.value.saved_step

    assert run_ranks(RANKS, stopped) == [(4, 4)] * RANKS
    check_same(run_ranks(RANKS, lambda comm: train(dataset, comm, tmp_path, resumes=True)), arrays)
    assert numbers_of(tmp_path) == numbers


def test_a_training_that_reaches_its_auc_ends_on_all_ranks(dataset, run_ranks, waiting, tmp_path):
    flags = {"auc_threshold": 0.01, "eval_every": 3}
    numbers, arrays = waiting(**flags)
    assert numbers[-1][0] == 3
    check_same(run_ranks(RANKS, lambda comm: train(dataset, comm, tmp_path, **flags)), arrays)
    assert numbers_of(tmp_path) == numbers


def test_a_training_that_diverges_ends_on_all_ranks(dataset, run_ranks, tmp_path):
    errors = run_ranks(RANKS, lambda comm: train(dataset, comm, tmp_path, learning_rate=1e30))
    assert [type(error) for error in errors] == [TrainingError] * RANKS
    assert len(set(map(str, errors))) == 1
