"""--checkpoint_gather: who sees the folder of a checkpoint, and runs whose ranks do not all see it.

The ranks are threads. Folders stand for the disks of hosts where ranks may be given different paths.
"""

import contextlib
import shutil

import pytest
from support import in_process
from support.checkpoint_case import DOCUMENT, PLANS, folder_bytes
from support.key_dataset import write_keys
from support.small_dataset import write_dataset

from dlrm_tf2 import checkpoint, flags
from dlrm_tf2.checkpoint import CheckpointError, folder_server
from dlrm_tf2.config import ConfigError, TrainConfig
from dlrm_tf2.job import gathering, start
from dlrm_tf2.job.gathering import Far, check_left_behind, far_from_saves, far_from_source
from dlrm_tf2.runtime.comm import SingleProcess
from dlrm_tf2.runtime.stopping import NEVER
from dlrm_tf2.training.resume import Resumption


@pytest.fixture(autouse=True)
def little_patience(monkeypatch):
    monkeypatch.setattr(gathering, "_PATIENCE_S", 0.2)


@pytest.fixture
def disks(tmp_path):
    """The folders "first" and "second"."""
    for disk in ("first", "second"):
        (tmp_path / disk).mkdir()
    return tmp_path


def config_of(path, gather, **more):
    return TrainConfig(dataset_path="d", save_checkpoint_path=str(path), checkpoint_gather=gather, **more)


def saves(disks, names, gather):
    """The work of ranks whose checkpoints would lie on these disks."""
    return lambda comm: far_from_saves(config_of(disks / names[comm.rank] / "runs" / "checkpoint", gather), comm)


def test_a_checkpoint_that_lies_on_another_disk_on_another_rank_is_refused(run_ranks, disks):
    assert run_ranks(2, saves(disks, ["first", "first"], False)) == [Far()] * 2
    errors = run_ranks(3, saves(disks, ["first", "second", "first"], False))
    assert [type(error) for error in errors] == [CheckpointError] * 3
    for error in errors:
        assert str(error).startswith(f"rank 1: {disks}/second/runs/checkpoint: rank 0 wrote .checkpoint.probe-")
        assert str(error).endswith(
            "name a folder on a file system that all hosts share, or give --checkpoint_gather: then the checkpoint "
            "lies on the disk of rank 0's host alone."
        )
    assert list((disks / "first").iterdir()) == list((disks / "second").iterdir()) == []


def test_the_flag_allows_it_and_finds_the_ranks(run_ranks, disks):
    names = ["first", "second", "first", "second"]
    assert run_ranks(4, saves(disks, names, True)) == [Far((1, 3), "rank 1, 3")] * 4
    assert run_ranks(2, saves(disks, ["first", "first"], True)) == [Far()] * 2
    assert list((disks / "first").iterdir()) == list((disks / "second").iterdir()) == []


def test_a_path_that_is_shorter_on_another_rank_is_not_seen(run_ranks, tmp_path):
    (tmp_path / "link").symlink_to("/")

    def work(comm):
        path = tmp_path / "link" / "c" if comm.rank else tmp_path / "deep" / "er"
        return far_from_saves(config_of(path, True), comm)

    assert run_ranks(2, work) == [Far((1,), "rank 1")] * 2


def test_one_rank_sees_its_folder(tmp_path):
    assert far_from_saves(config_of(tmp_path / "none" / "at" / "all", False), SingleProcess()) == Far()
    assert far_from_source(config_of(tmp_path, False), tmp_path, manifest=None, comm=SingleProcess()) == Far()


@pytest.fixture
def stored(save, disks):
    """A checkpoint on the first disk."""
    save(disks / "first" / "saved", PLANS["2 rows"])
    return disks / "first" / "saved"


@pytest.mark.parametrize("there, is_far", [
    ("nothing", True), ("a copy", False), ("another checkpoint", True), ("a part of it", True),
])  # fmt: skip
def test_who_sees_the_checkpoint_that_a_run_begins_from(run_ranks, save, disks, stored, monkeypatch, there, is_far):
    """The second rank looks at the second disk under the same path."""
    second = disks / "second" / "saved"
    if there in ("a copy", "a part of it"):
        shutil.copytree(stored, second)
    if there == "a part of it":
        next((second / "tables").iterdir()).unlink()
    if there == "another checkpoint":
        save(second, PLANS["2 rows"], seed=1)
    read_manifest, manifest = gathering.read_manifest, checkpoint.open_checkpoint(stored)[1]

    def work(comm, gather):
        folder = second if comm.rank else stored
        return far_from_source(config_of("s", gather), folder, manifest=manifest, comm=comm)

    assert run_ranks(2, lambda comm: work(comm, True)) == [Far((1,), "rank 1") if is_far else Far()] * 2
    outcomes = run_ranks(2, lambda comm: work(comm, False))
    if not is_far:
        assert outcomes == [Far()] * 2
        return
    for error in outcomes:
        assert str(error).startswith(f"rank 1: {second}: rank 0 sees a checkpoint here, and this rank does not see")
        assert "or give --checkpoint_gather" in str(error)
    assert read_manifest is gathering.read_manifest


