"""The factor of the loss in float16: when it changes, and that a step that overflows changes nothing else."""

import numpy as np
import pytest
import tensorflow as tf
from support.small_dataset import write_dataset

from dlrm_tf2.config import TrainConfig
from dlrm_tf2.data.batches import open_split
from dlrm_tf2.model.config import ModelConfig
from dlrm_tf2.model.dlrm import ComputeSettings, Dlrm
from dlrm_tf2.optim import Optimizer
from dlrm_tf2.runtime.comm import SingleProcess
from dlrm_tf2.sharding.plan import make_plan
from dlrm_tf2.training.loss_scaling import LossScaling
from dlrm_tf2.training.step import TrainingStep

GOOD, BAD = tf.constant(True), tf.constant(False)


def dynamic(scale, good_steps):
    scaling = LossScaling(65536.0, dynamic=True)
    scaling.restore({"scale": scale, "good_steps": good_steps})
    return scaling


def test_a_dynamic_factor_halves_at_an_overflow_and_doubles_after_2000_steps_without():
    scaling = dynamic(1024.0, 1999)
    scaling.update(BAD)
    assert scaling.document() == {"scale": 512.0, "good_steps": 0}
    scaling.update(GOOD)
    assert scaling.document() == {"scale": 512.0, "good_steps": 1}
    scaling = dynamic(512.0, 1998)
    scaling.update(GOOD)
    assert scaling.document() == {"scale": 512.0, "good_steps": 1999}
    scaling.update(GOOD)
    assert scaling.document() == {"scale": 1024.0, "good_steps": 0}


def test_it_stays_within_bounds():
    small, large = dynamic(1.0, 0), dynamic(2.0**24, 1999)
    small.update(BAD)
    large.update(GOOD)
    assert (float(small.scale), float(large.scale)) == (1.0, 2.0**24)


def test_a_first_factor_beyond_the_bound_does_not_fall_when_it_is_time_to_grow():
    scaling = dynamic(2.0**30, 1999)
    scaling.update(GOOD)
    assert scaling.document() == {"scale": 2.0**30, "good_steps": 0}
    scaling.update(BAD)
    assert float(scaling.scale) == 2.0**29


def test_a_static_factor_stays():
    scaling = LossScaling(65536.0, dynamic=False)
    scaling.update(BAD)
    scaling.restore({"scale": 2.0, "good_steps": 0})
    assert float(scaling.scale) == 65536


def steps_of(root, spec, comm, scale, dynamic=True, steps=4):
    """Trains in float16. Returns (outcomes, whether anything of this rank changed, the factor at the end)."""
    config = TrainConfig(dataset_path=str(root), embedding_dim=8, bottom_mlp_dims=(12, 8), top_mlp_dims=(10, 1),
                         batch_size=64, seed=5, optimizer="adam")  # fmt: skip
    shape = ModelConfig.of(config, spec)
    model = Dlrm(
        shape,
        make_plan(shape.tables, comm.size),
        comm=comm,
        seed=5,
        settings=ComputeSettings(compute_dtype="float16", optimizer=Optimizer("adam")),
    )
    scaling = LossScaling(scale, dynamic)
    step = TrainingStep(model, scaling)
    before = values_of(model, comm.rank)
    data = open_split(config, spec, split="train", embedding=model.embedding, comm=comm)
    batches = zip(range(1, steps + 1), data.batches(64), strict=False)
    outcomes = [step.outcome(step(batch, 0.01, step=number)) for number, batch in batches]
    changed = any((a != b).any() for a, b in zip(before, values_of(model, comm.rank), strict=True))
    return outcomes, changed, float(scaling.scale)


def values_of(model, rank):
    """Copies of everything on a rank that training changes: dense variables, tables, and what adam keeps for both."""
    dense = [variable.numpy().copy() for variable in model.dense_by_name.values()]
    embedding = model.embedding
    kept = [(shard, slot) for shard in embedding.plan.of_rank(rank) for slot in embedding.slots]
    return dense + [
        np.array(embedding.read_rows(shard, slot, start=shard.rows[0], stop=shard.rows[1])) for shard, slot in kept
    ]


@pytest.mark.parametrize("world_size", [1, 2])
def test_a_step_that_overflows_changes_nothing_on_any_rank(tmp_path, run_ranks, world_size):
    spec = write_dataset(tmp_path, train=256)
    for outcomes, changed, scale in run_ranks(world_size, lambda comm: steps_of(tmp_path, spec, comm, 2.0**23, False)):
        assert all(outcome.skipped and np.isfinite(outcome.loss) for outcome in outcomes)
        assert not changed and scale == 2.0**23


def test_a_dynamic_factor_finds_one_that_works(tmp_path):
    spec = write_dataset(tmp_path, train=2048)
    outcomes, changed, scale = steps_of(tmp_path, spec, SingleProcess(), 2.0**23, steps=30)
    skipped = [outcome.skipped for outcome in outcomes]
    assert skipped[0] and not skipped[-1] and changed
    assert scale == 2.0 ** (23 - sum(skipped))
