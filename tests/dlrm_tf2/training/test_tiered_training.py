"""--hbm_for_embeddings and --embeddings_folder: rows in a file train as rows in memory do, and need less memory."""

import contextlib
import dataclasses
import itertools
import signal

import numpy as np
import pytest
from support import in_process
from support.key_dataset import write_keys
from support.small_dataset import write_dataset

from dlrm_tf2 import ops
from dlrm_tf2.config import ConfigError, TrainConfig
from dlrm_tf2.job import start
from dlrm_tf2.job.preflight import cache_bytes, file_bytes
from dlrm_tf2.model.config import DynamicRules, ModelConfig
from dlrm_tf2.runtime.stopping import NEVER, Stopped
from dlrm_tf2.sharding.plan import make_plan

pytestmark = pytest.mark.skipif(not ops.available(), reason=f"no op library: {ops.why_unavailable()}")

# 3 MiB of weights: 20,480 rows and some more, of 32 numbers; as much of state
FLAGS = "--dynamic_capacity 20480 --embedding_dim 32 --bottom_mlp_dims 32 --optimizer adagrad".split()


# 40 rows for keys, and a cache of half of them, on batches of 10 keys
SMALL = [*FLAGS, *"--dynamic_capacity 40 --batch_size 10 --valid_batch_size 15 --evals_per_epoch 1".split()]
CACHE = ["--hbm_for_embeddings", 20 * 64 * 4 / 2**30, "--caching"]


def assert_same_rows(run, other):
    """The table has the same keys, weights and state."""
    found, expected = (one.job.model.embedding.dynamic_tables["cat_0"] for one in (run, other))
    np.testing.assert_array_equal(found.stored().keys, expected.stored().keys)
    for slot in run.job.model.embedding.slots:
        np.testing.assert_array_equal(*(table.read(table.stored().rows, slot) for table in (found, expected)))


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    root = tmp_path_factory.mktemp("keys")
    write_keys(write_dataset(root / "ids", train=200, test=80, cardinalities=(60, 7)), root / "keys", ("cat_0",))
    return root / "keys"


def test_rows_in_a_file_train_as_rows_in_memory(keys, tmp_path):
    in_memory = in_process.run(keys, tmp_path / "memory" / "log.json", *FLAGS)
    tiers = ["--hbm_for_embeddings", "0", "--embeddings_folder", tmp_path]
    in_file = in_process.run(keys, tmp_path / "file" / "log.json", *FLAGS, *tiers)
    for key in ("loss", "auc", "keys_stored"):
        assert in_file.column(key) == in_memory.column(key)
    assert_same_rows(in_file, in_memory)


def test_a_cache_trains_as_memory_does_and_the_log_has_its_hit_rate(keys, tmp_path):
    in_memory = in_process.run(keys, tmp_path / "memory" / "log.json", *SMALL)
    for more in ([], ["--pipeline", "off"]):
        log = tmp_path / f"cache{len(more)}" / "log.json"
        cached = in_process.run(keys, log, *SMALL, "--embeddings_folder", tmp_path, *CACHE, *more)
        for key in ("loss", "auc", "keys_stored", "hit_rate", "test_hit_rate"):
            assert cached.column(key) == in_memory.column(key)
        rates = [rate for (rate,) in cached.column("cache_hit_rate")]
        assert len(rates) == len(cached.column("hit_rate")) and any(0 < (rate or 0) < 1 for rate in rates)
        assert_same_rows(cached, in_memory)
    assert in_memory.column("cache_hit_rate") == []


def test_two_ranks_with_a_cache_train_as_two_ranks_with_memory(keys, tmp_path, run_ranks, monkeypatch):
    """With the pipeline: the next batch's keys are exchanged and its rows asked for while a batch is computed."""
    monkeypatch.setattr(start, "StopRequest", lambda: contextlib.nullcontext(NEVER))

    def runs(name, *more):
        return run_ranks(2, lambda comm: in_process.run(keys, tmp_path / name / "log.json", *SMALL, *more, comm=comm))

    expected, found = runs("memory"), runs("cache", "--embeddings_folder", tmp_path, *CACHE)
    for rank in (*expected, *found):
        if isinstance(rank, BaseException):
            raise rank
    for key in ("loss", "auc", "keys_stored", "keys_evicted", "hit_rate"):
        assert found[0].column(key) == expected[0].column(key), key
    for run, other in zip(found, expected, strict=True):
        if "cat_0" in run.job.model.embedding.dynamic_tables:
            assert_same_rows(run, other)


