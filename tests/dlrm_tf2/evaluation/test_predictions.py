"""The Parquet file of scores, with ranks that are threads and logits that are given."""

import os
import resource
import signal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dlrm_tf2.evaluation import predictions
from dlrm_tf2.evaluation.predictions import PredictionsError, PredictionsFile, check_predictions_path
from dlrm_tf2.runtime.comm import SingleProcess
from dlrm_tf2.sharding.plan import samples_of_rank

BATCHES = [50] * 5 + [3]  # the last of fewer samples than there are ranks, at most
RNG = np.random.default_rng(0)
LOGITS = RNG.normal(0, 4, sum(BATCHES)).astype(np.float32)
LABELS = RNG.random(len(LOGITS)) < 0.3


def write(path, comm, logits=LOGITS):
    with PredictionsFile(str(path), comm) as file:
        start = 0
        for size in BATCHES:
            first, last = samples_of_rank(size, comm.size, comm.rank)
            mine = slice(start + first, start + last)
            file.add(logits[mine], LABELS[mine], size)
            start += size


@pytest.fixture(params=[60, 1 << 20], ids=["blocks", "one block"])
def block(request, monkeypatch):
    monkeypatch.setattr(predictions, "_BLOCK", request.param)
    return request.param


def test_scores_and_labels_stand_in_the_order_of_the_split(tmp_path, block):
    write(tmp_path / "new" / "scores.parquet", SingleProcess())
    table = pq.read_table(tmp_path / "new" / "scores.parquet")
    assert [(field.name, str(field.type)) for field in table.schema] == [
        ("row", "int64"), ("score", "float"), ("logit", "float"), ("label", "bool")
    ]  # fmt: skip
    assert table["row"].to_pylist() == list(range(len(LOGITS)))
    expected = (1 / (1 + np.exp(-LOGITS.astype(np.float64)))).astype(np.float32)
    np.testing.assert_array_equal(table["score"].to_numpy(), expected)
    np.testing.assert_array_equal(table["logit"].to_numpy(), LOGITS)
    np.testing.assert_array_equal(table["label"].to_numpy(), LABELS)
    groups = pq.ParquetFile(tmp_path / "new" / "scores.parquet").num_row_groups
    assert groups == (3 if block == 60 else 1)
    assert os.listdir(tmp_path / "new") == ["scores.parquet"]


@pytest.mark.parametrize("world_size", [2, 3, 7])
def test_any_number_of_ranks_writes_the_same_bytes(tmp_path, run_ranks, block, world_size):
    write(tmp_path / "alone", SingleProcess())
    assert run_ranks(world_size, lambda comm: write(tmp_path / "together", comm)) == [None] * world_size
    assert (tmp_path / "together").read_bytes() == (tmp_path / "alone").read_bytes()


def test_many_small_batches_are_written_before_they_are_many(tmp_path, monkeypatch):
    monkeypatch.setattr(predictions, "_BATCHES", 4)
    write(tmp_path / "scores", SingleProcess())
    assert pq.ParquetFile(tmp_path / "scores").num_row_groups == 2


def test_what_was_there_stays_until_the_new_file_is_complete(tmp_path, run_ranks):
    write(tmp_path / "scores", SingleProcess())
    before = (tmp_path / "scores").read_bytes()

    def interrupted(comm):
        with PredictionsFile(str(tmp_path / "scores"), comm) as file:
            file.add(LOGITS, LABELS, comm.size * len(LOGITS))
            raise KeyboardInterrupt

    assert [type(error) for error in run_ranks(2, interrupted)] == [KeyboardInterrupt] * 2
    assert os.listdir(tmp_path) == ["scores"] and (tmp_path / "scores").read_bytes() == before
    (tmp_path / ".scores.partial").write_bytes(b"left by a process that was killed" * 1000)
    write(tmp_path / "scores", SingleProcess(), -LOGITS)
    assert os.listdir(tmp_path) == ["scores"]
    np.testing.assert_allclose(pq.read_table(tmp_path / "scores")["score"], 1 / (1 + np.exp(LOGITS)), rtol=1e-5)


def test_a_full_disk_ends_all_ranks_and_leaves_nothing(tmp_path, run_ranks, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    for error in run_ranks(3, lambda comm: write(tmp_path / "scores", comm)):
        assert isinstance(error, PredictionsError)
        assert str(error) == f"--predictions_path {tmp_path}/scores: cannot be written: No space left on device."
    assert os.listdir(tmp_path) == []


def test_a_disk_that_fills_up_in_the_middle_is_one_error(tmp_path, monkeypatch):
    """Files of this process may not grow beyond 4 KiB: a write in the middle fails, as on a full disk."""
    monkeypatch.setattr(predictions, "_BATCHES", 1)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
        with pytest.raises(PredictionsError, match="scores: cannot be written: .*File too large"):
            with PredictionsFile(str(tmp_path / "scores"), SingleProcess()) as file:
                for _ in range(100):
                    file.add(LOGITS, LABELS, len(LOGITS))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert os.listdir(tmp_path) == []


def test_two_processes_do_not_write_one_file(tmp_path):
    with PredictionsFile(str(tmp_path / "scores"), SingleProcess()) as file:
        with pytest.raises(PredictionsError, match="scores: another process is writing there"):
            write(tmp_path / "scores", SingleProcess())
        file.add(LOGITS, LABELS, len(LOGITS))
    assert pq.read_table(tmp_path / "scores").num_rows == len(LOGITS)


def test_a_bad_destination_is_refused_on_all_ranks_before_anything_is_scored(tmp_path, run_ranks):
    (tmp_path / "label.bin").write_bytes(b"precious")
    pq.write_table(pa.table({"label": [True], "cat_0": [7]}), tmp_path / "logs.parquet")
    (tmp_path / "cut.parquet").write_bytes(b"PAR1 and no more")
    for path, reason in (
        (tmp_path, "is a folder. Name a file in it."),
        (tmp_path / "label.bin", "exists and has no predictions of this program, which would replace it."),
        (tmp_path / "logs.parquet", "exists and has no predictions of this program"),
        (tmp_path / "cut.parquet", "exists and has no predictions of this program"),
        (tmp_path / "label.bin" / "scores", "label.bin is not a folder."),
    ):
        for error in run_ranks(2, lambda comm, path=path: check_predictions_path(str(path), comm)):
            assert isinstance(error, PredictionsError)
            assert f"--predictions_path {path}: " in str(error) and reason in str(error)
    check_predictions_path(str(tmp_path / "new" / "folder" / "scores"), SingleProcess())
    assert sorted(os.listdir(tmp_path)) == ["cut.parquet", "label.bin", "logs.parquet"]
