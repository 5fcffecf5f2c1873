"""--hbm_for_embeddings and --embeddings_folder: rows in a file train as rows in memory do, and need less memory."""

import dataclasses

import numpy as np
import pytest
from support import in_process
from support.key_dataset import write_keys
from support.small_dataset import write_dataset

from dlrm_tf2 import ops
from dlrm_tf2.config import ConfigError, TrainConfig
from dlrm_tf2.job.preflight import file_bytes
from dlrm_tf2.model.config import DynamicRules, ModelConfig
from dlrm_tf2.sharding.plan import make_plan

pytestmark = pytest.mark.skipif(not ops.available(), reason=f"no op library: {ops.why_unavailable()}")

# 3 MiB of weights: 20,480 rows and some more, of 32 numbers; as much of state
FLAGS = "--dynamic_capacity 20480 --embedding_dim 32 --bottom_mlp_dims 32 --optimizer adagrad".split()


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
    found, expected = (run.job.model.embedding.dynamic_tables["cat_0"] for run in (in_file, in_memory))
    for slot in in_file.job.model.embedding.slots:
        np.testing.assert_array_equal(*(table.read(table.stored().rows, slot) for table in (found, expected)))


def test_the_bytes_that_are_not_in_memory():
    """4 bytes for each of 32 weights and 32 accumulators of each row, without 1 MiB."""
    rules = DynamicRules((1000,), "step", admission=None, expiry=None)
    model = ModelConfig(("a",), (None,), 0, 32, bottom_mlp_dims=(), top_mlp_dims=(1,), dynamic=rules)
    plan = make_plan(model.tables, 1, optimizer="adagrad")
    tiers = {"hbm_for_embeddings": 1 / 8192, "embeddings_folder": "f"}
    config = TrainConfig(dataset_path="d", optimizer="adagrad", dynamic_capacity=1000, **tiers)
    assert file_bytes(config, model, plan=plan, rank=0) == 1000 * 64 * 4 - (1 << 17)
    evaluating = dataclasses.replace(config, mode="eval", restore_checkpoint_path="c", hbm_for_embeddings=0.0)
    assert file_bytes(evaluating, model, plan=plan, rank=0) == 1000 * 32 * 4
    assert file_bytes(dataclasses.replace(config, hbm_for_embeddings=1.0), model, plan=plan, rank=0) == 0


def test_what_is_refused(keys, tmp_path):
    with pytest.raises(ConfigError, match="--hbm_for_embeddings GIB needs --embeddings_folder DIR"):
        in_process.run(keys, tmp_path / "log.json", *FLAGS, "--hbm_for_embeddings", "1")
    with pytest.raises(ValueError, match="nowhere: is not a folder that can be written"):
        tiers = ["--hbm_for_embeddings", "1", "--embeddings_folder", tmp_path / "nowhere"]
        in_process.run(keys, tmp_path / "log.json", *FLAGS, *tiers)
