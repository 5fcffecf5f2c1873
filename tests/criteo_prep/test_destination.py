import errno
import fcntl
import functools
import os
import signal
import subprocess
import sys
import textwrap

import pytest

from criteo_prep import destination, guard
from criteo_prep.destination import new_dataset, new_file
from criteo_prep.guard import DestinationError, check_space
from criteo_prep.manifest import file_entry, save_manifest

new_record_file = functools.partial(new_file, is_ours=lambda path: True)


def write(path, text="new", overwrite=False):
    """Makes a small dataset, with a manifest that lists its files."""
    with new_dataset(path, overwrite=overwrite) as folder:
        (folder / "train").mkdir()
        (folder / "train" / "a.bin").write_text(text)
        (folder / "feature_spec.yaml").write_text(text)
        finish(folder)


def finish(folder):
    files = {str(file.relative_to(folder)): file_entry(file) for file in folder.rglob("*") if file.is_file()}
    more = {key: {} for key in ("versions", "rules", "splits")}
    save_manifest(folder, {"made_by": "criteo-prep synthesize", "inputs": [], **more, "files": files})


def content(path):
    """File -> text, without the manifest."""
    files = [file for file in sorted(path.rglob("*")) if file.is_file() and file.name != "manifest.json"]
    return {str(file.relative_to(path)): file.read_text() for file in files}


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
    with new_dataset(tmp_path / "set", overwrite=True) as folder:
        (folder / "only.bin").write_text("new")
        assert len(content(tmp_path / "set")) == 2
    assert content(tmp_path / "set") == {"only.bin": "new"}
    assert os.listdir(tmp_path) == ["set"]


def test_overwrite_that_fails_keeps_the_old(tmp_path):
    write(tmp_path / "set", "old")
    with pytest.raises(ValueError, match="reason"), new_dataset(tmp_path / "set", overwrite=True) as folder:
        (folder / "only.bin").write_text("new")
        raise ValueError("reason")
    assert set(content(tmp_path / "set").values()) == {"old"}
    assert os.listdir(tmp_path) == ["set"]


@pytest.mark.parametrize("which", [".partial", "set"])
def test_a_rename_that_fails_keeps_the_old_and_the_new(tmp_path, monkeypatch, which):
    """EXDEV: an overlay file system cannot rename a folder that lies in its lower layer."""
    write(tmp_path / "set", "old")
    rename = os.rename

    def fail(source, target):
        if str(source).endswith(which):
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        rename(source, target)

    monkeypatch.setattr(os, "rename", fail)
    with pytest.raises(DestinationError, match=r"cannot be replaced \(Invalid cross-device.*kept in .*\.set\.partial"):
        write(tmp_path / "set", overwrite=True)
    assert set(content(tmp_path / "set").values()) == {"old"}
    assert content(tmp_path / ".set.partial") == NEW
    assert sorted(os.listdir(tmp_path)) == [".set.partial", "set"]


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


def test_places_that_cannot_be_a_dataset(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(DestinationError, match="file: is not a folder"):
        write(tmp_path / "file")
    with pytest.raises(DestinationError, match="is a mount point, which cannot be replaced"):
        write("/proc", overwrite=True)
    with pytest.raises(OSError, match="/proc/nowhere"):
        write("/proc/nowhere/set")
    with pytest.raises(DestinationError, match=r"bad.xff.*: the name is not UTF-8"):
        write(os.fsdecode(os.fsencode(tmp_path) + b"/bad\xff"))
    assert content(tmp_path) == {"file": "x"} and os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("name, overwrite", [(".", False), (".", True), ("..", True), ("../work/", False)])
def test_the_current_folder_is_not_replaced(tmp_path, monkeypatch, name, overwrite):
    (tmp_path / "home" / "work").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "home" / "work")
    with pytest.raises(DestinationError, match="the current folder, which would be lost. Name a folder inside it"):
        write(name, overwrite=overwrite)
    assert os.listdir(tmp_path) == ["home"] and os.listdir(tmp_path / "home") == ["work"]


