"""Dumps behind the training, the changes since a time, and what a table no longer knows."""

import threading
from datetime import UTC, datetime, timedelta

import pytest
from support.dynamic_case import RankOfSetup
from test_dump_tables import TIME, content, setup, train

from dlrm_tf2 import ops
from dlrm_tf2.checkpoint import load_checkpoint, save_checkpoint
from dlrm_tf2.dump import pending
from dlrm_tf2.dump.apply import apply_changes
from dlrm_tf2.dump.arguments import DumpError
from dlrm_tf2.dump.copying import TablesSource
from dlrm_tf2.dump.files import PartWriter
from dlrm_tf2.dump.loading import load_tables
from dlrm_tf2.dump.tables import begin_changes, begin_dump, dump_changes, dump_tables, first_step_since
from dlrm_tf2.runtime.comm import SingleProcess

pytestmark = pytest.mark.skipif(not ops.available(), reason=f"no native ops: {ops.why_unavailable()}")


@pytest.fixture
def gate(monkeypatch):
    """An event without which no rank writes a file of rows."""
    opened, write = threading.Event(), PartWriter.write

    def gated(*arguments):
        assert opened.wait(60)
        write(*arguments)

    monkeypatch.setattr(PartWriter, "write", gated)
    return opened


@pytest.mark.parametrize("world_size", [1, 2])
def test_training_continues_while_a_dump_is_written(run_ranks, tmp_path, gate, world_size):
    """The steps 4 to 6 are trained while nothing can be written; the dump is the one after step 3 all the same."""

    def job(comm):
        rank, follower = (RankOfSetup(setup("adam"), comm) for _ in range(2))
        train(rank, 1, 3)
        dump = begin_dump(rank.embedding, tmp_path / "dump", comm=comm, step=3, time=TIME)
        train(rank, 4, 6)
        assert not dump.is_written() and not (tmp_path / "dump").exists()
        if comm.rank == 0:
            gate.set()
        dump.commit()
        changes = begin_changes(rank.embedding, tmp_path / "changes", comm=comm, first_step=4, step=6, time=TIME)
        train(rank, 7, 8)
        changes.commit()
        train(follower, 1, 3)
        dump_tables(follower.embedding, tmp_path / "expected", comm=comm, step=3, time=TIME)
        train(follower, 4, 6)
        dump_tables(follower.embedding, tmp_path / "later", comm=comm, step=6, time=TIME)

    run_ranks(world_size, job)
    assert content(tmp_path / "dump") == content(tmp_path / "expected")
    apply_changes(tmp_path / "dump", [tmp_path / "changes"], tmp_path / "followed")
    apply_changes(tmp_path / "later", [], tmp_path / "joined")
    assert content(tmp_path / "followed") == content(tmp_path / "joined")


def test_a_dump_that_fails_behind_the_training_is_reported_on_all_ranks(run_ranks, tmp_path, monkeypatch):
    """The dump of the same step from before stays; without the failure it is replaced."""
    fails, write = threading.Event(), TablesSource.write

    def failing(self, folder, *, rank, world_size):
        if fails.is_set() and rank == 1:
            raise OSError(28, "No space left on device")
        write(self, folder, rank=rank, world_size=world_size)

    monkeypatch.setattr(TablesSource, "write", failing)

    def job(comm):
        rank = RankOfSetup(setup(), comm)
        train(rank, 1, 2)
        dump_tables(rank.embedding, tmp_path / "dump", comm=comm, step=2, time=TIME)
        before = content(tmp_path / "dump")
        fails.set()
        dump = begin_dump(rank.embedding, tmp_path / "dump", comm=comm, step=2, time=TIME + 5)
        with pytest.raises(DumpError, match=r"rank 1: OSError: .* No space left on device"):
            dump.commit()
        comm.allgather_object(None, name="both have failed")
        assert content(tmp_path / "dump") == before and [path.name for path in tmp_path.iterdir()] == ["dump"]
        comm.allgather_object(None, name="both have looked")
        fails.clear()
        begin_dump(rank.embedding, tmp_path / "dump", comm=comm, step=2, time=TIME + 5).commit()
        assert content(tmp_path / "dump") != before

    run_ranks(2, job)


