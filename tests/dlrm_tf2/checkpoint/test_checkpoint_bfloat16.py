"""16-bit tables in checkpoints: their files, restored bit for bit, and from and to float32."""

import json

import ml_dtypes
import numpy as np
import pytest
from support.checkpoint_case import DOCUMENT, PLANS, TABLES, dense_of, folder_bytes, weights_of

from dlrm_tf2.checkpoint import CheckpointError, CheckpointWriter, bfloat16, files, load_checkpoint, open_checkpoint
from dlrm_tf2.embedding import DistributedEmbedding, TableConfig, make_plan
from dlrm_tf2.runtime.comm import SingleProcess

SLOTS = ("weights", "accumulator")


def nearest(values):
    """float32 -> the nearest bfloat16, ties to even, as float32."""
    return values.astype(ml_dtypes.bfloat16).astype(np.float32)


@pytest.fixture
def sixteen(array_embedding):
    """`sixteen(plan, rank, seed)`: 16-bit tables with the weights of a seed, of None with weights to restore."""

    class Sixteen(array_embedding):
        table_dtype = "bfloat16"

    def make(plan, rank=0, seed=0):
        arrays = None if seed is None else weights_of(SLOTS, seed)
        if arrays:
            arrays |= {key: nearest(array) for key, array in arrays.items() if key[0] == "weights"}
        return Sixteen(TABLES, plan, rank, SLOTS, arrays)

    return make


@pytest.fixture
def save_sixteen(run_ranks, sixteen):
    def save(path, plan, seed=0, behind=False):
        def work(comm):
            writer = CheckpointWriter(path, comm, document=DOCUMENT)
            (writer.write_behind if behind else writer.write)(dense_of(seed), sixteen(plan, comm.rank, seed))
            writer.commit()

        for outcome in run_ranks(plan.world_size, work):
            assert outcome is None, outcome

    return save


def test_bits_by_hand():
    numbers = np.array([[1.0, -2.0, 0.0], [np.inf, 2.0**-133, -0.0]], np.float32)
    bits = np.array([[0x3F80, 0xC000, 0], [0x7F80, 1, 0x8000]], np.uint16)
    np.testing.assert_array_equal(bfloat16.bits_of(numbers), bits)
    np.testing.assert_array_equal(bfloat16.weights_of(bits).view(np.uint32), numbers.view(np.uint32))
    every = np.arange(1 << 16, dtype=np.uint16)
    np.testing.assert_array_equal(bfloat16.bits_of(bfloat16.weights_of(every)), every)


@pytest.mark.parametrize("before", ["1 whole", "2 rows", "3 grid"])
def test_any_plan_restores_what_any_plan_saved(run_ranks, sixteen, save_sixteen, tmp_path, monkeypatch, before):
    monkeypatch.setattr(files, "_BLOCK_BYTES", 48)  # several blocks a shard
    save_sixteen(tmp_path / "saved", PLANS[before])
    wanted = sixteen(PLANS["1 whole"]).parts
    wanted = {(slot, shard.table): part for (slot, shard), part in wanted.items()}

    def load(comm, plan):
        embedding = sixteen(plan, comm.rank, None)
        load_checkpoint(tmp_path / "saved", comm, dense=dense_of(5), embedding=embedding)
        return embedding.parts

    for plan in (PLANS["1 whole"], PLANS["2 columns"], PLANS["3 grid"]):
        for parts in run_ranks(plan.world_size, lambda comm, plan=plan: load(comm, plan)):
            for (slot, shard), part in parts.items():
                whole = wanted[slot, shard.table]
                np.testing.assert_array_equal(part, whole[slice(*shard.rows), slice(*shard.columns)])


def test_the_files_hold_the_bits_and_the_manifest_names_the_type(save_sixteen, sixteen, tmp_path):
    save_sixteen(tmp_path / "saved", PLANS["1 whole"])
    manifest = json.loads((tmp_path / "saved/manifest.json").read_text())
    assert manifest["format"] == 2
    types = {shard["file"]["path"]: (shard["slot"], shard["file"]["dtype"]) for shard in manifest["shards"]}
    for path, (slot, dtype) in types.items():
        array = np.load(tmp_path / "saved" / path, mmap_mode="r")
        assert (dtype, array.dtype) == (("bfloat16", "<u2") if slot == "weights" else ("<f4", "<f4"))
    bits = np.load(tmp_path / "saved/tables/cat_0.weights.r0-11.c0-6.npy")
    weights = (bits.astype(np.uint32) << 16).view(np.float32)  # as documented
    np.testing.assert_array_equal(weights, nearest(weights_of()["weights", "cat_0"]))
    assert open_checkpoint(tmp_path / "saved")[1].table_dtype == "bfloat16"


def test_a_float32_checkpoint_is_of_the_format_that_older_programs_read(save, tmp_path):
    save(tmp_path / "saved", PLANS["1 whole"])
    assert json.loads((tmp_path / "saved/manifest.json").read_text())["format"] == 1
    assert open_checkpoint(tmp_path / "saved")[1].table_dtype == "float32"


def test_written_behind_the_training_the_files_are_the_same_bytes(save_sixteen, tmp_path):
    save_sixteen(tmp_path / "now", PLANS["3 grid"])
    save_sixteen(tmp_path / "behind", PLANS["3 grid"], behind=True)
    assert folder_bytes(tmp_path / "now") == folder_bytes(tmp_path / "behind")


def test_damage_is_found(save_sixteen, sixteen, tmp_path):
    save_sixteen(tmp_path / "saved", PLANS["1 whole"])
    path = tmp_path / "saved/tables/cat_0.weights.r0-11.c0-6.npy"
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="cat_0.weights.r0-11.c0-6.npy: its bytes have the checksum"):
        load_checkpoint(
            tmp_path / "saved", SingleProcess(), dense=dense_of(0), embedding=sixteen(PLANS["1 whole"], 0, None)
        )


@pytest.mark.parametrize("before, after", [("float32", "bfloat16"), ("bfloat16", "float32"), ("bfloat16", "bfloat16")])
def test_real_tables_of_one_type_restore_into_the_other(tmp_path, before, after):
    tables = (TableConfig("a", 50, 4), TableConfig("b", 3, 7))
    comm, plan = SingleProcess(), make_plan(tables, 1)
    saved, restored = (
        DistributedEmbedding(tables, plan, comm=comm, seed=seed, dtype=dtype)
        for seed, dtype in ((1, before), (2, after))
    )
    writer = CheckpointWriter(tmp_path / "saved", comm, document={"step": 1})
    writer.write({}, saved)
    writer.commit()
    load_checkpoint(tmp_path / "saved", comm, dense={}, embedding=restored)
    for shard in plan.shards:
        found, wanted = (layer.read_rows(shard, "weights", start=0, stop=shard.num_rows) for layer in (restored, saved))
        np.testing.assert_array_equal(found, nearest(wanted) if after == "bfloat16" else wanted)
        assert (nearest(wanted) != wanted).any() == (before == "float32")
