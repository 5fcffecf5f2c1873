"""The memory that a run needs, counted by hand and compared with the available memory."""

import dataclasses
import re

import pytest
from support.small_dataset import write_dataset

from criteo_prep.synthetic import presets
from dlrm_tf2.config import TrainConfig
from dlrm_tf2.job import planning, preflight
from dlrm_tf2.model.config import DynamicRules, ModelConfig
from dlrm_tf2.sharding.dynamic_tables import AfterCount
from dlrm_tf2.sharding.plan import Shard, ShardingPlan, make_plan

GIB = 1 << 30


def model_of(cardinalities, dim=128, bottom=(512, 256, 128), top=(1024, 1024, 512, 256, 1)):
    names = tuple(f"cat_{i}" for i in range(len(cardinalities)))
    return ModelConfig(
        names, tuple(cardinalities), num_numerical=13, embedding_dim=dim, bottom_mlp_dims=bottom, top_mlp_dims=top
    )


T15 = model_of(presets.T15)


def check(model, plan, ranks, available, **flags):
    """The line of preflight about a memory that some ranks share."""
    shared = preflight.Memory("this machine", ranks, available)
    return preflight.check_memory(
        TrainConfig(dataset_path="data", **flags), model, plan=plan, memory=shared, data=preflight.DataShape()
    )


def test_weights_by_hand():
    model = model_of((10, 6), dim=4, bottom=(8, 4), top=(5, 1))
    tables = (10 + 6) * 4 * 4
    # 13 numericals are padded to 16; 2 tables and the bottom output make 3 pairs, 4 + 3 is padded to 8.
    dense = (16 * 8 + 8) + (8 * 4 + 4) + (8 * 5 + 5) + (5 * 1 + 1)
    assert (
        preflight.table_bytes(make_plan(model.tables, 1), 0, tables=model.tables, optimizer="sgd", training=True)
        == tables
    )
    assert preflight.dense_bytes(model, "sgd") == 3 * 4 * dense


@pytest.mark.parametrize("optimizer, of_tables, of_mlps", [
    ("sgd", 0, 3), ("adagrad", 22 * 4, 4), ("rowwise_adagrad", 22, 4), ("adam", 2 * 22 * 4, 5),
])  # fmt: skip
def test_optimizer_state_counts_in_training(optimizer, of_tables, of_mlps):
    model = model_of((10, 6, 6), dim=4, bottom=(8, 4), top=(5, 1))
    plan = make_plan(model.tables, 1, optimizer=optimizer)
    assert preflight.table_bytes(plan, 0, tables=model.tables, optimizer=optimizer, training=False) == 4 * 22 * 4
    assert preflight.table_bytes(plan, 0, tables=model.tables, optimizer=optimizer, training=True) == 4 * (
        22 * 4 + of_tables
    )
    assert preflight.dense_bytes(model, optimizer) == preflight.dense_bytes(model, "sgd") // 3 * of_mlps


def test_a_dynamic_table_counts_the_rows_of_its_buckets_and_their_index():
    model = dataclasses.replace(
        model_of((10, None), dim=4, bottom=(8, 4), top=(5, 1)), dynamic=DynamicRules((100,), admission=AfterCount(2))
    )
    plan = make_plan(model.tables, 1)
    found = preflight.table_bytes(plan, 0, tables=model.tables, optimizer="adagrad", training=True)
    assert found == 2 * 4 * 4 * (10 + 100) + 100 * (16 + 32 + 24)  # score and step; index with the key; counter


def test_cut_tables_and_many_ids_by_hand():
    model = dataclasses.replace(model_of((1000, 10), dim=4, bottom=(8, 4), top=(5, 1)), hotness=(3, 1))
    plan = ShardingPlan(2, (
        Shard("cat_0", 0, rows=(0, 1000), columns=(0, 3)), Shard("cat_0", 1, rows=(0, 1000), columns=(3, 4)),
        Shard("cat_1", 0, rows=(0, 10), columns=(0, 4)), Shard("cat_1", 1, rows=(0, 10), columns=(0, 4)),
    ), frozenset({"cat_1"}))  # fmt: skip

    def looked_up(rank, *of_step, embedding_op):
        kind = preflight.StepKind(*of_step, hotness={"cat_0": 3}, embedding_op=embedding_op)
        none, of_rank = (preflight.batch_bytes(model, plan, rank=number, step=kind) for number in (7, rank))
        return of_rank - none

    # cat_0: 3 rows and their sum for each sample; cat_1: one row for each of the rank's own samples.
    assert looked_up(0, False, embedding_op="tensorflow") == pytest.approx(4 * (3 * (3 + 1) + 4 / 2))
    assert looked_up(1, False, embedding_op="tensorflow") == pytest.approx(4 * (1 * (3 + 1) + 4 / 2))
    trained = looked_up(0, True, "adagrad", embedding_op="tensorflow")
    assert trained == pytest.approx(4 * (3 * (3 + 1 + 3 * 3) + 4 * (1 + 3) / 2))
    # The native op sums the 3 rows in place; replicas count as with TensorFlow's ops.
    assert looked_up(0, False, embedding_op="native") == pytest.approx(4 * (3 * 1 + 4 / 2))
    assert looked_up(1, False, embedding_op="auto") == pytest.approx(4 * (1 * 1 + 4 / 2))
    # In training with a gradient for each vector, and 28 bytes for each id, whatever the optimizer.
    for_ids = 28 * 3
    trained = looked_up(0, True, "adagrad", embedding_op="native")
    assert trained == pytest.approx(4 * (3 * 2 + 4 * (1 + 3) / 2) + for_ids)


