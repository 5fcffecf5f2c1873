"""Checkpoints on the disk of rank 0 alone: the ranks that do not see it send their part, and read theirs from it.

The ranks are threads, and the disk of each rank is a folder of its own; far ranks are given a path on their own disk.
"""

import contextlib
import errno
import json
import os
import socket
from dataclasses import replace
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from support.checkpoint_case import (
    DOCUMENT,
    PLANS,
    TABLES,
    assert_restored,
    dense_of,
    folder_bytes,
    weights_of,
)

from dlrm_tf2.checkpoint import (
    CheckpointError,
    CheckpointWriter,
    files,
    folder_messages,
    folder_server,
    gathered,
    load_checkpoint,
    open_checkpoint,
    remote_folder,
    save_checkpoint,
    staging_folder,
)
from dlrm_tf2.checkpoint.folder import LocalFolder

SLOTS = ("weights", "accumulator")
FAR = [(1,), (2,), (1, 2)]


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    """A server that nobody needs any more ends at once."""
    monkeypatch.setattr(folder_server, "_CLOSES_WITHIN_S", 0.01)


@pytest.fixture
def small_pieces(monkeypatch):
    """A file has several blocks, and a block has several pieces."""
    monkeypatch.setattr(files, "_BLOCK_BYTES", 96)
    monkeypatch.setattr(remote_folder, "PIECE_BYTES", 40)
    monkeypatch.setattr(folder_server, "_SYNC_BYTES", 100)


@pytest.fixture
def save_gathered(run_ranks, array_embedding, tmp_path):
    """Saves with some ranks far from the disk of rank 0; the outcomes of the ranks, as run_ranks has them."""

    def save(plan, far, seed=0, behind=False, table_dtype="float32"):
        def work(comm):
            path = place(tmp_path, comm, far)
            embedding = array_embedding(TABLES, plan, comm.rank, SLOTS, weights(seed, table_dtype))
            embedding.table_dtype = table_dtype
            with gathered(comm, far, writes=[staging_folder(path)]) as disk:
                writer = CheckpointWriter(path, comm, document=DOCUMENT, disk=disk)
                (writer.write_behind if behind else writer.write)(dense_of(seed + comm.rank), embedding)
                writer.commit()

        return run_ranks(plan.world_size, work)

    return save


@pytest.fixture
def load_gathered(run_ranks, array_embedding, tmp_path):
    """Restores likewise; (document, dense, embedding) of each rank, or its exception."""

    def load(plan, far):
        def work(comm):
            embedding, dense = array_embedding(TABLES, plan, comm.rank, SLOTS), dense_of(1000 + comm.rank)
            reads = [open_checkpoint(tmp_path / "disk0" / "saved")[0]] if comm.rank == 0 else []
            with gathered(comm, far, reads=reads) as disk:
                path = tmp_path / "disk0" / "saved"
                path = disk.folder(path) if disk else path
                return load_checkpoint(path, comm, dense=dense, embedding=embedding), dense, embedding

        return run_ranks(plan.world_size, work)

    return load


def place(root, comm, far):
    return root / (f"disk{comm.rank}" if comm.rank in far else "disk0") / "saved"


def weights(seed, table_dtype):
    """Weights that are the same in float32 and in bfloat16, if asked for bfloat16."""
    arrays = weights_of(SLOTS, seed)
    if table_dtype == "bfloat16":
        arrays = {key: array.astype(ml_dtypes.bfloat16).astype(np.float32) for key, array in arrays.items()}
    return arrays


@pytest.mark.parametrize("behind", [False, True])
@pytest.mark.parametrize("plan, far", [("2 columns", (1,)), *(("3 grid", far) for far in FAR)])
@pytest.mark.parametrize("table_dtype", ["float32", "bfloat16"])
def test_a_gathered_checkpoint_has_the_bytes_of_a_shared_one(
    run_ranks, array_embedding, save_gathered, small_pieces, tmp_path, plan, far, behind, table_dtype
):
    assert set(save_gathered(PLANS[plan], far, behind=behind, table_dtype=table_dtype)) == {None}

    def share(comm):
        embedding = array_embedding(TABLES, PLANS[plan], comm.rank, SLOTS, weights(0, table_dtype))
        embedding.table_dtype = table_dtype
        save_checkpoint(tmp_path / "shared", comm, dense=dense_of(comm.rank), embedding=embedding, document=DOCUMENT)

    run_ranks(PLANS[plan].world_size, share)
    assert folder_bytes(tmp_path / "disk0" / "saved") == folder_bytes(tmp_path / "shared")
    assert sorted(os.listdir(tmp_path)) == ["disk0", "shared"] and os.listdir(tmp_path / "disk0") == ["saved"]


