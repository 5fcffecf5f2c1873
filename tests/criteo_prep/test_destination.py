import fcntl
import os
import signal
import subprocess
import sys
import textwrap

import pytest

from criteo_prep import destination
from criteo_prep.destination import DestinationError, new_dataset


def write(path, text="new", overwrite=False):
    with new_dataset(path, overwrite) as folder:
        (folder / "train").mkdir()
        (folder / "train" / "a.bin").write_text(text)
        (folder / "feature_spec.yaml").write_text(text)


def content(path):
    return {str(file.relative_to(path)): file.read_text() for file in sorted(path.rglob("*")) if file.is_file()}


NEW = {"feature_spec.yaml": "new", "train/a.bin": "new"}


@pytest.mark.parametrize("prepare", ["absent", "empty", "nested", "slash", "link"])
def test_commit(tmp_path, prepare):
    path = tmp_path / "set"
    if prepare == "empty":
        path.mkdir()
    elif prepare == "nested":
        path = tmp_path / "a" / "b" / "set"
    elif prepare == "link":  # to another folder, as to one on a larger disk
        (tmp_path / "disk").mkdir()
        path.symlink_to(tmp_path / "disk")
    write(f"{path}/" if prepare == "slash" else path)
    assert content(path) == NEW
    assert [name for name in os.listdir(path.parent) if name.startswith(".")] == []


def test_nothing_shows_before_the_commit(tmp_path):
    with new_dataset(tmp_path / "set") as folder:
        (folder / "a.bin").write_text("half")
        assert not (tmp_path / "set").exists()
        assert folder.parent == tmp_path
    assert content(tmp_path / "set") == {"a.bin": "half"}


@pytest.mark.parametrize("exception", [ValueError, KeyboardInterrupt, BlockingIOError])
def test_an_exception_leaves_nothing_and_is_not_replaced(tmp_path, exception):
    with pytest.raises(exception, match="reason"), new_dataset(tmp_path / "set") as folder:
        (folder / "a.bin").write_text("half")
        raise exception("reason")
    assert os.listdir(tmp_path) == []


def test_a_dataset_is_not_overwritten_unasked(tmp_path):
    write(tmp_path / "set", "old")
    with pytest.raises(DestinationError, match=r"set: is not empty\. Name another destination, or add --overwrite"):
        write(tmp_path / "set")
    assert set(content(tmp_path / "set").values()) == {"old"}
    assert os.listdir(tmp_path) == ["set"]


def test_overwrite_replaces_at_the_commit(tmp_path):
    write(tmp_path / "set", "old")
    (tmp_path / "set" / "more.bin").write_text("old")
    with new_dataset(tmp_path / "set", overwrite=True) as folder:
        (folder / "only.bin").write_text("new")
        assert len(content(tmp_path / "set")) == 3
    assert content(tmp_path / "set") == {"only.bin": "new"}
    assert os.listdir(tmp_path) == ["set"]


def test_overwrite_that_fails_keeps_the_old(tmp_path):
    write(tmp_path / "set", "old")
    with pytest.raises(ValueError, match="reason"), new_dataset(tmp_path / "set", overwrite=True) as folder:
        (folder / "only.bin").write_text("new")
        raise ValueError("reason")
    assert set(content(tmp_path / "set").values()) == {"old"}
    assert os.listdir(tmp_path) == ["set"]


def test_a_rename_that_fails_keeps_the_old(tmp_path, monkeypatch):
    write(tmp_path / "set", "old")
    rename = os.rename

    def fail(source, target):
        if str(source).endswith(".partial"):
            raise OSError("no more")
        rename(source, target)

    monkeypatch.setattr(os, "rename", fail)
    with pytest.raises(OSError, match="no more"):
        write(tmp_path / "set", overwrite=True)
    assert set(content(tmp_path / "set").values()) == {"old"}
    assert os.listdir(tmp_path) == ["set"]


def test_files_that_appear_meanwhile_are_kept(tmp_path):
    with pytest.raises(DestinationError, match="is not empty"), new_dataset(tmp_path / "set"):
        (tmp_path / "set").mkdir()
        (tmp_path / "set" / "theirs").write_text("theirs")
    assert content(tmp_path) == {"set/theirs": "theirs"}
    assert os.listdir(tmp_path) == ["set"]


def test_what_a_killed_writer_left_is_cleared(tmp_path):
    program = textwrap.dedent(f"""
        import os, signal
        from criteo_prep.destination import new_dataset
        with new_dataset({str(tmp_path / "set")!r}) as folder:
            (folder / "train").mkdir()
            (folder / "train" / "stale.bin").write_text("half")
            (folder / "link").symlink_to("/")
            os.kill(os.getpid(), signal.SIGKILL)
    """)
    assert subprocess.run([sys.executable, "-c", program]).returncode == -signal.SIGKILL
    assert os.listdir(tmp_path) == [".set.partial"]
    write(tmp_path / "set")
    assert content(tmp_path / "set") == NEW
    assert os.listdir(tmp_path) == ["set"]


def test_killed_between_the_two_renames_of_an_overwrite(tmp_path):
    write(tmp_path / "set", "old")
    os.rename(tmp_path / "set", tmp_path / ".set.old")
    with pytest.raises(DestinationError, match="is not empty"):  # found again, and not overwritten unasked
        write(tmp_path / "set")
    assert set(content(tmp_path / "set").values()) == {"old"}
    os.rename(tmp_path / "set", tmp_path / ".set.old")
    write(tmp_path / "set", overwrite=True)
    assert content(tmp_path / "set") == NEW
    assert os.listdir(tmp_path) == ["set"]


def test_killed_after_the_renames_of_an_overwrite(tmp_path):
    write(tmp_path / "set", "old")
    write(tmp_path / ".set.old", "older")
    write(tmp_path / "set", overwrite=True)
    assert content(tmp_path / "set") == NEW
    assert os.listdir(tmp_path) == ["set"]


def test_two_writers_of_one_destination(tmp_path):
    with new_dataset(tmp_path / "set") as folder:
        (folder / "a.bin").write_text("first")
        with pytest.raises(DestinationError, match="set: another process is writing this destination"):
            write(tmp_path / "set")
        write(tmp_path / "other")  # beside it is fine
    assert content(tmp_path / "set") == {"a.bin": "first"}


def test_a_writer_that_comes_as_the_other_commits(tmp_path, monkeypatch):
    """It opens the staging folder, and gets the lock once that folder has become the destination."""
    flock = fcntl.flock

    def commit_first(descriptor, mode):
        os.rename(tmp_path / ".set.partial", tmp_path / "set")
        (tmp_path / "set" / "a.bin").write_text("theirs")
        flock(descriptor, mode)

    monkeypatch.setattr(destination.fcntl, "flock", commit_first)
    with pytest.raises(DestinationError, match="another process is writing"):
        write(tmp_path / "set")
    assert content(tmp_path / "set") == {"a.bin": "theirs"}


def test_places_that_cannot_be_a_dataset(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("x")
    with pytest.raises(DestinationError, match="file: is not a folder"):
        write(tmp_path / "file")
    with pytest.raises(DestinationError, match="is a mount point, which cannot be replaced"):
        write("/proc", overwrite=True)
    (tmp_path / "home" / "work").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "home" / "work")
    with pytest.raises(DestinationError, match="home: holds the current folder, which would be lost"):
        write(tmp_path / "home", overwrite=True)
    assert content(tmp_path) == {"file": "x"}
