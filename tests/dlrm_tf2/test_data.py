"""What each rank reads of a dataset."""

import os
import threading

import numpy as np
import pytest
from small_dataset import write_dataset

from criteo_prep.feature_spec import FeatureSpecError
from criteo_prep.transcribe.tf_raw import Reader
from dlrm_tf2.data import RankData
from dlrm_tf2.embedding.plan import samples_of_rank


def test_the_first_ranks_take_one_sample_more():
    assert [samples_of_rank(11, 3, rank) for rank in range(3)] == [(0, 4), (4, 8), (8, 11)]
    assert [samples_of_rank(2, 3, rank) for rank in range(3)] == [(0, 1), (1, 2), (2, 2)]


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("batch_size", [64, 300, 1000, 5000])
def test_the_ranks_together_read_every_sample_once(tmp_path, world_size, batch_size):
    spec = write_dataset(tmp_path, train=1000)
    whole = Reader(tmp_path, spec, "train").read(0, 1000)
    local = ("cat_3", "cat_1")
    ranks = [RankData(spec, "train", local, (), rank, world_size) for rank in range(world_size)]
    streams = [list(rank.batches(batch_size)) for rank in ranks]
    assert {len(stream) for stream in streams} == {ranks[0].num_batches(batch_size)} == {-(-1000 // batch_size)}
    label = np.concatenate([batch.label for batches in zip(*streams, strict=True) for batch in batches])
    numerical = np.concatenate([batch.numerical for batches in zip(*streams, strict=True) for batch in batches])
    np.testing.assert_array_equal(label, whole.label)
    np.testing.assert_array_equal(numerical, whole.numerical)
    for stream in streams:
        ids = np.concatenate([batch.ids.of_all.fixed for batch in stream])
        np.testing.assert_array_equal(ids[:, 0], whole.categorical["cat_3"].values)
        np.testing.assert_array_equal(ids[:, 1], whole.categorical["cat_1"].values)
        assert sum(batch.global_batch for batch in stream) == 1000


def test_a_pass_can_start_at_any_batch(tmp_path):
    data = RankData(write_dataset(tmp_path), "train", ("cat_0",), (), 0, 1)
    whole, rest = list(data.batches(300)), list(data.batches(300, start=2))
    np.testing.assert_array_equal(rest[0].ids.of_all.fixed, whole[2].ids.of_all.fixed)
    assert len(rest) == 2


def test_a_rank_without_tables_reads_its_samples(tmp_path):
    batch = next(RankData(write_dataset(tmp_path), "train", (), (), 1, 2).batches(100))
    assert batch.ids.of_all.fixed.shape == (100, 0) and batch.label.shape == (50,)


def test_only_the_files_of_its_tables_are_opened(tmp_path):
    spec = write_dataset(tmp_path)
    data = RankData(spec, "train", ("cat_2",), (), 0, 1)
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
        list(RankData(spec, "train", ("cat_1",), (), 0, 1).batches(100))


def test_an_empty_split_is_refused(tmp_path):
    spec = write_dataset(tmp_path, test=0)
    with pytest.raises(FeatureSpecError, match="the split 'test' holds no sample"):
        RankData(spec, "test", ("cat_0",), (), 0, 1)


def test_leaving_a_pass_early_leaves_no_thread(tmp_path):
    data = RankData(write_dataset(tmp_path), "train", ("cat_0",), (), 0, 1)
    batches = data.batches(10)
    next(batches)
    batches.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "read-ahead"]
