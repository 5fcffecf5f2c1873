"""Damage in a source does not get fresh checksums in the destination; a source that changes meanwhile is refused."""

import os

import pytest
from support.layout_samples import forget_files, to_layout, write_tf_raw

from criteo_prep.manifest import MANIFEST, block_entry, file_entry, save_manifest
from criteo_prep.transcribe import run
from criteo_prep.transcribe.layout_spec import LayoutError


def flip_a_label(dataset):
    """Another good label: no reader can see it."""
    path = dataset / "train/label.bin"
    content = bytearray(path.read_bytes())
    content[5] ^= 1
    path.write_bytes(content)


@pytest.fixture
def source(tmp_path):
    return to_layout(write_tf_raw(tmp_path / "raw"), "tf_raw", tmp_path / "source", "tf_raw")


def test_a_changed_byte_is_found_by_the_checksums_of_transcribe(source, tmp_path):
    flip_a_label(source)
    with pytest.raises(
        LayoutError, match="train/label.bin: does not have the checksum .*, says feature_spec.yaml. Copy"
    ):
        to_layout(source, "tf_raw", tmp_path / "a", "csv")
    assert not (tmp_path / "a").exists()
    to_layout(source, "tf_raw", tmp_path / "part", "csv", max_batches_train=2)  # the rest of the file is not read
    to_layout(forget_files(source), "tf_raw", tmp_path / "b", "csv")


@pytest.mark.parametrize("entry_of", [file_entry, block_entry], ids=["synthesize", "preprocess"])
def test_a_changed_byte_is_found_by_a_manifest(tmp_path, entry_of):
    source = write_tf_raw(tmp_path / "raw")
    files = [path for path in source.rglob("*") if path.is_file()]
    document = {key: {} for key in ("made_by", "versions", "inputs", "rules", "splits")}
    save_manifest(source, {**document, "files": {str(path.relative_to(source)): entry_of(path) for path in files}})
    to_layout(source, "tf_raw", tmp_path / "a", "csv")
    flip_a_label(source)
    with pytest.raises(LayoutError, match=f"train/label.bin: does not have the checksum .*, says {MANIFEST}. Copy"):
        to_layout(source, "tf_raw", tmp_path / "b", "csv")
    (source / "train/label.bin").write_bytes(b"")
    with pytest.raises(ValueError, match="train/label.bin: (has 0 bytes, but 23 were written|holds 0 samples)"):
        to_layout(source, "tf_raw", tmp_path / "b", "csv")


def test_a_file_that_is_rewritten_while_it_is_read(source, tmp_path, monkeypatch):
    path = forget_files(source) / "train/store.bin"

    def rewrite(progress, amount):
        with open(path, "r+b") as file:
            file.write(b"\0")
        os.utime(path, ns=(0, 0))  # a clock may stand still for as short a time as this test takes

    monkeypatch.setattr(run.Progress, "advance", rewrite)
    with pytest.raises(LayoutError, match="store.bin: was changed while it was read. Wait until it is complete"):
        to_layout(source, "tf_raw", tmp_path / "a", "csv")
    assert not (tmp_path / "a").exists()
