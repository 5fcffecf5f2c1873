"""An input that is written while a verb reads it ends the verb; the next run makes the same as from a quiet input."""

import os
import shutil

import numpy as np
import pytest
from support.log_samples import content, make, random_rows, write_rows

from criteo_prep import cli
from criteo_prep.manifest import DamagedError
from criteo_prep.preprocess.parse import parse_files
from criteo_prep.split_bin import files as split_bin_files
from criteo_prep.synthesize import Synthesis, synthesize
from criteo_prep.transcribe import run as transcribe_run
from criteo_prep.transcribe.request import Request
from criteo_prep.transcribe.run import transcribe_dataset
from criteo_prep.unchanged import ChangedError, check_unchanged, state_of


def append(path):
    with open(path, "ab") as file:
        file.write(path.read_bytes()[: path.stat().st_size // 2])


def rewrite(path):
    """Other bytes of the same size, in place."""
    data = path.read_bytes()
    with open(path, "r+b") as file:
        file.write(data[len(data) // 2 :] + data[: len(data) // 2])
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))  # as after the next tick of the clock of the file system


def replace(path):
    shutil.copyfile(path, f"{path}.new")
    append(path.with_name(f"{path.name}.new"))
    os.replace(f"{path}.new", path)


CHANGES = [append, rewrite, replace, os.unlink]


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("day", [0, 2])
def test_preprocess(tmp_path, monkeypatch, change, day):
    days = [write_rows(tmp_path / f"day_{n}", random_rows(n, 20)) for n in range(3)]
    text_blocks = parse_files.text_blocks

    def changing(path, *more, **named):
        yield from text_blocks(path, *more, **named)
        if path == days[day]:
            change(path)

    with monkeypatch.context() as patch, pytest.raises(ChangedError, match=rf"day_{day}: (changed|disappeared) while"):
        patch.setattr(parse_files, "text_blocks", changing)
        make(days, tmp_path / "set", 2, block_bytes=2000)
    assert not (tmp_path / "set").exists()
    write_rows(days[day], random_rows(day, 21))
    make(days, tmp_path / "set", 2)
    make(days, tmp_path / "direct", 2)
    assert content(tmp_path / "set") == content(tmp_path / "direct")


def test_a_change_explains_a_bad_row(tmp_path, monkeypatch):
    path = write_rows(tmp_path / "train.txt", random_rows(1, 20))
    text_blocks = parse_files.text_blocks

    def cut(path, *more, **named):
        os.truncate(path, path.stat().st_size - 50)
        return text_blocks(path, *more, **named)

    monkeypatch.setattr(parse_files, "text_blocks", cut)
    with pytest.raises(ChangedError, match="train.txt: changed while it was read"):
        make(path, tmp_path / "set", 2)


def during(monkeypatch, module, act):
    """Calls `act` once, at the first progress of the module's work."""
    pending = [act]
    monkeypatch.setattr(module.Progress, "advance", lambda progress, amount: pending and pending.pop()())


@pytest.mark.parametrize("layout", ["split_bin", "tf_raw"])
@pytest.mark.parametrize("change", [rewrite, replace])
def test_split_bin(tmp_path, monkeypatch, capsys, layout, change):
    source = tmp_path / "in.bin"
    np.zeros(40 * 50, np.int32).tofile(source)
    during(monkeypatch, transcribe_run if layout == "tf_raw" else split_bin_files, lambda: change(source))
    assert cli.main(["split-bin", str(source), str(tmp_path / "out"), "--layout", layout, "--quiet"]) == 1
    assert "while it was read" in capsys.readouterr().err and not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory):
    folder = tmp_path_factory.mktemp("synthetic") / "set"
    synthesize(Synthesis("criteo_t3", 50, scale=0.0001, num_test_samples=10), folder, quiet=True)
    return folder


def test_transcribe(tmp_path, monkeypatch, synthetic):
    source = shutil.copytree(synthetic, tmp_path / "source")
    (source / "manifest.json").unlink()
    during(monkeypatch, transcribe_run, lambda: rewrite(source / "train" / "numerical.bin"))
    with pytest.raises(ChangedError, match="numerical.bin: changed while it was read"):
        transcribe_dataset(Request(source, "tf_raw", dst_dataset_path=tmp_path / "out"), quiet=True)
    assert os.listdir(tmp_path) == ["source"]


@pytest.mark.parametrize("name", ["train/label.bin", "test/cat_3.bin", "train/numerical.bin"])
def test_transcribe_checks_the_checksums_of_its_source(tmp_path, synthetic, name):
    """The checksums stand in a manifest, or in a feature spec that transcribe itself wrote."""
    transcribe_dataset(
        Request(synthetic, "tf_raw", dst_dataset_path=tmp_path / "copy", dst_dataset_type="tf_raw"), True
    )
    for number, source in enumerate((shutil.copytree(synthetic, tmp_path / "source"), tmp_path / "copy")):
        data = bytearray((source / name).read_bytes())
        data[4] ^= 1
        (source / name).write_bytes(data)
        request = Request(source, "tf_raw", dst_dataset_path=tmp_path / f"out{number}")
        with pytest.raises(DamagedError, match=f"{name}: is damaged"):
            transcribe_dataset(request, quiet=True)
    assert sorted(os.listdir(tmp_path)) == ["copy", "source"]


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_file_is_found(tmp_path, change):
    (tmp_path / "a.bin").write_bytes(bytes(range(100)))
    state = state_of(tmp_path / "a.bin")
    check_unchanged(tmp_path / "a.bin", state)
    change(tmp_path / "a.bin")
    with pytest.raises(ChangedError, match="a.bin: (changed|disappeared) while it was read"):
        check_unchanged(tmp_path / "a.bin", state)