def test_a_rename_that_was_killed_halfway_is_repaired(tmp_path, monkeypatch):
    comm, rank = SingleProcess(), RankOfSetup(setup(), SingleProcess())
    train(rank, 1, 2)
    dump_tables(rank.embedding, tmp_path / "dump", comm=comm, step=2, time=TIME)
    before = content(tmp_path / "dump")
    (tmp_path / "dump").rename(tmp_path / ".dump.old")
    dump = begin_dump(rank.embedding, tmp_path / "dump", comm=comm, step=2, time=TIME)
    assert content(tmp_path / "dump") == before
    dump.commit()
    assert [path.name for path in tmp_path.iterdir()] == ["dump"]
    monkeypatch.setattr(pending.os, "rename", lambda *_: (_ for _ in ()).throw(PermissionError(13, "not today")))
    with pytest.raises(DumpError, match="dump: cannot be renamed into place: not today"):
        dump_tables(rank.embedding, tmp_path / "dump", comm=comm, step=2, time=TIME)
    assert content(tmp_path / "dump") == before


def at(seconds):
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=TIME // 1000) + timedelta(seconds=seconds)


def test_the_changes_since_a_time_are_those_since_its_step(run_ranks, tmp_path):
    """Step n is at n s; the layer knows the times of the dump (step 3) and of the steps 5 and 6."""

    def job(comm):
        rank = RankOfSetup(setup(), comm)
        train(rank, 1, 3)
        dump_tables(rank.embedding, tmp_path / "dump", comm=comm, step=3, time=TIME + 3 * 10**9)
        train(rank, 4, 6)
        rank.embedding.note_step(5, TIME + 5 * 10**9)
        for table in rank.embedding.dynamic_tables.values():
            table.known_steps.note(TIME + 6 * 10**9, 6, exact=True)
        first = [first_step_since(rank.embedding, at(seconds), comm=comm) for seconds in (3, 4.5, 6, 7)]
        with pytest.raises(
            DumpError, match=r"since_time 1970-01-01 00:16:42\+00:00: the steps before .* are not known"
        ):
            first_step_since(rank.embedding, at(2), comm=comm)
        with pytest.raises(DumpError, match="since_time 1970-01-01 00:16:43: has no time zone"):
            first_step_since(rank.embedding, at(3).replace(tzinfo=None), comm=comm)
        changed = first_step_since(rank.embedding, at(3), comm=comm)
        dump_changes(rank.embedding, tmp_path / "c", comm=comm, first_step=changed, step=6, time=TIME + 6 * 10**9)
        dump_tables(rank.embedding, tmp_path / "later", comm=comm, step=6, time=TIME + 6 * 10**9)
        return first

    assert run_ranks(2, job) == [[4, 4, 7, 7]] * 2  # the note of step 5 is less than 26 s after another one
    apply_changes(tmp_path / "dump", [tmp_path / "c"], tmp_path / "followed")
    apply_changes(tmp_path / "later", [], tmp_path / "joined")
    assert content(tmp_path / "followed") == content(tmp_path / "joined")


def test_changes_are_refused_where_the_keys_that_left_are_not_known(tmp_path):
    """After loading a dump or a checkpoint, and after trimming, older departures are unknown."""
    comm, saved = SingleProcess(), RankOfSetup(setup(), SingleProcess())
    train(saved, 1, 5)
    dump_tables(saved.embedding, tmp_path / "dump", comm=comm, step=5)
    save_checkpoint(tmp_path / "c", comm, dense={}, embedding=saved.embedding, document={"step": 5})

    def refused(rank, first_step):
        with pytest.raises(DumpError, match=rf"table 'a': the keys that left it before step {first_step + 1} are not"):
            dump_changes(rank.embedding, tmp_path / "changes", comm=comm, first_step=first_step, step=6)
        dump_changes(rank.embedding, tmp_path / "changes", comm=comm, first_step=first_step + 1, step=6)

    loaded, restored = (RankOfSetup(setup(), comm) for _ in range(2))
    load_tables(loaded.embedding, tmp_path / "dump", comm=comm)
    load_checkpoint(tmp_path / "c", comm, dense={}, embedding=restored.embedding)
    assert first_step_since(restored.embedding, datetime.now(UTC), comm=comm) == 6
    saved.embedding.trim_erased(4)
    for rank, first_step in ((loaded, 5), (restored, 5), (saved, 3)):
        train(rank, 6, 6)
        refused(rank, first_step)
