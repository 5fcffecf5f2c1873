"""A file or folder that one process writes, and renames when it is complete."""

import errno
import fcntl
import os

import pytest

from dlrm_tf2.runtime.staging import StagedPath, StagingError


@pytest.fixture(params=[True, False], ids=["folder", "file"])
def staged(request, tmp_path):
    return StagedPath(tmp_path / "made", is_folder=request.param)


def fill(staged):
    (staged.path / "content" if staged.path.is_dir() else staged.path).write_text("x")


def test_it_appears_when_it_is_complete(staged, tmp_path):
    staged.claim()
    fill(staged)
    assert os.listdir(tmp_path) == [".made.partial"]
    staged.rename()
    assert os.listdir(tmp_path) == ["made"]


def test_it_is_deleted_when_it_is_discarded(staged, tmp_path):
    staged.claim()
    fill(staged)
    staged.discard()
    assert os.listdir(tmp_path) == []


def test_what_a_killed_process_left_goes(staged):
    staged.claim()
    fill(staged)
    staged.release()  # all that the system does for a killed process
    staged.claim()
    assert staged.path.stat().st_size == 0 or list(staged.path.iterdir()) == []


def test_two_writers_are_kept_apart(staged, tmp_path):
    staged.claim()
    fill(staged)
    other = StagedPath(staged.destination, is_folder=staged.path.is_dir())
    with pytest.raises(StagingError, match=f"{tmp_path}/made: another process is writing there"):
        other.claim()
    other.discard()
    staged.rename()
    assert os.listdir(tmp_path) == ["made"]


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_named_and_nothing_is_left(staged, tmp_path, monkeypatch, number):
    def flock(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(StagingError, match=rf"{tmp_path}/\.made\.partial: cannot be locked: .* has no flock; name"):
        staged.claim()
    assert os.listdir(tmp_path) == []
