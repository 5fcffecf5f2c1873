"""The record of what made a dataset."""

import json
import zlib

import numpy as np
import pytest

from criteo_prep.manifest import (
    ChecksummedFile,
    ManifestError,
    check_files,
    differences,
    file_entry,
    load_manifest,
    save_manifest,
    versions_of,
)


def document(**changes):
    made = {
        "made_by": "criteo-prep preprocess", "versions": {}, "inputs": [{"name": "day_0", "bytes": 10, "rows": 1}],
        "rules": {"threshold": 3}, "splits": {"train": {"num_samples": 1}}, "files": {},
    }  # fmt: skip
    return made | changes


def test_save_and_load(tmp_path):
    save_manifest(tmp_path, document(best_auc=0.8))
    assert load_manifest(tmp_path) == {"format": 1, **document(best_auc=0.8)}
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.json"]


@pytest.mark.parametrize(
    "text, message",
    [
        ("{", "manifest.json: is not JSON"),
        ("[]", "is not a manifest of format 1"),
        ('{"format": 2}', "is not a manifest of format 1. A newer version may have written it"),
        ('{"format": 1}', "has no 'made_by'; it is damaged"),
        ("[" * 100_000, "is not JSON: too many brackets within brackets"),
        ("9" * 5000, "is not JSON: Exceeds the limit"),
        ("\ud800", "is not JSON"),
    ],
)
def test_load_refuses(tmp_path, text, message):
    (tmp_path / "manifest.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(ManifestError, match=message):
        load_manifest(tmp_path)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"made_by": 3}, "'made_by' is not text"),
        ({"rules": []}, "'rules' is not an object"),
        ({"inputs": {"name": "day_0"}}, "'inputs' is not a list"),
        ({"inputs": [{"bytes": 1}]}, "input 1 is {'bytes': 1}; it must be an object with a name"),
        ({"splits": {"train": 5}}, "split 'train' is 5; it must be an object with num_samples"),
        ({"splits": {"train": {"num_samples": True}}}, "split 'train' is {'num_samples': True}"),
        ({"splits": {"../evening": {"num_samples": 1}}}, "split '../evening' is not one of"),
        ({"files": {"../secret": {"bytes": 1, "crc32": "0"}}}, "file '../secret' leads out of the dataset folder"),
        ({"files": {"a": {"bytes": -1, "crc32": "0"}}}, "file 'a' has the entry .*; it must have a number of bytes"),
        ({"files": {"a": {"bytes": 1}}}, "file 'a' has the entry .*; it must have a checksum"),
        ({"files": {"a": {"bytes": 9, "block_bytes": 0, "xxh3_64": []}}}, "file 'a' has .*; it must have a checksum"),
        (
            {"files": {"a": {"bytes": 9, "block_bytes": 8, "xxh3_64": ["0"]}}},
            "file 'a' has .*; it must have a checksum",
        ),
    ],
)
def test_types_that_no_manifest_has(tmp_path, change, message):
    (tmp_path / "manifest.json").write_text(json.dumps({"format": 1, **document(**change)}))
    with pytest.raises(ManifestError, match=f"manifest.json: {message}"):
        load_manifest(tmp_path)


def test_a_changed_manifest_does_not_fit_its_checksum(tmp_path):
    save_manifest(tmp_path, document())
    text = (tmp_path / "manifest.json").read_text()
    (tmp_path / "manifest.json").write_text(text.replace('"threshold": 3', '"threshold": 4'))
    with pytest.raises(ManifestError, match="manifest.json: is damaged: its bytes do not fit its own checksum"):
        load_manifest(tmp_path)


def test_no_manifest(tmp_path):
    with pytest.raises(ManifestError, match="manifest.json: there is no manifest"):
        load_manifest(tmp_path)


def test_checksums_while_writing_and_by_reading(tmp_path):
    parts = [b"abc", b"", np.arange(6, dtype=np.float16).reshape(2, 3), np.zeros((0, 3)), np.array([True, False])]
    with ChecksummedFile(tmp_path / "f.bin") as file:
        for part in parts:
            file.write(part)
    whole = b"".join(bytes(memoryview(part)) for part in parts)
    assert (tmp_path / "f.bin").read_bytes() == whole
    assert file.entry == file_entry(tmp_path / "f.bin") == {"bytes": 17, "crc32": f"{zlib.crc32(whole):08x}"}


def test_a_full_disk_is_named():
    with ChecksummedFile("/dev/full") as file, pytest.raises(OSError, match="No space left on device: '/dev/full'"):
        file.write(bytes(1 << 20))


def test_check_files(tmp_path):
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "label.bin").write_bytes(b"01")
    made = document(files={"train/label.bin": {"bytes": 2, "crc32": "0"}})
    check_files(tmp_path, made)
    made["files"]["train/label.bin"]["bytes"] = 3
    with pytest.raises(ManifestError, match=r"train/label\.bin: has 2 bytes; the manifest says 3"):
        check_files(tmp_path, made)
    (tmp_path / "train" / "label.bin").unlink()
    with pytest.raises(ManifestError, match=r"train/label\.bin: there is no such file"):
        check_files(tmp_path, made)


def test_differences():
    existing = document()
    assert differences(existing, document(inputs=[{"name": "day_0", "bytes": 10}])) == []  # rows are not known yet
    assert differences(existing, document(rules={"threshold": 15})) == ["threshold: existing 3, requested 15"]
    assert differences(existing, document(made_by="criteo-prep synthesize")) == [
        "made by criteo-prep preprocess, not criteo-prep synthesize"
    ]
    assert differences(existing, document(inputs=[{"name": "day_0", "bytes": 11}])) == [
        "input 1 (day_0): bytes existing 10, requested 11"
    ]
    assert differences(existing, document(inputs=[{"name": "day_0", "bytes": 10}, {"name": "day_1", "bytes": 1}])) == [
        "input 2: existing none, requested 'day_1'"
    ]
    assert differences(existing, document(rules={"threshold": 3, "shuffle": "global"})) == [
        "shuffle: existing none, requested 'global'"
    ]
    assert differences(existing, document(inputs=[])) == ["input 1: existing 'day_0', requested none"]


def test_versions():
    versions = versions_of(["numpy"])
    assert versions["numpy"] == np.__version__
    assert set(versions) == {"criteo_prep", "python", "numpy"}
    json.dumps(versions)