def test_rows_that_travel_count_one_by_one():
    model = dataclasses.replace(model_of((1000, 10), dim=4, bottom=(8, 4), top=(5, 1)), hotness=(3, 1))
    shards = [Shard("cat_0", rank, rows=(500 * rank, 500 * rank + 500), columns=(0, 4)) for rank in (0, 1)]
    plan = ShardingPlan(2, (*shards, Shard("cat_1", 0, rows=(0, 10), columns=(0, 4))))

    def bytes_of(embedding_op):
        kind = preflight.StepKind(True, hotness={"cat_0": 3}, embedding_op=embedding_op, data_parallel_input=True)
        return preflight.batch_bytes(model, plan, rank=1, step=kind)

    assert bytes_of("native") == bytes_of("tensorflow")


@pytest.mark.parametrize("optimizer, of_state", [("sgd", 0), ("rowwise_adagrad", 22), ("adam", 2 * 22 * 4)])
def test_16_bit_weights_take_2_bytes_and_their_state_4(optimizer, of_state):
    model = model_of((10, 6, 6), dim=4, bottom=(8, 4), top=(5, 1))
    plan = make_plan(model.tables, 1, optimizer=optimizer, table_dtype="bfloat16")
    for training in (False, True):
        expected = 2 * 22 * 4 + (4 * of_state if training else 0)
        assert preflight.table_bytes(plan, 0, tables=model.tables, optimizer=optimizer, training=training) == expected
    float32 = make_plan(model.tables, 1, optimizer=optimizer)
    copies = [preflight.copy_bytes(model, of_type, rank=0, optimizer=optimizer) for of_type in (float32, plan)]
    assert copies[0] - copies[1] == 2 * 22 * 4


def test_t15_in_16_bits_fits_where_it_does_not_in_32():
    """7.80 GiB of weights."""
    sixteen, thirty_two = (make_plan(T15.tables, 1, table_dtype=dtype) for dtype in ("bfloat16", "float32"))
    assert sixteen.bytes_of(0) == 16_747_078_656 // 2
    small = {"batch_size": 512, "valid_batch_size": 512}
    assert "tables 7.80 GiB" in check(T15, sixteen, [0], 12 * GIB, **small)
    with pytest.raises(preflight.DoesNotFit, match="15.60 GiB of them tables"):
        check(T15, thirty_two, [0], 12 * GIB, **small)


def test_published_t15_tables():
    assert make_plan(T15.tables, 1).bytes_of(0) == 16_747_078_656


@pytest.mark.parametrize("ranks", [1, 2, 4])
@pytest.mark.parametrize("xla", [False, True])
def test_the_largest_batch_named_fits_and_one_more_does_not(ranks, xla):
    plan, available = make_plan(T15.tables, ranks), (18 + ranks) * GIB
    with pytest.raises(preflight.DoesNotFit, match="bytes .* are available") as refusal:
        check(T15, plan, range(ranks), available, batch_size=10**7, xla=xla)
    largest = int(re.search(r"The largest that fits is --batch_size (\d+)", str(refusal.value))[1])
    assert largest > 1000
    small = {"evals_per_epoch": 0, "xla": xla}
    assert "memory: about" in check(T15, plan, range(ranks), available, batch_size=largest, **small)
    with pytest.raises(preflight.DoesNotFit):
        check(T15, plan, range(ranks), available, batch_size=largest + 1, **small)


def test_the_evaluation_batch_counts_only_where_there_is_an_evaluation():
    plan = make_plan(T15.tables, 1)
    with pytest.raises(preflight.DoesNotFit, match="--valid_batch_size 10000000 does not fit"):
        check(T15, plan, [0], 22 * GIB, batch_size=512, valid_batch_size=10**7)
    check(T15, plan, [0], 22 * GIB, batch_size=512, valid_batch_size=10**7, evals_per_epoch=0)