@pytest.mark.parametrize("run, resumption, refused", [
    ({"id": "a", "finished": False}, Resumption("new"), True),
    ({"id": "a", "finished": False}, Resumption("a", path="p", step=40), True),
    ({"id": "a", "finished": False}, Resumption("a", path="p", step=41), False),
    ({"id": "a", "finished": False}, Resumption("b", path="p", step=99), True),
    ({"id": "a", "finished": True}, Resumption("new"), False),
    (None, Resumption("new"), False),
])  # fmt: skip
def test_an_unfinished_run_on_another_host_is_not_begun_again(run_ranks, save, disks, run, resumption, refused):
    save(disks / "second" / "saved", PLANS["1 whole"], document=DOCUMENT | {"run": run})

    def check(far, resume="auto"):
        def work(comm):
            path = disks / ("second" if comm.rank else "first") / "saved"
            check_left_behind(config_of(path, True, resume=resume), resumption, far=far, comm=comm)

        return run_ranks(2, work)

    assert check(Far()) == check(Far((1,)), "off") == [None, None]
    outcomes = check(Far((1,)))
    if refused:
        assert all(
            str(error).startswith(
                f"rank 1: {disks}/second/saved: this host has the checkpoint of an unfinished run (step 41)"
            )
            for error in outcomes
        )
    else:
        assert outcomes == [None, None]


# The flag next to others.


def test_the_flag_needs_a_folder():
    with pytest.raises(
        ConfigError, match="--checkpoint_gather needs --save_checkpoint_path or --restore_checkpoint_path"
    ):
        flags.parse(["--dataset_path", "d", "--checkpoint_gather"], "dlrm")
    for path in ("--save_checkpoint_path", "--restore_checkpoint_path"):
        assert flags.parse(["--dataset_path", "d", "--checkpoint_gather", path, "c"], "dlrm").checkpoint_gather


def test_an_elastic_job_keeps_no_checkpoint_on_one_host():
    more = ["--elastic", "--save_checkpoint_path", "c", "--checkpoint_every", "5", "--checkpoint_gather"]
    with pytest.raises(ConfigError, match="--checkpoint_gather and --elastic: .* must resume when that host is lost"):
        flags.parse(["--dataset_path", "d", *more], "dlrm")


# Runs.


@pytest.fixture
def keys(tmp_path, monkeypatch):
    """A dataset with keys. No run handles signals, as ranks in threads cannot."""
    spec = write_dataset(tmp_path / "ids", train=200, test=60, cardinalities=(20, 7, 12))
    write_keys(spec, tmp_path / "keys", ("cat_0", "cat_2"))
    monkeypatch.setattr(start, "StopRequest", lambda: contextlib.nullcontext(NEVER))
    return tmp_path / "keys"


def test_a_run_whose_last_rank_does_not_see_the_disk(run_ranks, keys, tmp_path, monkeypatch):
    """All ranks see the folders in truth; the last rank is said not to. What it restores is what was trained."""
    served, far = [], gathering._far

    def count(kind, serve):
        def served_by(connection, folder, name):
            served.append((kind, name))
            serve(connection, folder, name)

        monkeypatch.setattr(folder_server, kind, served_by)

    for kind in ("_receive_file", "_send_file"):
        count(kind, getattr(folder_server, kind))

    def last_is_far(comm, name, *, sees, refusal):
        return far(comm, name, sees=lambda: comm.rank < comm.size - 1 and sees(), refusal=refusal)

    def run(name, *more):
        arguments = ["--dynamic_capacity", "30,20", *more]
        return run_ranks(2, lambda comm: in_process.run(keys, tmp_path / f"{name}.log", *arguments, comm=comm))[0]

    monkeypatch.setattr(gathering, "_far", last_is_far)
    path = ["--save_checkpoint_path", tmp_path / "saved"]
    trained = run("train", *path, "--max_steps", 2, "--keep_best", "--checkpoint_gather")
    manifest = checkpoint.open_checkpoint(tmp_path / "saved")[1]
    kinds, files = zip(*served, strict=True)
    assert set(kinds) == {"_receive_file"}
    assert len(files) == 2 * len(set(files))  # of the best checkpoint and of the newest
    assert {".keys." in file for file in files} == {True, False} and set(files) < {file.path for file in manifest.files}
    assert folder_bytes(tmp_path / "saved" / "tables") == folder_bytes(tmp_path / "saved.best" / "tables")

    served.clear()
    evaluate = ["--restore_checkpoint_path", tmp_path / "saved", "--mode", "eval"]
    assert run("eval", *evaluate, "--checkpoint_gather").column("auc") == trained.column("auc")[:1]
    assert {kind for kind, _ in served} == {"_send_file"} and set(files) & {file for _, file in served}
    served.clear()
    refused = run("refused", *evaluate)
    assert str(refused).startswith(f"rank 1: {tmp_path}/saved: rank 0 sees a checkpoint here") and not served
    assert not (tmp_path / "refused.log").exists()
