"""A pipe, a socket or a device in the place of a file is named. Nobody waits for it, or reads it without end."""

import contextlib
import os
import re
import shutil
import signal
import socket

import numpy as np
import pytest
from support.layout_samples import ONE_HOT, to_layout, write_tf_raw

from criteo_prep import cli
from criteo_prep.plain_file import NotPlainError, check_plain, open_plain
from criteo_prep.preprocess.journal import Journal
from criteo_prep.split_bin.files import split
from criteo_prep.split_bin.record import RecordForm

PATIENCE_S = 60


@contextlib.contextmanager
def pipe_at(path):
    """A pipe in the place of a file. If somebody still waits for it after a minute, it ends, and the test fails."""

    def end(*_):
        signal.alarm(1)
        with contextlib.suppress(OSError):
            os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))

    path.unlink(missing_ok=True)
    os.mkfifo(path)
    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(PATIENCE_S)
    try:
        yield path
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def test_a_plain_file_is_opened(tmp_path):
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "link").symlink_to("file")
    for name in ("file", "link"):
        with open_plain(tmp_path / name) as file:
            assert file.read() == b"content"
    with open_plain(tmp_path / "file", buffering=0) as file:
        assert file.read(3) == b"con"


@pytest.mark.parametrize("kind", ["pipe", "socket", "device"])
def test_what_is_no_plain_file_is_named(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)  # the path of a socket is short
    if kind == "pipe":
        os.mkfifo("file")
    elif kind == "socket":
        with contextlib.closing(socket.socket(socket.AF_UNIX)) as server:
            server.bind("file")
    else:
        os.symlink("/dev/zero", "file")
    for read in (open_plain, check_plain):
        with pytest.raises(NotPlainError) as error:
            read("file")
        assert str(error.value) == f"file: is a {kind}, and not a plain file. Put a plain file there."


def test_other_errors_are_those_of_open(tmp_path):
    check_plain(tmp_path)
    check_plain(tmp_path / "missing")
    check_plain("\0")
    with pytest.raises(IsADirectoryError):
        open_plain(tmp_path)
    with pytest.raises(FileNotFoundError):
        open_plain(tmp_path / "missing")


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """A folder with a dataset of preprocess, layouts of it, and the parts of split-bin."""
    root = tmp_path_factory.mktemp("plain")
    raw = write_tf_raw(root / "raw", ONE_HOT[:2], {"train": 6, "test": 2})
    for layout in ("tf_raw", "split_tfrecords", "parquet"):
        to_layout(raw, "tf_raw", root / layout, layout)
    rows = [f"{n % 2}\t" + "\t".join(["7"] * 13) + "\t" + "\t".join([f"{n % 5:x}"] * 26) + "\n" for n in range(40)]
    (root / "rows.tsv").write_text("".join(rows))
    command = ["preprocess", "--input", root / "rows.tsv", "--output", root / "set", "--threshold", 2, "--quiet"]
    assert cli.main(list(map(str, command))) == 0
    np.zeros(4 * 40, np.int32).tofile(root / "in.bin")
    split(root / "in.bin", root / "parts", form=RecordForm(), quiet=True)
    return root


@pytest.mark.parametrize("file, command", [
    ("tf_raw/feature_spec.yaml", "verify tf_raw"),
    ("tf_raw/feature_spec.yaml", "transcribe --src_dataset_path tf_raw --dst_dataset_path out"),
    ("tf_raw/train/store.bin", "verify tf_raw"),
    ("tf_raw/train/store.bin", "transcribe --src_dataset_path tf_raw --dst_dataset_path out"),
    ("parquet/test.parquet", "verify parquet"),
    ("parquet/test.parquet",
     "transcribe --src_dataset_path parquet --src_dataset_type parquet --dst_dataset_path out"),
    ("split_tfrecords/train/label/format.json", "verify split_tfrecords"),
    ("set/manifest.json", "verify set"),
    ("set/manifest.json", "preprocess --input rows.tsv --output set --threshold 2"),
    ("set/manifest.json", "encode --input rows.tsv --vocabulary set --output out"),
    ("set/manifest.json", "transcribe --src_dataset_path set --dst_dataset_path out"),
    ("set/vocabularies/cat_3.parquet", "encode --input rows.tsv --vocabulary set --output out"),
    ("set/feature_spec.yaml", "preprocess --input rows.tsv --output set --threshold 2"),
    ("parts/metadata.json", "split-bin --join parts out"),
    ("parts/dense.bin", "split-bin --join parts out"),
])  # fmt: skip
def test_no_command_waits_for_a_pipe(sets, tmp_path, monkeypatch, capsys, file, command):
    for name in {word for word in command.split() if (sets / word).exists()} | {file.split("/")[0]}:
        copy = shutil.copytree if (sets / name).is_dir() else shutil.copy
        copy(sets / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    with pipe_at(tmp_path / file):
        assert cli.main(command.split()) == 1
    output = capsys.readouterr()
    assert re.search(f"{file}: is .*pipe", output.out + output.err)
    assert not (tmp_path / "out").exists()


def test_a_journal(tmp_path):
    with pipe_at(tmp_path / "journal.json"), pytest.raises(NotPlainError, match="journal.json: is a pipe"):
        Journal.load(tmp_path)