def test_the_largest_step_of_a_run():
    """The batch of the training or of the evaluation, at most the samples of its split."""
    plan, data = make_plan(T15.tables, 1), preflight.DataShape(num_samples={"train": 5000, "test": 70000})

    def bytes_of(**flags):
        config = TrainConfig(dataset_path="data", batch_size=8192, valid_batch_size=65536, **flags)
        return preflight.step_bytes(config, T15, plan=plan, rank=0, data=data)

    def each(training):
        return preflight.batch_bytes(T15, plan, rank=0, step=preflight.StepKind(training))

    assert bytes_of(evals_per_epoch=0) == 5000 * each(True)
    assert bytes_of() == max(5000 * each(True), 65536 * each(False)) == 65536 * each(False)


def test_tables_that_do_not_fit_name_no_batch():
    t0 = model_of(presets.T0)
    with pytest.raises(preflight.DoesNotFit, match="420.94 GiB of them tables") as refusal:
        check(t0, make_plan(t0.tables, 1), [0], 22 * GIB)
    assert "largest" not in str(refusal.value) and str(22 * GIB) in str(refusal.value)


@pytest.mark.parametrize("optimizer, of_tables, of_mlps", [
    ("sgd", 22 * 4, 1), ("adagrad", 2 * 22 * 4, 2), ("rowwise_adagrad", 22 * 4 + 22, 2), ("adam", 3 * 22 * 4, 3),
])  # fmt: skip
def test_checkpoint_async_needs_a_copy_of_the_weights_that_a_rank_writes(optimizer, of_tables, of_mlps):
    model = model_of((10, 6, 6), dim=4, bottom=(8, 4), top=(5, 1))
    plan = make_plan(model.tables, 1)
    # 13 numericals are padded to 16; 3 tables and the bottom output make 6 pairs, 4 + 6 is padded to 16.
    dense = (16 * 8 + 8) + (8 * 4 + 4) + (16 * 5 + 5) + (5 * 1 + 1)
    assert preflight.copy_bytes(model, plan, rank=0, optimizer=optimizer) == 4 * (of_tables + of_mlps * dense)
    replicated = ShardingPlan(2, tuple(
        Shard(f"cat_{i}", rank, rows=(0, rows), columns=(0, 4)) for i, rows in enumerate((10, 6, 6)) for rank in (0, 1)
    ), frozenset({"cat_0", "cat_1", "cat_2"}))  # fmt: skip
    assert preflight.copy_bytes(model, replicated, rank=0, optimizer=optimizer) == 4 * (of_tables + of_mlps * dense)
    assert preflight.copy_bytes(model, replicated, rank=1, optimizer=optimizer) == 0


def test_a_run_that_fits_may_not_fit_with_checkpoint_async():
    plan, flags = make_plan(T15.tables, 1), {"batch_size": 512, "valid_batch_size": 512, "save_checkpoint_path": "c"}
    assert "memory: about 1" in check(T15, plan, [0], 24 * GIB, **flags)
    with pytest.raises(
        preflight.DoesNotFit, match="15.61 GiB of these bytes are the copy of --checkpoint_async, without which"
    ):
        check(T15, plan, [0], 24 * GIB, **flags, checkpoint_async=True)


def test_a_batch_that_is_larger_than_the_split_counts_as_the_split():
    plan, available = make_plan(T15.tables, 1), 24 * GIB
    shared = preflight.Memory("this machine", [0], available)

    def line(train, **flags):
        config = TrainConfig(dataset_path="data", evals_per_epoch=0, **flags)
        data = preflight.DataShape(num_samples={"train": train})
        return preflight.check_memory(config, T15, plan=plan, memory=shared, data=data)

    assert line(1000, batch_size=10**9) == line(10**9, batch_size=1000)
    with pytest.raises(preflight.DoesNotFit, match="--batch_size 9000000 does not fit .*a batch of 8000000 samples"):
        line(8 * 10**6, batch_size=9 * 10**6)


def test_samples_are_counted_in_the_files_of_the_run(tmp_path):
    spec = write_dataset(tmp_path, train=70, test=30, validation=20)
    config = TrainConfig(dataset_path=str(tmp_path), eval_split="validation")
    assert planning.data_shape_of(config, spec).num_samples == {"train": 70, "validation": 20}
    (tmp_path / "train/label.bin").unlink()
    assert planning.data_shape_of(config, spec).num_samples == {"validation": 20}
    synthetic = TrainConfig(dataset_path=str(tmp_path), dataset_type="synthetic")
    assert planning.data_shape_of(synthetic, spec).num_samples == {}