# What is read, the destination, and what the message says of them; SET is a finished dataset.
OVERLAPS = [
    ("SET", "SET", "SET: is read, and would be lost"),
    ("SET/raw/train.txt", "SET", "SET: holds .*train.txt, which is read and would be lost"),
    ("link/raw/train.txt", "SET", "SET: holds .*train.txt, which is read and would be lost"),
    ("SET/raw/train.txt", "link", "link: holds .*train.txt, which is read and would be lost"),
    ("SET/pointer", "SET", "SET: holds .*pointer, which is read and would be lost"),
    ("SET", "SET/new", "new: lies in .*SET, which is read"),
    ("link", "SET/raw/new", "new: lies in .*link, which is read"),
]


@pytest.mark.parametrize("read, destination, message", OVERLAPS)
def test_nothing_that_is_read_lies_in_the_destination_or_around_it(tmp_path, read, destination, message):
    (tmp_path / "SET" / "raw").mkdir(parents=True)
    (tmp_path / "SET" / "raw" / "train.txt").write_text("rows")
    (tmp_path / "elsewhere").write_text("rows")
    (tmp_path / "SET" / "pointer").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "link").symlink_to("SET")
    finish(tmp_path / "SET")
    before = content(tmp_path)
    for writer in (new_dataset, new_record_file):
        with pytest.raises(DestinationError, match=message):
            with writer(tmp_path / destination, reads=[tmp_path / read], overwrite=True):
                pass
    assert content(tmp_path) == before


@pytest.mark.parametrize("mine", ["thesis.txt", "train/notes.txt", "deep/er/thesis.txt", ".hidden"])
def test_overwrite_replaces_only_what_this_program_made(tmp_path, mine):
    write(tmp_path / "set", "old")
    (tmp_path / "set" / mine).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / "set" / mine).write_text("mine")
    before = content(tmp_path)
    with pytest.raises(DestinationError, match=rf"set: holds {mine}, which this program did not make"):
        write(tmp_path / "set", overwrite=True)
    with pytest.raises(DestinationError, match="is not empty. Name another destination.$"):  # the flag is not advised
        write(tmp_path / "set")
    assert content(tmp_path) == before


@pytest.mark.parametrize("text", [None, "", "[" * 5000, '{"format": 1}', '{"format": 1, "files": {"thesis.txt": {}}}'])
def test_a_folder_without_a_manifest_of_this_program_is_not_replaced(tmp_path, text):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "thesis.txt").write_text("mine")
    if text is not None:
        (tmp_path / "set" / "manifest.json").write_text(text)
    with pytest.raises(DestinationError, match="did not make"):
        write(tmp_path / "set", overwrite=True)
    assert content(tmp_path) == {"set/thesis.txt": "mine"}


def test_a_link_in_a_dataset_is_not_followed(tmp_path):
    write(tmp_path / "set", "old")
    (tmp_path / "disk").mkdir()
    (tmp_path / "set" / "more").symlink_to(tmp_path / "disk")
    with pytest.raises(DestinationError, match="set: holds more, which this program did not make"):
        write(tmp_path / "set", overwrite=True)


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
@pytest.mark.parametrize("writer", [new_dataset, new_record_file])
def test_a_file_system_without_locks(tmp_path, monkeypatch, number, writer):
    def flock(descriptor, mode):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(destination.fcntl, "flock", flock)
    with pytest.raises(DestinationError, match=r"set: its file system has no locks.* \(flock: .*another file system"):
        with writer(tmp_path / "new" / "set"):
            pass
    assert os.listdir(tmp_path) == []


def test_a_full_disk_names_a_path(tmp_path):
    with pytest.raises(OSError, match=r"No space left.*\.set\.partial'"), new_dataset(tmp_path / "set"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with pytest.raises(OSError, match=r"No space left.*'a\.bin'"), new_dataset(tmp_path / "set"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "a.bin")


def test_too_little_space(tmp_path, monkeypatch):
    usage = guard.shutil.disk_usage(tmp_path)._replace(free=12_345)
    monkeypatch.setattr(guard.shutil, "disk_usage", lambda path: usage)
    check_space(tmp_path / "not" / "yet", 12_345)
    with pytest.raises(DestinationError, match=r"needs 12,346 bytes .* the disk has 12,345 bytes \(12.35 kB\) left"):
        check_space(tmp_path / "not" / "yet", 12_346)
    with pytest.raises(DestinationError, match=r"needs 7,000,000,000 bytes \(7.00 GB\)"):
        check_space(tmp_path / "set", 7 * 10**9)
