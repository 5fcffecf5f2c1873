"""Damage in a finished dataset never gets a fresh checksum: what is read to be written again is checked meanwhile."""

import random
import shutil

import pytest
from support.log_samples import content, kept_in, make, random_rows, write_rows

from criteo_prep.manifest import DamagedError
from criteo_prep.preprocess.new_rows import encode
from criteo_prep.preprocess.request import Resources
from criteo_prep.verify import verify


def flip(path, source):
    data = bytearray(path.read_bytes())
    place = source.randrange(len(data) * 8)
    data[place // 8] ^= 1 << place % 8
    path.write_bytes(data)


@pytest.fixture(scope="module")
def datasets(tmp_path_factory):
    """(folder with the inputs, their days, name of a dataset with raw columns, name of one without)"""
    root = tmp_path_factory.mktemp("datasets")
    days = [write_rows(root / f"day_{day}", random_rows(day, 60)) for day in range(3)]
    make(days, root / "raw", 2, keep_raw=True)
    make(days, root / "plain", 2)
    return root, days


@pytest.mark.parametrize("kind, name", [
    ("plain", "train/label.bin"), ("plain", "test/cat_7.bin"), ("plain", "vocabularies/cat_3.parquet"),
    ("plain", "feature_spec.yaml"), ("raw", "validation/numerical.bin"), ("raw", "raw/cat_3.raw"),
])  # fmt: skip
def test_deriving_from_a_damaged_file_is_refused(datasets, tmp_path, kind, name):
    root, days = datasets
    copy = shutil.copytree(root / kind, tmp_path / "set")
    flip(copy / name, random.Random(name))
    before = content(copy)
    with pytest.raises(DamagedError, match=name):
        make(days, copy, 9)
    assert content(copy) == before and kept_in(tmp_path) == ["set"]
    shutil.copyfile(root / kind / name, copy / name)  # the file is restored, and the same command works
    make(days, copy, 9)
    assert verify(copy, quiet=True).good


@pytest.mark.parametrize("kind", ["plain", "raw"])
def test_deriving_by_a_damaged_manifest_is_refused(datasets, tmp_path, kind):
    root, days = datasets
    copy = shutil.copytree(root / kind, tmp_path / "set")
    path = copy / "manifest.json"
    path.write_text(path.read_text().replace('"rows": 60', '"rows": 61', 1))
    with pytest.raises(DamagedError, match="manifest.json: is damaged"):
        make(days, copy, 9)


@pytest.mark.parametrize("seed", range(3))
def test_encoding_by_a_damaged_vocabulary_is_refused(datasets, tmp_path, seed):
    root, days = datasets
    source = random.Random(seed)
    copy = shutil.copytree(root / "plain", tmp_path / "set")
    name = f"cat_{source.randrange(26)}.parquet"
    flip(copy / "vocabularies" / name, source)
    resources = Resources(quiet=True)
    with pytest.raises(DamagedError, match=rf"set/vocabularies/{name}: is damaged"):
        encode(copy, days[:1], destination=tmp_path / "new", resources=resources)
    assert not (tmp_path / "new").exists()
    shutil.copyfile(root / "plain" / "vocabularies" / name, copy / "vocabularies" / name)
    encode(copy, days[:1], destination=tmp_path / "new", resources=resources)
    encode(root / "plain", days[:1], destination=tmp_path / "direct", resources=resources)
    assert content(tmp_path / "new") == content(tmp_path / "direct")