class AskedAt:
    """A StopRequest of a run that is asked to stop after some steps."""

    signal = signal.SIGTERM

    def __init__(self, looks):
        self._looks = itertools.count(-looks)

    @property
    def asked(self):
        return next(self._looks) >= 0


@pytest.mark.parametrize("cached_first", [True, False])
def test_a_run_is_resumed_with_a_cache_or_without(keys, tmp_path, monkeypatch, cached_first):
    def train(name, *more):
        saved = ["--save_checkpoint_path", tmp_path / name / "saved"]
        return in_process.run(keys, tmp_path / name / "log.json", *SMALL, *saved, *more)

    whole = train("whole")
    cache = ["--embeddings_folder", tmp_path, *CACHE]
    parts = [cache, []] if cached_first else [[], cache]
    with monkeypatch.context() as patch:
        patch.setattr(start, "StopRequest", lambda: contextlib.nullcontext(AskedAt(7)))
        with pytest.raises(Stopped):
            train("parts", *parts[0])
    resumed = train("parts", *parts[1])
    for key in ("loss", "auc", "keys_stored", "keys_inserted", "keys_evicted", "hit_rate"):
        assert resumed.column(key) == whole.column(key), key
    assert whole.column("keys_evicted")[-1][0] > 0
    assert_same_rows(resumed, whole)


def test_the_bytes_that_are_not_in_memory():
    """4 bytes for each of 32 weights and 32 accumulators of each row, without 1 MiB."""
    rules = DynamicRules((1000,), "step", admission=None, expiry=None)
    model = ModelConfig(("a",), (None,), 0, 32, bottom_mlp_dims=(), top_mlp_dims=(1,), dynamic=rules)
    plan = make_plan(model.tables, 1, optimizer="adagrad")
    tiers = {"hbm_for_embeddings": 1 / 8192, "embeddings_folder": "f"}
    config = TrainConfig(dataset_path="d", optimizer="adagrad", dynamic_capacity=1000, **tiers)
    assert file_bytes(config, model, plan=plan, rank=0) == 1000 * 64 * 4 - (1 << 17)
    assert cache_bytes(config, model, plan=plan, rank=0) == 0
    cached = dataclasses.replace(config, caching=True)
    assert file_bytes(cached, model, plan=plan, rank=0) == 1000 * 64 * 4 - (1 << 17)
    slots = 1000 * (1 << 17) / (1000 * 64 * 4)
    assert cache_bytes(cached, model, plan=plan, rank=0) == pytest.approx(4 * 1000 + 18 * slots, abs=2)
    evaluating = dataclasses.replace(config, mode="eval", restore_checkpoint_path="c", hbm_for_embeddings=0.0)
    assert file_bytes(evaluating, model, plan=plan, rank=0) == 1000 * 32 * 4
    assert file_bytes(dataclasses.replace(config, hbm_for_embeddings=1.0), model, plan=plan, rank=0) == 0


def test_what_is_refused(keys, tmp_path):
    with pytest.raises(ConfigError, match="--hbm_for_embeddings GIB needs --embeddings_folder DIR"):
        in_process.run(keys, tmp_path / "log.json", *FLAGS, "--hbm_for_embeddings", "1")
    with pytest.raises(ConfigError, match="--caching needs --hbm_for_embeddings GIB: the memory of the cache"):
        in_process.run(keys, tmp_path / "log.json", *FLAGS, "--caching")
    with pytest.raises(ConfigError, match="--caching and --table_dtype bfloat16: the rounding of 16-bit weights"):
        more = ["--embeddings_folder", tmp_path, *CACHE, "--table_dtype", "bfloat16"]
        in_process.run(keys, tmp_path / "log.json", *FLAGS, *more)
    with pytest.raises(ValueError, match="nowhere: is not a folder that can be written"):
        tiers = ["--hbm_for_embeddings", "1", "--embeddings_folder", tmp_path / "nowhere"]
        in_process.run(keys, tmp_path / "log.json", *FLAGS, *tiers)