@pytest.mark.parametrize("after", PLANS)
def test_any_number_of_ranks_restores_it_from_the_disk_of_rank_0(save_gathered, load_gathered, small_pieces, after):
    save_gathered(PLANS["3 grid"], (1, 2))
    assert_restored(load_gathered(PLANS[after], range(1, PLANS[after].world_size)), SLOTS)


def test_without_far_ranks_nothing_listens(run_ranks, monkeypatch):
    monkeypatch.setattr(folder_server, "_Server", None)

    def work(comm):
        with gathered(comm, ()) as disk:
            return disk

    assert run_ranks(2, work) == [None, None]


# Failures.


def named(folder):
    """A file of rank 2 alone in the plan "3 rows", and no other rank's."""
    return folder / "tables" / "cat_0.accumulator.r3-8.c0-6.npy"


@pytest.mark.parametrize("behind", [False, True])
def test_a_full_disk_of_rank_0_ends_the_save_of_a_far_rank(save_gathered, tmp_path, monkeypatch, behind):
    assert set(save_gathered(PLANS["2 columns"], (1,))) == {None}
    before, create = folder_bytes(tmp_path), LocalFolder.create

    class Full:
        def write(self, data):
            raise OSError(errno.ENOSPC, "No space left on device")

    @contextlib.contextmanager
    def full(folder, name):
        with create(folder, name) as file:
            yield Full() if (folder.path / name) == named(folder.path) else file

    monkeypatch.setattr(LocalFolder, "create", full)
    errors = save_gathered(PLANS["3 rows"], (1, 2), seed=5, behind=behind)
    file = named(tmp_path / "disk0" / ".saved.partial")
    for rank, error in enumerate(errors):
        assert isinstance(error, CheckpointError)
        assert str(error) == (
            f"{tmp_path}/disk{rank}/saved: the checkpoint of step 41 was not saved; the content of the folder is "
            f"unchanged.\nrank 2: {file}: cannot be written: No space left on device (on the disk of rank 0)."
        )
    assert folder_bytes(tmp_path) == before and os.listdir(tmp_path) == ["disk0"]
    assert os.listdir(tmp_path / "disk0") == ["saved"]


def test_a_model_that_diverged_on_a_far_rank_ends_the_save(save_gathered, array_embedding, tmp_path, monkeypatch):
    read = array_embedding.read_rows
    monkeypatch.setattr(array_embedding, "read_rows", lambda self, *args, **named: read(self, *args, **named) * np.nan)
    errors = save_gathered(PLANS["2 columns"], (1,))
    assert all("holds numbers that are not finite" in str(error) for error in errors)
    assert os.listdir(tmp_path / "disk0") == []


@pytest.mark.parametrize("damage", ["flip", "other size"])
def test_damage_is_named_as_on_a_shared_disk(
    run_ranks, array_embedding, save_gathered, load_gathered, tmp_path, damage
):
    save_gathered(PLANS["3 rows"], (1, 2))
    file = named(tmp_path / "disk0" / "saved")
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content if damage == "flip" else content[:-1])

    def share(comm):
        embedding = array_embedding(TABLES, PLANS["3 rows"], comm.rank, SLOTS)
        load_checkpoint(tmp_path / "disk0" / "saved", comm, dense=dense_of(0), embedding=embedding)

    expected = [str(error) for error in run_ranks(3, share)]
    if damage == "other size":  # rank 0 sees it when it reads the manifest
        with pytest.raises(CheckpointError, match="the manifest says"):
            open_checkpoint(tmp_path / "disk0" / "saved")
        return
    assert [str(error) for error in load_gathered(PLANS["3 rows"], (1, 2))] == expected
    assert all(f"rank 2: {file}: its bytes have the checksum" in text for text in expected)


