"""Which features are deduplicated, and what that saves."""

import re

import numpy as np
import pytest
from support.small_dataset import write_dataset

from dlrm_tf2.config import TrainConfig
from dlrm_tf2.data import repeated_ids
from dlrm_tf2.data.repeated_ids import Network, Repeated
from dlrm_tf2.embedding.ids import IdBatch
from dlrm_tf2.model.config import ModelConfig
from dlrm_tf2.runtime.comm import SingleProcess


def test_different_ids_by_hand():
    fixed = np.array([[1, 5, 5], [1, 6, 5], [2, 5, 7]])
    batch = IdBatch(fixed, {"c": (np.array([4, 4, 4, 9]), np.array([3, 0, 1]))}, {})
    assert repeated_ids.different_ids(batch, ("a", "c", "b"), (1, None, 2)) == {"a": 2, "c": 2, "b": 3}


def config(root, **flags):
    return TrainConfig(dataset_path=str(root), data_parallel_input=True, batch_size=200, seed=1, **flags)


def chosen_by_ranks(root, run_ranks, *, ranks=2, hosts=2, on_gpu=False, **flags):
    """What the ranks choose, on so many hosts."""
    spec, run = write_dataset(root), config(root, **flags)
    tables = ModelConfig.of(run, spec).tables

    def choose(comm):
        comm.local_size, comm.local_rank = ranks // hosts, comm.rank % (ranks // hosts)
        return repeated_ids.choose_features(run, spec, tables=tables, comm=comm, on_gpu=on_gpu)

    return run_ranks(ranks, choose)


@pytest.mark.parametrize("flags, chosen", [
    ({"dedup_ids": "off"}, ()),
    ({"dedup_ids": "on"}, ("cat_0", "cat_1", "cat_2", "cat_3", "cat_4")),
    # 100 samples a rank: at most 50, 7, 3 and 90 different ids of cat_0, 1, 3 and 4, and about 88 of the 400 of cat_2
    ({"dedup_ids": "auto", "on_gpu": True}, ("cat_0", "cat_1", "cat_3")),
    ({"dedup_ids": "auto", "network_gbit": 0.1}, ("cat_0", "cat_1", "cat_2", "cat_3", "cat_4")),
    ({"dedup_ids": "auto", "network_gbit": 10_000.0}, ()),
    ({"dedup_ids": "auto", "hosts": 1}, ()),
    ({"dedup_ids": "auto", "hosts": 1, "network_gbit": 0.1}, ()),
])  # fmt: skip
def test_all_ranks_choose_the_features_that_save_time(tmp_path, run_ranks, flags, chosen):
    results = chosen_by_ranks(tmp_path, run_ranks, **flags)
    assert [features for features, _ in results] == [chosen] * 2
    if flags.get("network_gbit") == 0.1 and chosen:
        assert "5 of 5 features, which have at 0.1 Gbit/s" in results[0][1]


def test_ranks_of_a_host_count_their_different_ids_together(tmp_path, run_ranks):
    """Ranks of a host request rows in common, so two ranks on each of two hosts are as one rank on each."""

    def mean(**where):
        (line,) = {
            line for _, line in chosen_by_ranks(tmp_path, run_ranks, dedup_ids="auto", network_gbit=0.1, **where)
        }
        return float(re.search(r"\(([\d.]+) different ids per sample", line)[1])

    assert mean(ranks=4, hosts=2) == mean(ranks=2, hosts=2) < mean(ranks=4, hosts=4)


def test_seconds_saved_by_hand():
    """A sample's 2 ids of 4 bytes, 1 vector and 1 gradient of 4 numbers, in place of half a row."""
    feature = Repeated(ids=2, different=0.5, vectors=1, width=4, wire_bytes=4)
    cost_s = 2 * (repeated_ids._SECONDS_PER_ID + 4 * repeated_ids._SECONDS_PER_NUMBER)
    saved_bytes = (2 * 4 + 2 * 16) - 0.5 * (8 + 2 * 16)
    # At 1 Gbit/s a byte takes 8 ns; half of the rows are on the other host.
    assert feature.saved_s(Network(rank_gbit=1, remote=0.5)) == pytest.approx(4e-9 * saved_bytes - cost_s)


@pytest.mark.parametrize("ids", [1, 10])
def test_the_slower_the_network_the_more_is_saved(ids):
    feature = Repeated(ids, different=0.1, vectors=1, width=128, wire_bytes=4)
    saved = [feature.saved_s(Network(gbit, 0.5)) for gbit in (0.1, 1, 10, 1e6)]
    assert saved == sorted(saved, reverse=True) and saved[0] > 0 > saved[-1]
    never = feature._replace(different=ids * 2.0)
    assert all(never.saved_s(Network(gbit, 0.5)) < 0 for gbit in (0.1, 1, 10))


def test_alone_there_is_nothing_to_save(tmp_path):
    spec, run = write_dataset(tmp_path), config(tmp_path)
    tables = ModelConfig.of(run, spec).tables
    assert repeated_ids.choose_features(run, spec, tables=tables, comm=SingleProcess()) == ((), None)
