"""The bytes that a training step moves between ranks are those that the plan's costs predict."""

import pytest
from support.counting_comm import CountingComm
from support.small_dataset import write_dataset

from dlrm_tf2.config import TrainConfig
from dlrm_tf2.logs.run_log import RunLog
from dlrm_tf2.model.config import ModelConfig
from dlrm_tf2.model.dlrm import ComputeSettings, Dlrm
from dlrm_tf2.sharding.cost import Step, cost_of
from dlrm_tf2.sharding.plan import ShardingPlan, make_plan
from dlrm_tf2.training.trainer import Trainer

BATCH = 62  # the first of 3 ranks has 21 samples, the last 20


def bytes_of_a_step(root, spec, comm, plan, dtype, data_parallel_input):
    comm = CountingComm(comm)
    config = TrainConfig(
        dataset_path=str(root), embedding_dim=8, bottom_mlp_dims=(12, 8), top_mlp_dims=(10, 1), batch_size=BATCH,
        seed=5, max_steps=1, evals_per_epoch=0, data_parallel_input=data_parallel_input, log_path=None,
    )  # fmt: skip
    model = Dlrm(
        ModelConfig.of(config, spec),
        plan,
        comm=comm,
        seed=config.seed,
        settings=ComputeSettings(compute_dtype=dtype, data_parallel_input=data_parallel_input),
    )
    Trainer(config, spec, model=model, log=RunLog(None, enabled=False)).train()
    return sum(comm.sent_bytes.values())


@pytest.mark.parametrize("world_size", [2, 3])
@pytest.mark.parametrize("dtype, data_parallel_input, thresholds", [
    ("float32", False, {"column_slice_threshold": 10**6}),  # whole tables
    ("bfloat16", False, {"column_slice_threshold": 300}),
    ("float16", True, {"column_slice_threshold": 10**6}),
    ("float32", True, {"column_slice_threshold": 300}),
    ("float32", True, {"data_parallel_threshold": 60}),
])  # fmt: skip
def test_bytes_moved_are_those_predicted(tmp_path, run_ranks, world_size, dtype, data_parallel_input, thresholds):
    spec = write_dataset(tmp_path)
    tables = ModelConfig.of(
        TrainConfig(dataset_path=str(tmp_path), embedding_dim=8, bottom_mlp_dims=(12, 8)), spec
    ).tables
    plan = make_plan(tables, world_size, **thresholds)
    assert len(plan.replicated) == (2 if "data_parallel_threshold" in thresholds else 0)
    moved = run_ranks(world_size, lambda comm: bytes_of_a_step(tmp_path, spec, comm, plan, dtype, data_parallel_input))
    step = Step(BATCH, wire_bytes=4 if dtype == "float32" else 2, data_parallel_input=data_parallel_input)
    costs = cost_of(plan, tables, step)
    predicted = [cost.sent_bytes for cost in costs]
    if not plan.replicated:
        assert moved == predicted
        return
    # Of replicated tables the rows that were used travel, of which the prediction is the most there can be.
    spread = ShardingPlan(world_size, tuple(shard for shard in plan.shards if shard.table not in plan.replicated))
    without = cost_of(spread, tables, Step(BATCH, data_parallel_input=True))
    for rank in range(world_size):
        assert without[rank].sent_bytes < moved[rank] <= predicted[rank]
