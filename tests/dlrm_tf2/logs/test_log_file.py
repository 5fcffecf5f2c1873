"""A log belongs to its run: it is locked and appended to, and a full disk costs lines, never the run."""

import dataclasses
import errno
import fcntl
import json
import os
import resource
import signal

import pytest

from dlrm_tf2.config import TrainConfig
from dlrm_tf2.logs.log_file import LogFile, LogFileError

TRAINING = [{"mode": "train", "run": "a"}, {"step": 1, "loss": 0.5}, {"step": 2, "loss": 0.4}]


def write(path, records, resumed=None):
    log = LogFile(str(path), resumed)
    for record in records:
        log.append(record)
    log.close()
    return log


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_second_run_appends(tmp_path):
    evaluation = [{"mode": "eval", "run": "b"}, {"auc": 0.75}]
    write(tmp_path / "log", TRAINING)
    write(tmp_path / "log", evaluation)
    assert read(tmp_path / "log") == TRAINING + evaluation


@pytest.mark.parametrize("resumed, expected, continues", [
    (("a", 1), TRAINING[:2], True), (("a", 2), TRAINING, True), (("a", 0), TRAINING[:1], True),
    (("b", 1), TRAINING, False),
])  # fmt: skip
def test_a_resumed_run_drops_its_own_later_lines_alone(tmp_path, resumed, expected, continues):
    write(tmp_path / "log", TRAINING)
    assert write(tmp_path / "log", [], resumed).continues == continues
    assert read(tmp_path / "log") == expected


def test_lines_of_another_run_behind_a_resumed_run_stay(tmp_path):
    evaluation = [{"mode": "eval", "run": "b"}, {"auc": 0.75}]
    write(tmp_path / "log", TRAINING + evaluation)
    assert not write(tmp_path / "log", [], ("a", 1)).continues
    assert read(tmp_path / "log") == TRAINING + evaluation


def test_half_a_line_of_a_killed_run_goes(tmp_path):
    write(tmp_path / "log", TRAINING)
    with open(tmp_path / "log", "a") as file:
        file.write('{"step": 3, "lo')
    write(tmp_path / "log", [{"mode": "eval"}])
    assert read(tmp_path / "log") == [*TRAINING, {"mode": "eval"}]


@pytest.mark.parametrize("length", [0, 1, 10, 15, 28, 29])
def test_a_first_line_that_is_cut_goes(tmp_path, length):
    (tmp_path / "log").write_text(json.dumps(TRAINING[0])[:length])
    write(tmp_path / "log", TRAINING)
    assert read(tmp_path / "log") == TRAINING


def test_a_run_begins_its_log_as_every_log_begins(tmp_path):
    config = dataclasses.asdict(TrainConfig(dataset_path="d"))
    assert json.dumps(config).startswith(json.dumps(TRAINING[0])[:10])


def test_a_log_that_another_run_is_writing_is_refused_unharmed(tmp_path):
    log = LogFile(str(tmp_path / "log"))
    log.append(TRAINING[0])
    with pytest.raises(LogFileError, match=rf"--log_path {tmp_path}/log: another run is writing this log\. Name"):
        LogFile(str(tmp_path / "log"))
    log.append(TRAINING[1])
    log.close()
    assert read(tmp_path / "log") == TRAINING[:2]
    write(tmp_path / "log", TRAINING[2:])


@pytest.mark.parametrize("content", [
    b"day,clicks\n1,2\n", b"\x80PAR1", b"[1]\n", b"\n\n", b'{"user": 7}\n{"user": 8}\n', b'{"mode": "dark"}\n',
    b'{"vocab_sizes": [3, 20], "dense_log": true}', b'{\n "format": 1}\n',
])  # fmt: skip
def test_what_is_not_a_log_is_not_written(tmp_path, content):
    (tmp_path / "data").write_bytes(content)
    with pytest.raises(LogFileError, match="is not a log of this program, which begins with .* Name another file"):
        LogFile(str(tmp_path / "data"))
    assert (tmp_path / "data").read_bytes() == content


@pytest.mark.parametrize("path", ["folder", "file/below"])
def test_a_path_that_cannot_be_a_file_is_named(tmp_path, path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(LogFileError, match=rf"--log_path {tmp_path}/{path}: cannot be opened: .* Name another file"):
        LogFile(str(tmp_path / path))


def test_a_file_system_without_locks_is_named_and_written(tmp_path, monkeypatch, capsys):
    def flock(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", flock)
    write(tmp_path / "log", TRAINING)
    assert read(tmp_path / "log") == TRAINING
    assert f"--log_path {tmp_path}/log: cannot be locked: No locks available" in capsys.readouterr().err


def test_a_full_device_is_named_once(capsys):
    write("/dev/full", TRAINING)
    reason = "cannot be written: No space left on device. The run continues, and the log misses lines."
    assert capsys.readouterr().err == f"--log_path /dev/full: {reason}\n"


def test_a_line_that_does_not_fit_is_left_out_whole(tmp_path, capsys):
    log = LogFile(str(tmp_path / "log"))
    log.append(TRAINING[0])
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, ((tmp_path / "log").stat().st_size + 5, limits[1]))
    try:
        log.append(TRAINING[1])
        log.append(TRAINING[1])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    log.append(TRAINING[2])
    log.close()
    assert read(tmp_path / "log") == [TRAINING[0], TRAINING[2]]
    assert capsys.readouterr().err.count("File too large") == 1


def test_each_mode_has_a_log_of_its_own():
    def log_file(mode, **flags):
        return TrainConfig(dataset_path="d", mode=mode, restore_checkpoint_path="c", **flags).log_file

    assert [log_file(mode) for mode in ("train", "eval", "inference")] == [
        "dlrm_tf_log.json", "dlrm_tf_log.eval.json", "dlrm_tf_log.inference.json",
    ]  # fmt: skip
    assert log_file("eval", log_path="mine") == "mine" and log_file("eval", log_path=None) is None
