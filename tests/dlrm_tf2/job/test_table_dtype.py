"""--table_dtype in whole runs: what a checkpoint of the other type becomes, and what the log says about it."""

import json

import numpy as np
import pytest
from support import in_process
from support.small_dataset import write_dataset

from dlrm_tf2.job.preflight import DoesNotFit


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """A dataset, and a checkpoint of each type."""
    root = tmp_path_factory.mktemp("table_dtype")
    write_dataset(root / "data", train=300, test=200, cardinalities=(40, 7))
    for dtype in ("float32", "bfloat16"):
        in_process.run(root / "data", root / "log.json", "--table_dtype", dtype, "--save_checkpoint_path", root / dtype)
    return root


@pytest.mark.parametrize("mode", ["eval", "train"])
@pytest.mark.parametrize(
    "stored, table_dtype, said",
    [
        ("float32", "float32", None),
        ("bfloat16", "bfloat16", None),
        ("float32", "bfloat16", "its tables are float32; their weights are rounded to the nearest bfloat16"),
        ("bfloat16", "float32", "its tables are bfloat16; this run has the same weights in float32"),
    ],
)
def test_a_checkpoint_of_the_other_type_is_restored_and_the_log_says_so(
    places, tmp_path, capsys, mode, stored, table_dtype, said
):
    flags = ["--mode", mode, "--restore_checkpoint_path", places / stored, "--table_dtype", table_dtype]
    run = in_process.run(places / "data", tmp_path / "log.json", *flags, "--max_steps", 2)
    lines = [line for line in capsys.readouterr().out.splitlines() if "its tables are" in line]
    assert lines == ([] if said is None else [f"{places / stored}: {said}"])
    assert run.job.model.embedding.table_dtype == table_dtype


def test_16_bit_tables_score_the_same_in_32_bits(places, tmp_path):
    """A float32 has every bfloat16; sums are made in float32 in both."""
    losses = []
    for dtype in ("bfloat16", "float32"):
        flags = ["--mode", "eval", "--restore_checkpoint_path", places / "bfloat16", "--table_dtype", dtype]
        run = in_process.run(places / "data", tmp_path / f"{dtype}.json", *flags)
        losses.append((run.records[-1]["test_loss"], run.records[-1]["auc"]))
    assert losses[0] == losses[1]


def test_a_checkpoint_of_16_bit_tables_is_smaller_by_their_half(places):
    sizes = []
    for dtype in ("float32", "bfloat16"):
        shards = json.loads((places / dtype / "manifest.json").read_text())["shards"]
        files = [places / dtype / shard["file"]["path"] for shard in shards]
        sizes.append(sum(np.load(file).nbytes for file in files))
    assert sizes == [47 * 4 * 4, 47 * 4 * 2]


def test_the_memory_check_counts_16_bits(places, tmp_path, monkeypatch):
    """What the two types need differs by 2 bytes a weight."""
    monkeypatch.setattr("dlrm_tf2.job.memories.available_memory_bytes", lambda: 10)
    needed = []
    for dtype in ("float32", "bfloat16"):
        with pytest.raises(DoesNotFit, match="The model does not fit") as refusal:
            in_process.run(places / "data", tmp_path / "log.json", "--table_dtype", dtype)
        needed.append(int(str(refusal.value).partition("it needs ")[2].split()[0]))
    assert needed[0] - needed[1] == 47 * 4 * 2
