"""The trainer's flags as a plan, and mode plan's text, which must say what the plan does."""

import re

import pytest
from support.small_dataset import write_dataset

from criteo_prep.feature_spec import Feature, tf_raw_spec
from criteo_prep.synthetic import presets
from dlrm_tf2 import dlrm
from dlrm_tf2.config import TrainConfig
from dlrm_tf2.job import planning
from dlrm_tf2.model.config import ModelConfig


@pytest.fixture(scope="module")
def t15(tmp_path_factory):
    """The published Criteo spec at threshold 15; there are no data files."""
    root = tmp_path_factory.mktemp("t15")
    spec = tf_raw_spec([Feature(f"cat_{i}", "int32", rows) for i, rows in enumerate(presets.T15)])
    spec.save(root / "feature_spec.yaml")
    return root, spec


def printed(capsys, *arguments):
    assert dlrm.main([str(argument) for argument in (*arguments, "--mode", "plan")]) == 0
    return capsys.readouterr().out


def ranks_of(text):
    """The lines of the ranks, as dicts of numbers."""
    lines = text[text.index("rank  shards") :].splitlines()
    names = re.split(r"\s{2,}", lines[0].strip())
    return [dict(zip(names, map(float, line.split()), strict=True)) for line in lines[1:-1]]


@pytest.mark.parametrize("strategy", ["balanced", "basic", "memory_balanced", "memory_optimized"])
def test_the_text_says_what_the_plan_does(t15, capsys, strategy):
    root, spec = t15
    arguments = ("--dataset_path", root, "--world_size", 8, "--optimizer", "adagrad", "--dist_strategy", strategy)
    text = printed(capsys, *arguments)
    config = TrainConfig(dataset_path=str(root), mode="plan", optimizer="adagrad", dist_strategy=strategy)
    plan = planning.plan_of(config, ModelConfig.of(config, spec), spec=spec, world_size=8)
    ranks = ranks_of(text)
    assert [rank["weight bytes"] for rank in ranks] == [plan.bytes_of(rank) for rank in range(8)]
    assert [rank["state bytes"] for rank in ranks] == [plan.bytes_of(rank) for rank in range(8)]
    memory, gather, _ = map(float, re.search(r"imbalance: memory (\S+) gather (\S+) output (\S+)$", text).groups())
    fetched = [rank["elements fetched"] for rank in ranks]
    assert gather == pytest.approx(max(fetched) * 8 / sum(fetched), abs=0.005)
    held = [plan.bytes_of(rank) for rank in range(8)]
    assert memory == pytest.approx(max(held) * 8 / sum(held), abs=0.005)


def test_the_default_is_balanced_for_criteo(t15, capsys):
    for ranks in (2, 4, 8):
        text = printed(capsys, "--dataset_path", t15[0], "--world_size", ranks)
        assert "tables: 26, 15.597 GiB (16747078656 bytes)" in text
        assert max(map(float, re.findall(r"(?:memory|gather|output) (\d\.\d+)", text))) <= 1.1


def test_thresholds_reach_the_plan(t15, capsys):
    flags = ("--row_slice_threshold", 10**9, "--data_parallel_threshold", 10**6)
    text = printed(capsys, "--dataset_path", t15[0], "--world_size", 2, *flags)
    assert "cat_19    8165896    128           1  3.894  by rows on ranks 0-1" in text  # 1,045,234,688 elements
    assert re.search(r"cat_6 .* replicated", text)  # 909,440 elements
    assert not re.search(r"cat_14 .* replicated", text)  # 1,365,376


def test_published_strategies_cut_columns_where_the_published_trainer_does(tmp_path):
    spec = tf_raw_spec([Feature(f"cat_{i}", "int32", rows) for i, rows in enumerate(presets.T0)])
    spec.save(tmp_path / "feature_spec.yaml")
    config = TrainConfig(dataset_path=str(tmp_path), mode="plan", dist_strategy="memory_balanced")
    model = ModelConfig.of(config, spec)
    plan = planning.plan_of(config, model, spec=spec, world_size=8)
    # Above 5e9 elements, which with 128 columns are 39,062,500 rows.
    large = {name for name, rows in zip(model.features, model.cardinalities, strict=True) if rows > 39_062_500}
    assert len(large) == 5
    assert {table.name for table in model.tables if len(plan.of_table(table.name)) > 1} == large


def test_a_gpu_with_little_room(t15, capsys):
    root, spec = t15
    text = printed(capsys, "--dataset_path", root, "--world_size", 1, "--cpu_offloading_threshold_gb", 6)
    # Ascending, the sixth largest table and all below it have 2.9 GB with cat_20; with cat_9 it is 5.7, then 9.4.
    left = (7912889 + 8165896 + 7156453) * 512
    assert f"for a GPU with room for 5.59 GiB of tables: 3 shards, {left / 2**30:.2f} GiB" in text
    config = TrainConfig(dataset_path=str(root), cpu_offloading_threshold_gb=6)
    model = ModelConfig.of(config, spec)
    plan = planning.plan_of(config, model, spec=spec, world_size=1)
    assert {shard.table for shard in plan.on_host} == {"cat_0", "cat_19", "cat_21"}
    assert "all tables are in host memory" in planning.offloading_note(config, plan, "cpu")
    assert f"3 shards ({left} bytes) stay in host memory" in planning.offloading_note(config, plan, "gpu")
    roomy = TrainConfig(dataset_path="d", cpu_offloading_threshold_gb=20)
    plan = planning.plan_of(roomy, model, spec=spec, world_size=1)
    assert "all tables stay on the GPU" in planning.offloading_note(roomy, plan, "gpu")
    without = TrainConfig(dataset_path="d")
    plan = planning.plan_of(without, model, spec=spec, world_size=1)
    assert plan.on_host == frozenset() and planning.offloading_note(without, plan, "gpu") is None


def test_a_plan_of_16_bit_tables(t15, capsys):
    root, _ = t15
    flags = ("--dataset_path", root, "--world_size", 1, "--optimizer", "adagrad", "--table_dtype", "bfloat16")
    text = printed(capsys, *flags)
    assert f"tables: 26, 7.798 GiB ({16_747_078_656 // 2} bytes)" in text
    assert str(16_747_078_656 // 2) in text.splitlines()[-2] and str(16_747_078_656) in text.splitlines()[-2]
    # Of the three tables that a GPU leaves on the host in 32 bits, the smallest now has room.
    offloaded = printed(capsys, *flags, "--cpu_offloading_threshold_gb", 6)
    assert f"of tables: 2 shards, {(7912889 + 8165896) * 256 / 2**30:.2f} GiB" in offloaded


def test_plan_needs_no_checkpoint_and_touches_nothing(tmp_path, capsys):
    write_dataset(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    printed(capsys, "--dataset_path", tmp_path, "--log_path", tmp_path / "log.json")
    assert sorted(tmp_path.rglob("*")) == before
