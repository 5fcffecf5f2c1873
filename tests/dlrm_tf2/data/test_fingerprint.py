"""Which changes of a dataset its fingerprint shows."""

import shutil

import numpy as np
import pytest
from support.small_dataset import write_dataset

from criteo_prep.feature_spec import FeatureSpec
from dlrm_tf2.data import fingerprint
from dlrm_tf2.data.fingerprint import fingerprint_of

BOTH = ("train", "test")


def test_a_copy_has_the_same_fingerprint(tmp_path):
    spec = write_dataset(tmp_path / "data")
    shutil.copytree(tmp_path / "data", tmp_path / "copy")
    assert fingerprint_of(FeatureSpec.load(tmp_path / "copy/feature_spec.yaml"), BOTH) == fingerprint_of(spec, BOTH)


@pytest.mark.parametrize("flags", [{"seed": 1}, {"train": 999}, {"test": 299}, {"cardinalities": (50, 7, 400, 3, 91)}])
def test_another_dataset_has_another_fingerprint(tmp_path, flags):
    one, other = write_dataset(tmp_path / "one"), write_dataset(tmp_path / "other", **flags)
    assert fingerprint_of(one, BOTH) != fingerprint_of(other, BOTH)
    assert (fingerprint_of(one, ("train",)) == fingerprint_of(other, ("train",))) == ("test" in flags)
    assert (fingerprint_of(one, ()) == fingerprint_of(other, ())) == ("cardinalities" not in flags)


def test_the_first_and_the_last_bytes_of_a_large_file_count(tmp_path, monkeypatch):
    monkeypatch.setattr(fingerprint, "_BLOCK_BYTES", 4)
    monkeypatch.setattr(fingerprint, "_BLOCKS", 3)
    spec = write_dataset(tmp_path)
    path, found = tmp_path / "train/cat_2.bin", set()
    whole = np.fromfile(path, np.uint8)
    for place in (0, len(whole) // 2 - 1, len(whole) - 1):
        changed = whole.copy()
        changed[place] ^= 1
        changed.tofile(path)
        found.add(fingerprint_of(spec, BOTH))
    assert len(found) == 3