@pytest.mark.parametrize("after", [CREATE := b"C", WRITE := b"W", END := b"E"])
def test_a_connection_that_is_cut_ends_the_save(save_gathered, tmp_path, monkeypatch, after):
    """Rank 0 hangs up when it gets a message of this kind."""
    save_gathered(PLANS["2 columns"], (1,))
    before, receive = folder_bytes(tmp_path), folder_messages.Connection.receive

    def hang_up(connection):
        kind, content = receive(connection)
        if kind == after:
            connection._socket.shutdown(socket.SHUT_RDWR)
            raise ConnectionError("cut")
        return kind, content

    monkeypatch.setattr(folder_messages.Connection, "receive", hang_up)
    errors = save_gathered(PLANS["2 rows"], (1,), seed=5)
    staged = tmp_path / "disk0" / ".saved.partial"
    for error in errors:
        assert f"was not saved; the content of the folder is unchanged.\nrank 1: {staged}/tables/" in str(error)
        assert str(error).endswith(
            "lies on the disk of rank 0, and the connection to rank 0 broke: the peer has ended it."
        )
    assert folder_bytes(tmp_path) == before


def test_a_rank_0_that_is_gone_is_an_error(run_ranks, tmp_path):
    def work(comm):
        with gathered(comm, [1], writes=[tmp_path], reads=[tmp_path]) as disk:
            pass
        comm.allgather_object(None, name="left")
        if comm.rank == 1:
            with disk.folder(tmp_path).create("new.npy"):
                pass

    with pytest.raises(CheckpointError, match="new.npy: lies on the disk of rank 0, and .* broke: Connection refused"):
        run_ranks(2, work)


def test_a_rank_that_does_not_reach_rank_0_is_named_at_the_start(run_ranks, monkeypatch):
    monkeypatch.setattr(folder_server.addresses, "of_this_machine", lambda: [])
    reach = remote_folder.DiskOfRank0.reach

    def work(comm):
        with gathered(comm, [1]):
            raise AssertionError("a rank came in")

    monkeypatch.setattr(remote_folder.DiskOfRank0, "reach", lambda disk: reach(replace(disk, port=1)))
    errors = run_ranks(2, work)
    for error in errors:
        assert isinstance(error, CheckpointError)
        assert str(error).startswith("rank 1: rank 0, which keeps the checkpoint for this rank (--checkpoint_gather), ")
        assert "cannot be reached: 127.0.0.1:1: Connection refused. Open the ports" in str(error)


# What a peer may do.


@pytest.fixture
def with_disk(run_ranks, tmp_path):
    """`with_disk(work)`: the result of work(disk) on a rank that is far from the folder `offered`."""
    (tmp_path / "offered" / "tables").mkdir(parents=True)
    (tmp_path / "offered" / "tables" / "stored.npy").write_bytes(b"stored")
    (tmp_path / "outside").write_bytes(b"outside")

    def run(work):
        def both(comm):
            offered = [tmp_path / "offered"]
            with gathered(comm, [1], writes=offered, reads=offered) as disk:
                return comm.allgather_object(work(disk) if disk else None, name="done")[1]

        return run_ranks(2, both)[1]

    return run


def test_files_are_files(with_disk, tmp_path):
    def work(disk):
        folder = disk.folder(tmp_path / "offered")
        with folder.create("tables/new.npy") as file:
            file.write(b"12")
            file.write(memoryview(b"345"))
        with folder.open("tables/new.npy") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(1)
            return size, file.read(2), file.read(99), file.read(1), file.seek(-2, os.SEEK_CUR), file.read()

    assert with_disk(work) == (5, b"23", b"45", b"", 3, b"45")
    assert (tmp_path / "offered" / "tables" / "new.npy").read_bytes() == b"12345"


