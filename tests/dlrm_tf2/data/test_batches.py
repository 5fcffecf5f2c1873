"""What each rank reads of a dataset."""

import itertools
import json
import os
import threading
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
from support.small_dataset import write_dataset

from criteo_prep.batch import Batch, Ids
from criteo_prep.feature_spec import Feature, FeatureSpec, FeatureSpecError, tf_raw_spec
from criteo_prep.transcribe.tf_raw import Reader, Writer
from dlrm_tf2.config import ConfigError, TrainConfig
from dlrm_tf2.data import file_watch
from dlrm_tf2.data.array_pool import ArrayPool
from dlrm_tf2.data.batches import (
    _TILE,
    Position,
    RankData,
    RankShare,
    Reading,
    _put_side_by_side,
    _widen,
    check_splits,
    open_split,
)
from dlrm_tf2.model.config import ModelConfig
from dlrm_tf2.runtime.comm import SingleProcess
from dlrm_tf2.sharding.plan import samples_of_rank


def test_the_first_ranks_take_one_sample_more():
    assert [samples_of_rank(11, 3, rank) for rank in range(3)] == [(0, 4), (4, 8), (8, 11)]
    assert [samples_of_rank(2, 3, rank) for rank in range(3)] == [(0, 1), (1, 2), (2, 2)]


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("batch_size", [64, 300, 1000, 5000])
def test_the_ranks_together_read_every_sample_once(tmp_path, world_size, batch_size):
    spec = write_dataset(tmp_path, train=1000)
    whole = Reader(tmp_path, spec, split="train").read(0, 1000)
    local = ("cat_3", "cat_1")
    ranks = [
        RankData(spec, "train", share=RankShare(rank, world_size, global_features=local)) for rank in range(world_size)
    ]
    streams = [list(rank.batches(batch_size)) for rank in ranks]
    assert {len(stream) for stream in streams} == {ranks[0].num_batches(batch_size)} == {-(-1000 // batch_size)}
    label = np.concatenate([batch.label for batches in zip(*streams, strict=True) for batch in batches])
    numerical = np.concatenate([batch.numerical for batches in zip(*streams, strict=True) for batch in batches])
    np.testing.assert_array_equal(label, whole.label)
    np.testing.assert_array_equal(numerical, whole.numerical)
    for stream in streams:
        ids = np.concatenate([batch.ids.global_ids.fixed for batch in stream])
        np.testing.assert_array_equal(ids[:, 0], whole.categorical["cat_3"].values)
        np.testing.assert_array_equal(ids[:, 1], whole.categorical["cat_1"].values)
        assert sum(batch.global_batch for batch in stream) == 1000


def test_keys_are_int64_and_any_int64_is_a_key(tmp_path):
    features = [Feature("ids", "", 5), Feature("keys", "", key=True), Feature("bags", "", ragged=True, key=True)]
    spec = tf_raw_spec(features, num_numerical=1, splits=("train",))
    keys, bags = np.array([-1, 2**63 - 1, 0, -(2**63)]), np.array([2**40, -7, 9])
    with Writer(tmp_path, spec, "train") as writer:
        bags_of = Ids(bags, np.array([2, 0, 0, 1], np.int32))
        parts = {"ids": Ids(np.array([4, 0, 1, 2])), "keys": Ids(keys), "bags": bags_of}
        writer.write(Batch(np.zeros(4, bool), np.zeros((4, 1), np.float16), parts))
    spec.save(tmp_path / "feature_spec.yaml")
    spec = FeatureSpec.load(tmp_path / "feature_spec.yaml")
    for shuffle in ("none", "full"):
        share = RankShare(global_features=("keys", "bags"), sample_features=("keys", "ids"))
        reading = Reading(shuffle, seed=5)
        (batch,) = RankData(spec, "train", share=share, reading=reading).batches(9)
        order = [keys.tolist().index(key) for key in batch.ids.global_ids.fixed[:, 0]]
        assert sorted(order) == [0, 1, 2, 3] and (order == [0, 1, 2, 3]) == (shuffle == "none")
        assert batch.ids.local_ids.fixed.tolist() == [[keys[row], [4, 0, 1, 2][row]] for row in order]
        values, lengths = batch.ids.global_ids.ragged["bags"]
        assert values.tolist() == [key for row in order for key in ([2**40, -7], [], [], [9])[row]]
        assert lengths.tolist() == [(2, 0, 0, 1)[row] for row in order]
        assert {values.dtype, batch.ids.global_ids.fixed.dtype, batch.ids.local_ids.fixed.dtype} == {np.dtype(np.int64)}
    (batch,) = RankData(spec, "train", share=RankShare(sample_features=("ids",))).batches(9)
    assert batch.ids.local_ids.fixed.dtype == np.int32
    with pytest.raises(ConfigError, match="the features keys, bags hold raw keys.* Give --dynamic_capacity N, or make"):
        ModelConfig.of(TrainConfig(dataset_path=str(tmp_path)), spec)


def flat(batches):
    """Label, numericals and ids of all batches, each as one array."""
    batches = list(batches)
    parts = [[b.label for b in batches], [b.numerical for b in batches], [b.ids.global_ids.fixed for b in batches]]
    return [np.concatenate(part) for part in parts]


@pytest.mark.parametrize("shuffle", ["none", "window", "full"])
def test_a_pass_continues_at_a_position(tmp_path, shuffle):
    reading = Reading(shuffle, window=130, seed=3)
    data = RankData(
        write_dataset(tmp_path),
        "train",
        share=RankShare(global_features=("cat_0", "cat_3")),
        reading=reading,
    )
    whole = list(data.batches(300))
    assert [batch.after for batch in whole] == [Position(0, 300), Position(0, 600), Position(0, 900), Position(1, 0)]
    for size in (300, 77):  # resuming with another batch size is possible
        rest = flat(data.batches(size, whole[1].after))
        for mine, theirs in zip(rest, flat(whole[2:]), strict=True):
            np.testing.assert_array_equal(mine, theirs)
    assert data.num_batches(300, start=600) == 2
    assert list(data.batches(300, Position(0, 1000))) == []


@pytest.mark.parametrize("shuffle", ["window", "full"])
def test_shuffled_ranks_agree_on_the_samples(tmp_path, shuffle):
    """Two ranks read the labels of one rank together, and each rank reads the ids of one rank."""
    spec, reading = write_dataset(tmp_path), Reading(shuffle, window=130, seed=3)
    alone = flat(
        RankData(spec, "train", share=RankShare(global_features=("cat_0", "cat_3")), reading=reading).batches(101)
    )
    streams = [
        list(
            RankData(
                spec,
                "train",
                share=RankShare(r, 2, global_features=("cat_0", "cat_3")),
                reading=reading,
            ).batches(101)
        )
        for r in (0, 1)
    ]
    label = np.concatenate([batch.label for batches in zip(*streams, strict=True) for batch in batches])
    np.testing.assert_array_equal(label, alone[0])
    for stream in streams:
        np.testing.assert_array_equal(flat(stream)[2], alone[2])
    in_order = flat(RankData(spec, "train", share=RankShare(global_features=("cat_0", "cat_3"))).batches(101))
    assert alone[2].tolist() != in_order[2].tolist()
    assert sorted(alone[2].tolist()) == sorted(in_order[2].tolist())


def test_data_parallel_input_reads_the_same_samples(tmp_path):
    spec, reading = write_dataset(tmp_path), Reading("window", window=130, seed=3)
    of_all = list(
        RankData(spec, "train", share=RankShare(1, 2, global_features=("cat_0", "cat_3")), reading=reading).batches(101)
    )
    of_mine = list(
        RankData(spec, "train", share=RankShare(1, 2, sample_features=("cat_0", "cat_3")), reading=reading).batches(101)
    )
    for model_parallel, data_parallel in zip(of_all, of_mine, strict=True):
        first, last = samples_of_rank(model_parallel.global_batch, 2, 1)
        expected = model_parallel.ids.global_ids.fixed[first:last]
        np.testing.assert_array_equal(data_parallel.ids.local_ids.fixed, expected)
        np.testing.assert_array_equal(data_parallel.label, model_parallel.label)


@pytest.mark.parametrize("shuffle", ["none", "window", "full"])
def test_pass_after_pass_from_a_saved_position(tmp_path, shuffle):
    spec, reading = write_dataset(tmp_path), Reading(shuffle, window=130, seed=3)
    data = RankData(spec, "train", share=RankShare(global_features=("cat_0",)), reading=reading)
    run = list(itertools.islice(data.passes(300, Position(0, 0)), 9))
    assert [batch.global_batch for batch in run] == [300, 300, 300, 100] * 2 + [300]
    document = json.loads(json.dumps(data.document(run[5].after)))
    again = RankData(spec, "train", share=RankShare(global_features=("cat_0",)), reading=reading)
    assert again.position_in(document) == Position(1, 600)
    rest = flat(itertools.islice(again.passes(300, again.position_in(document)), 3))
    for mine, theirs in zip(rest, flat(run[6:]), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    if shuffle != "none":
        assert flat(run[:4])[2].tolist() != flat(run[4:8])[2].tolist()


def test_a_restored_model_reads_in_the_order_of_its_checkpoint_whatever_the_seed(tmp_path):
    spec, embedding = write_dataset(tmp_path), SimpleNamespace(global_features=("cat_2",), sample_features=())

    def ids(seed, restored):
        config = TrainConfig(dataset_path=str(tmp_path), shuffle="full", seed=seed)
        return flat(
            open_split(
                config, spec, split="train", embedding=embedding, comm=SingleProcess(), restored=restored
            ).batches(100)
        )[2].tolist()

    of_3 = ids(3, None)
    assert ids(7, {"step": 5, "data": {"seed": 3}}) == of_3
    assert ids(7, {"step": 5}) == ids(7, None) != of_3


@pytest.mark.parametrize("other", [Reading("full", seed=3), Reading("window", 131, 3), Reading("window", 130, 4)])
def test_a_position_of_another_order_is_none(tmp_path, other):
    spec = write_dataset(tmp_path)
    document = RankData(spec, "train", share=RankShare(), reading=Reading("window", 130, 3)).document(Position(1, 600))
    assert RankData(spec, "train", share=RankShare(), reading=other).position_in(document) is None
    assert (
        RankData(
            spec,
            "test",
            share=RankShare(),
            reading=Reading("window", 130, 3),
        ).position_in(document)
        is None
    )


def test_drop_last_drops_the_last_smaller_batch(tmp_path):
    data = RankData(
        write_dataset(tmp_path),
        "train",
        share=RankShare(global_features=("cat_0",)),
        reading=Reading(drop_last=True),
    )
    assert [batch.after for batch in data.batches(300)][-1] == Position(1, 0)
    assert [batch.global_batch for batch in data.batches(300)] == [300, 300, 300]
    assert data.num_batches(300) == 3 and data.num_batches(300, start=500) == 1


def test_every_float16_is_widened_exactly():
    halves = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    halves = halves[np.isfinite(halves)].reshape(-1, 2)
    out = np.empty(halves.shape, np.float32)
    _widen(halves, out)
    np.testing.assert_array_equal(out.view(np.int32), halves.astype(np.float32).view(np.int32))


@pytest.mark.parametrize("samples", [0, 1, _TILE - 1, _TILE, 2 * _TILE + 3])
def test_ids_side_by_side(samples):
    rng = np.random.default_rng(0)
    columns = [rng.integers(0, 1000, (samples, width)).astype(np.int32) for width in (1, 3, 1, 7)]
    out = np.empty((samples, 12), np.int32)
    _put_side_by_side(columns, out)
    np.testing.assert_array_equal(out, np.concatenate(columns, axis=1))


def test_an_array_that_nobody_holds_is_used_again():
    pool = ArrayPool()
    first = pool.empty(10, (3,), np.int32)
    address = first.ctypes.data
    kept = first[2:4][0]  # a view of a view
    del first
    second = pool.empty(10, (3,), np.int32)
    assert second.ctypes.data != address
    del kept
    third = pool.empty(8, (3,), np.int32)
    assert third.ctypes.data == address and third.shape == (8, 3)
    del third
    assert pool.empty(8, (3,), np.float32).ctypes.data != address
    assert pool.empty(8, (4,), np.int32).ctypes.data != address


def test_a_tensor_over_an_array_keeps_it():
    pool = ArrayPool()
    array = pool.empty(4096, (16,), np.float32)
    array[:] = 1
    tensor = tf.convert_to_tensor(array)
    del array
    pool.empty(4096, (16,), np.float32)[:] = 2
    assert float(tf.reduce_max(tensor)) == 1


@pytest.mark.parametrize("world_size", [1, 2])
def test_synthetic_batches_are_fresh_and_the_same_on_all_ranks(tmp_path, world_size):
    features = [Feature("a", "int32", 1000, alpha=1.2), Feature("b", "int8", 50, 3, alpha=0.0)]
    spec = tf_raw_spec(features, num_numerical=2, splits=())
    names = tuple(spec.channels["categorical"])
    reading = Reading(seed=5, synthetic_samples=250)
    ranks = [
        RankData(spec, "train", share=RankShare(rank, world_size, global_features=names), reading=reading)
        for rank in range(world_size)
    ]
    epochs = [[flat(rank.batches(100, Position(epoch, 0))) for rank in ranks] for epoch in (0, 1)]
    alone = flat(RankData(spec, "train", share=RankShare(global_features=names), reading=reading).batches(100))
    assert alone[2].shape == (250, 4) and alone[2][:, 1:].max() < 50 and alone[2].min() >= 0
    assert len({tuple(row) for row in alone[2].tolist()}) > 240
    for stream in epochs[0]:
        np.testing.assert_array_equal(stream[2], alone[2])
    assert sum(len(stream[0]) for stream in epochs[0]) == 250
    assert epochs[1][0][2].tolist() != epochs[0][0][2].tolist()
    with pytest.raises(FeatureSpecError, match="has no alpha"):
        RankData(
            tf_raw_spec([Feature("a", "int32", 9)]),
            "train",
            share=RankShare(global_features=("cat_0",)),
            reading=reading,
        )


def change_while_reading(tmp_path, monkeypatch, change):
    """Reads a batch, lets `change` change a file, and reads the other batches."""
    monkeypatch.setattr(file_watch, "_INTERVAL_S", 0.0)
    data = RankData(write_dataset(tmp_path), "train", share=RankShare(global_features=("cat_1",)))
    batches = data.batches(10)
    next(batches)
    change(tmp_path / "train/cat_1.bin")
    list(batches)


@pytest.mark.parametrize("change, message", [
    (lambda path: path.unlink(), r"cat_1\.bin: was removed; training had read up to row \d+"),
    (lambda path: os.truncate(path, 500), r"cat_1\.bin: has 500 bytes and had 1000 .* up to row \d+"),
    (lambda path: path.with_suffix(".new").write_bytes(path.read_bytes()) and path.with_suffix(".new").replace(path),
     r"cat_1\.bin: was replaced by another file; .* up to row \d+")])  # fmt: skip
def test_a_file_that_changes_while_it_is_read_is_named(tmp_path, monkeypatch, change, message):
    with pytest.raises(FeatureSpecError, match=message):
        change_while_reading(tmp_path, monkeypatch, change)


def test_a_file_that_shrinks_between_two_looks_is_named(tmp_path):
    data = RankData(write_dataset(tmp_path), "train", share=RankShare(global_features=("cat_1",)))
    data._watch._next = float("inf")
    os.truncate(tmp_path / "train/cat_1.bin", 500)
    with pytest.raises(FeatureSpecError, match=r"cat_1\.bin: ends at byte 500, before sample 510"):
        list(data.batches(10))


def test_a_rank_without_tables_reads_its_samples(tmp_path):
    batch = next(RankData(write_dataset(tmp_path), "train", share=RankShare(1, 2)).batches(100))
    assert batch.ids.global_ids.fixed.shape == (100, 0) and batch.label.shape == (50,)


def test_only_the_files_of_its_tables_are_opened(tmp_path):
    spec = write_dataset(tmp_path)
    data = RankData(spec, "train", share=RankShare(global_features=("cat_2",)))
    assert data.num_samples == 1000
    links = [f"/proc/self/fd/{fd}" for fd in os.listdir("/proc/self/fd")]
    opened = [os.readlink(link) for link in links if os.path.exists(link)]
    mine = {os.path.basename(path) for path in opened if path.startswith(str(tmp_path / "train"))}
    assert mine == {"label.bin", "numerical.bin", "cat_2.bin"}


def test_an_id_out_of_range_names_file_row_and_id(tmp_path):
    spec = write_dataset(tmp_path)
    ids = np.fromfile(tmp_path / "train/cat_1.bin", np.int8)
    ids[777] = 9
    ids.tofile(tmp_path / "train/cat_1.bin")
    with pytest.raises(FeatureSpecError, match=r"train/cat_1.bin: row 777: id 9 .* cardinality 7"):
        list(RankData(spec, "train", share=RankShare(global_features=("cat_1",))).batches(100))


@pytest.mark.parametrize("file", ["label.bin", "cat_3.bin"])
def test_a_missing_file_of_the_test_split_is_found_by_a_check_of_the_splits(tmp_path, file):
    spec = write_dataset(tmp_path)
    config = TrainConfig(dataset_path=str(tmp_path), seed=1)
    check_splits(config, spec)
    (tmp_path / "test" / file).unlink()
    with pytest.raises(FeatureSpecError, match=f"test/{file}"):
        check_splits(config, spec)
    check_splits(TrainConfig(dataset_path=str(tmp_path), evals_per_epoch=0, seed=1), spec)


def test_an_empty_split_is_refused(tmp_path):
    spec = write_dataset(tmp_path, test=0)
    with pytest.raises(FeatureSpecError, match="the split 'test' holds no sample"):
        RankData(spec, "test", share=RankShare(global_features=("cat_0",)))


def test_leaving_a_pass_early_leaves_no_thread(tmp_path):
    data = RankData(write_dataset(tmp_path), "train", share=RankShare(global_features=("cat_0",)))
    before = threading.active_count()
    batches = data.batches(10)
    next(batches)
    assert threading.active_count() > before
    batches.close()
    assert threading.active_count() == before
