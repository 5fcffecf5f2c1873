"""Ranks that are not started alike are refused on all ranks, with the rank, its host, and what differs."""

import shutil
import threading

import pytest
from support.small_dataset import write_dataset

from criteo_prep.feature_spec import FeatureSpec
from dlrm_tf2.config import TrainConfig
from dlrm_tf2.job import program, same_on_ranks
from dlrm_tf2.job.same_on_ranks import DifferentRanks, check_program, check_run
from dlrm_tf2.runtime import agreement, process
from dlrm_tf2.runtime.process import Launch

TWO_HOSTS = [Launch(2, rank, local_rank=0, local_size=1) for rank in (0, 1)]
ONE_HOST = [Launch(2, rank, local_rank=rank, local_size=2) for rank in (0, 1)]


@pytest.fixture(autouse=True)
def hosts(monkeypatch):
    """Each thread is a host, as soon as it is named."""
    monkeypatch.setattr(agreement, "this_host", lambda: threading.current_thread().name)


@pytest.fixture
def refusals(run_ranks):
    """Runs a check of (rank, comm) on two hosts; returns the messages of both ranks."""

    def run(check):
        def on_host(comm):
            threading.current_thread().name = f"host{comm.rank}"
            return check(comm.rank, comm)

        results = run_ranks(2, on_host)
        assert {type(result) for result in results} <= {DifferentRanks, type(None)}, results
        return [result and str(result) for result in results]

    return run


def test_another_source_file_on_one_rank(refusals, monkeypatch, tmp_path):
    for package in ("criteo_prep", "dlrm_tf2"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "a.py").write_text("pass\n")
    monkeypatch.setattr(same_on_ranks, "_PACKAGES", tmp_path)
    assert refusals(lambda rank, comm: check_program(comm)) == [None, None]
    own = same_on_ranks._sources()
    (tmp_path / "dlrm_tf2" / "a.py").write_text("pass \n")
    other = same_on_ranks._sources()
    monkeypatch.setattr(same_on_ranks, "_sources", lambda: own if threading.current_thread().name == "host0" else other)
    for message in refusals(lambda rank, comm: check_program(comm)):
        assert message.startswith("program: dlrm_tf2 ") and "on rank 1 on host1; dlrm_tf2 " in message
        assert other in message and own in message and "install the same version on every host" in message


def test_another_flag_on_one_rank(refusals, tmp_path):
    spec = write_dataset(tmp_path)
    configs = [TrainConfig(dataset_path=tmp_path, batch_size=size, intra_op_parallelism=size) for size in (100, 128)]
    for launches in (ONE_HOST, TWO_HOSTS):
        messages = refusals(lambda rank, comm, of=launches: check_run(configs[rank], spec, comm=comm, launch=of[rank]))
        expected = "--batch_size: 128 on rank 1 on host1; 100 on rank 0 on host0\nAll ranks must have the same flags."
        assert messages == [expected] * 2


@pytest.mark.parametrize("damage, says", [
    (lambda folder: None, None),  # a copy in another folder
    (lambda folder: write_dataset(folder, seed=1), "the dataset: fingerprint "),
    (lambda folder: (folder / "test" / "cat_3.bin").unlink(), "test/cat_3.bin: No such file or directory on rank 1 on"),
])  # fmt: skip
def test_another_dataset_on_one_host(refusals, tmp_path, damage, says):
    first, second = tmp_path / "first", tmp_path / "second"
    write_dataset(first)
    shutil.copytree(first, second)
    damage(second)
    specs = [FeatureSpec.load(folder / "feature_spec.yaml") for folder in (first, second)]
    configs = [TrainConfig(dataset_path=str(folder)) for folder in (first, second)]
    messages = refusals(lambda rank, comm: check_run(configs[rank], specs[rank], comm=comm, launch=TWO_HOSTS[rank]))
    for message in messages:
        assert message is None if says is None else says in message and "rank 1 on host1" in message


@pytest.mark.parametrize("rank, line", [(0, "dlrm: no such folder\n"), (1, "dlrm: rank 1 on host7: no such folder\n")])
def test_arguments_that_fail_on_one_rank_alone_are_reported_by_this_rank(rank, line, capsys, monkeypatch):
    monkeypatch.setattr(program, "_RANK_0_HAS_NONE_S", 0)
    monkeypatch.setattr(process, "this_host", lambda: "host7")
    monkeypatch.setattr(program.process.Launch, "detect", lambda: TWO_HOSTS[rank])

    def prepare():
        raise ValueError("no such folder")

    assert program.run_program("dlrm", prepare, lambda prepared, launch: None) == 1
    assert capsys.readouterr().err == line