@pytest.mark.parametrize("folder, name, reason", [
    ("offered", "../new", "is not a file of a checkpoint"),
    ("offered", "tables/../../new", "is not a file of a checkpoint"),
    ("offered", "{root}/new", "is not a file of a checkpoint"),
    ("offered", "", "is not a file of a checkpoint"),
    ("offered/tables", "new", "is not a file of a checkpoint"),
    (".", "offered/new", "is not a file of a checkpoint"),
    ("offered", "tables/stored.npy", "File exists"),
    ("offered", "tables/link.npy", "File exists"),
    ("offered", "other/new", "No such file or directory"),
])  # fmt: skip
def test_no_other_file_is_created(with_disk, tmp_path, folder, name, reason):
    (tmp_path / "offered" / "tables" / "link.npy").symlink_to(tmp_path / "new")
    before = folder_bytes(tmp_path)

    def work(disk):
        with pytest.raises(OSError) as raised, disk.folder(tmp_path / folder).create(name.format(root=tmp_path)):
            raise AssertionError("it was created")
        return raised.value.strerror

    assert with_disk(work).startswith(reason)
    assert folder_bytes(tmp_path) == before and not (tmp_path / "new").exists()


@pytest.mark.parametrize("name", ["../outside", "{root}/outside"])
def test_no_other_file_is_read(with_disk, tmp_path, name):
    def work(disk):
        with pytest.raises(PermissionError), disk.folder(tmp_path / "offered").open(name.format(root=tmp_path)):
            raise AssertionError("it was opened")
        return "refused"

    assert with_disk(work) == "refused"


def test_a_folder_to_write_in_is_not_read_and_the_other_way_round(run_ranks, tmp_path):
    for name in ("written", "read"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "old").write_bytes(b"old")

    def both(comm):
        with gathered(comm, [1], writes=[tmp_path / "written"], reads=[tmp_path / "read"]) as disk:
            if disk:
                with pytest.raises(PermissionError), disk.folder(tmp_path / "written").open("old"):
                    raise AssertionError("it was opened")
                with pytest.raises(PermissionError), disk.folder(tmp_path / "read").create("new"):
                    raise AssertionError("it was created")
            return comm.allgather_object(None, name="done")

    assert run_ranks(2, both) == [[None, None]] * 2
    assert not (tmp_path / "read" / "new").exists()


def test_a_pipe_is_not_read(with_disk, tmp_path):
    os.mkfifo(tmp_path / "offered" / "pipe")

    def work(disk):
        with (
            pytest.raises(OSError, match="is a pipe, and not a plain file"),
            disk.folder(tmp_path / "offered").open("pipe"),
        ):
            raise AssertionError("it was opened")
        return "refused"

    assert with_disk(work) == "refused"


def test_a_stranger_gets_nothing(with_disk, tmp_path):
    """A wrong token; a request without a proof; a message that is too long. The job is served all the same."""

    def work(disk):
        with pytest.raises(CheckpointError, match="cannot be reached: .* the peer has ended it"):
            replace(disk, token=bytes(32)).reach()
        request = json.dumps([str(tmp_path / "offered"), "tables/new.npy"]).encode()
        heads = (
            folder_messages._HEAD.pack(b"C", len(request)) + request,
            b"P" + b"\xff" * 4,
            b"GET / HTTP/1.1\r\n\r\n",
        )
        for sent in heads:
            with socket.create_connection((disk.addresses[0], disk.port), timeout=30) as stranger:
                assert stranger.recv(1) == b"N"
                stranger.sendall(sent)
                with contextlib.suppress(ConnectionResetError):
                    while answer := stranger.recv(4096):
                        assert b"D" not in answer[36:]  # after the nonce
        with disk.folder(tmp_path / "offered").create("tables/ours.npy") as file:
            file.write(b"ours")

    with_disk(work)
    assert sorted(os.listdir(tmp_path / "offered" / "tables")) == ["ours.npy", "stored.npy"]


def test_a_token_is_not_shown():
    assert "token" not in repr(remote_folder.DiskOfRank0(("127.0.0.1",), 1, token=b"token"))


def test_a_rank_that_leaves_a_file_unfinished_harms_no_other_file(with_disk, tmp_path):
    def work(disk):
        folder = disk.folder(Path(tmp_path / "offered"))
        with pytest.raises(KeyboardInterrupt), folder.create("tables/half.npy") as file:
            file.write(b"ha")
            raise KeyboardInterrupt
        with folder.create("tables/whole.npy") as file:
            file.write(b"whole")

    with_disk(work)
    assert (tmp_path / "offered" / "tables" / "whole.npy").read_bytes() == b"whole"
