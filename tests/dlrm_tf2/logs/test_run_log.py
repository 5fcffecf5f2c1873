"""Runs whose reports cannot be written, and runs that share a log: no run ends, and no line is lost."""

import errno
import json
import os
import sys

import pytest
from support import in_process
from support.small_dataset import write_dataset

from dlrm_tf2.checkpoint import read_document
from dlrm_tf2.logs.log_file import LogFile


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A dataset, and a checkpoint and a log of three steps."""
    root = tmp_path_factory.mktemp("trained")
    write_dataset(root / "data", train=150, test=50)
    in_process.run(root / "data", root / "log.json", "--save_checkpoint_path", root / "saved")
    return root


def test_an_evaluation_in_the_log_of_a_training_appends(trained):
    before = (trained / "log.json").read_bytes()
    run = in_process.run(trained / "data", trained / "log.json", "--mode", "eval", "--restore_checkpoint_path",
                         trained / "saved")  # fmt: skip
    after = (trained / "log.json").read_bytes()
    assert after.startswith(before) and len(run.records) == 2
    assert [json.loads(line)["mode"] for line in after.splitlines() if b'"mode"' in line] == ["train", "eval"]


def test_an_evaluation_while_the_training_runs_is_refused_unharmed(trained):
    training = LogFile(str(trained / "log.json"))
    before = (trained / "log.json").read_bytes()
    with pytest.raises(ValueError, match="another run is writing this log"):
        in_process.run(trained / "data", trained / "log.json", "--mode", "eval", "--restore_checkpoint_path",
                       trained / "saved")  # fmt: skip
    training.close()
    assert (trained / "log.json").read_bytes() == before


def test_a_training_goes_to_its_end_without_disk_and_terminal(trained, tmp_path, monkeypatch, capfd):
    write = os.write

    def full(descriptor, data):
        if b'"loss"' in data:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(descriptor, data)

    monkeypatch.setattr(os, "write", full)
    with open("/dev/full", "w") as terminal:
        monkeypatch.setattr(sys, "stdout", terminal)
        run = in_process.run(trained / "data", tmp_path / "log.json", "--save_checkpoint_path", tmp_path / "saved")
    assert read_document(tmp_path / "saved")["step"] == 3
    assert run.column("loss") == [] and run.column("auc")
    warnings = [line for line in capfd.readouterr().err.splitlines() if "cannot be written" in line]
    assert len(warnings) == 2
    assert {line.split(":")[0] for line in warnings} == {"standard output", f"--log_path {tmp_path}/log.json"}
