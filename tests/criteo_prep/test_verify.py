"""A dataset of any layout against its spec and its checksums: any changed byte is found."""

import json
import random
import shutil

import numpy as np
import pytest
import yaml
from support.layout_samples import ONE_HOT, RAGGED, to_layout, write_tf_raw

from criteo_prep import cli
from criteo_prep.feature_spec import FeatureSpecError, tf_raw_spec
from criteo_prep.preprocess.request import Resources
from criteo_prep.preprocess.rules import make_rules
from criteo_prep.preprocess.run import preprocess
from criteo_prep.synthesize import Synthesis, synthesize
from criteo_prep.verify import verify


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("verify")
    source = random.Random(1)
    rows = ["\t".join([str(source.randrange(2)), *[str(source.randrange(99))] * 13,
                       *[f"{source.randrange(9):x}" for _ in range(26)]]) for _ in range(60)]  # fmt: skip
    (folder / "rows.tsv").write_text("\n".join(rows))
    preprocess(
        [folder / "rows.tsv"], folder / "set", rules=make_rules(2), keep_raw=True, resources=Resources(quiet=True)
    )
    return folder / "set"


@pytest.fixture
def dataset(made, tmp_path):
    return shutil.copytree(made, tmp_path / "set")


def problems(root):
    return [f"{check.subject}: {check.found}" for check in verify(root, 2, quiet=True).checks if not check.good]


def test_a_good_dataset(dataset, capsys):
    assert problems(dataset) == []
    assert cli.main(["verify", str(dataset)]) == 0
    out = capsys.readouterr().out
    assert "split train" in out and "54 samples" in out and out.rstrip().endswith("set: good")
    size = sum(entry["bytes"] for entry in json.loads((dataset / "manifest.json").read_text())["files"].values())
    assert 10**4 < size < 10**6 and f"{size / 1000:.2f} kB" in out


def test_any_changed_byte_of_any_file_is_found(dataset):
    source = random.Random(2)
    files = sorted(path for path in dataset.rglob("*") if path.is_file())
    assert len(files) == 2 * 28 + 26 + 2 + 52
    for path in files:
        whole = path.read_bytes()
        if not whole or (path.suffix != ".json" and source.random() < 0.6):
            continue  # a sample of the files: a minute for all
        for place in {source.choice([0, len(whole) - 1, source.randrange(len(whole))])}:
            changed = bytearray(whole)
            changed[place] ^= 1 << source.randrange(8)
            path.write_bytes(changed)
            try:
                assert problems(dataset), f"{path.name}, byte {place}"
            except FeatureSpecError:
                assert path.name == "feature_spec.yaml"
        path.write_bytes(whole)
    assert problems(dataset) == []


def test_every_byte_of_the_manifest(dataset):
    path = dataset / "manifest.json"
    whole = path.read_bytes()
    for place in range(0, len(whole), 997):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        assert problems(dataset), place


def test_every_problem_is_reported(dataset):
    ids = np.fromfile(dataset / "train" / "cat_4.bin", np.int8)
    ids[7] = 100
    ids.tofile(dataset / "train" / "cat_4.bin")
    (dataset / "train" / "label.bin").write_bytes(b"\2" + (dataset / "train" / "label.bin").read_bytes()[1:])
    numerical = np.fromfile(dataset / "test" / "numerical.bin", np.float16)
    numerical[5] = np.inf
    numerical.tofile(dataset / "test" / "numerical.bin")
    (dataset / "vocabularies" / "cat_9.parquet").unlink()
    (dataset / "notes.txt").write_text("mine")
    found = "\n".join(problems(dataset))
    assert "train/cat_4.bin: byte 7: 100, but ids must be below the cardinality" in found
    assert "train/cat_4.bin: bytes 0 to 53 do not fit their checksum" in found
    assert "train/label.bin: byte 0: 2, but a label is 0 or 1" in found
    assert "test/numerical.bin: byte 10: inf, but numericals must be finite" in found
    assert "vocabularies/cat_9.parquet: there is no such file" in found
    assert "notes.txt: has no checksum in this dataset; somebody added it" in found
    assert cli.main(["verify", str(dataset), "--quiet"]) == 1


def test_a_truncated_file(dataset):
    path = dataset / "test" / "cat_0.bin"
    path.write_bytes(path.read_bytes()[:-1])
    assert any("split test" in line for line in problems(dataset))


def test_a_dataset_without_checksums_is_checked_for_the_rest(dataset, capsys):
    (dataset / "manifest.json").unlink()
    assert cli.main(["verify", str(dataset), "--quiet"]) == 0
    cli.main(["verify", str(dataset)])
    assert "the dataset has none; a changed byte that is still in range is not found" in capsys.readouterr().out
    (dataset / "train" / "label.bin").write_bytes(b"\7" * 54)
    assert problems(dataset) == ["train/label.bin: byte 0: 7, but a label is 0 or 1"]


def test_a_synthetic_dataset_has_checksums_of_whole_files(tmp_path):
    synthesize(Synthesis("criteo_t15_synthetic", 50, scale=0.001), tmp_path / "set", quiet=True)
    assert problems(tmp_path / "set") == []
    path = tmp_path / "set" / "train" / "label.bin"
    path.write_bytes(bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:])
    (found,) = problems(tmp_path / "set")
    assert found.startswith("train/label.bin: its crc32 is ")


def test_no_spec_is_an_error(tmp_path, capsys):
    assert cli.main(["verify", str(tmp_path)]) == 1
    assert "feature_spec.yaml" in capsys.readouterr().err


def test_a_manifest_of_another_type(dataset):
    (dataset / "manifest.json").write_text(json.dumps([1]))
    assert any("is not a manifest" in line for line in problems(dataset))


def test_a_manifest_without_its_own_checksum(dataset):
    document = json.loads((dataset / "manifest.json").read_text())
    del document["checksum"]
    (dataset / "manifest.json").write_text(json.dumps(document))
    (found,) = problems(dataset)
    assert "manifest.json: is damaged: it has no checksum of its own" in found


# Other layouts.


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    return write_tf_raw(tmp_path_factory.mktemp("raw") / "set", ONE_HOT[:2])


@pytest.fixture(params=["tf_raw", "record_binary", "criteo_npy", "split_tfrecords", "parquet", "csv"])
def transcribed(request, raw, tmp_path):
    return to_layout(raw, "tf_raw", tmp_path / "set", request.param)


def data_file(root):
    """The largest file of samples in the train split."""
    files = [path for path in root.rglob("*") if path.suffix not in (".yaml", ".json") and path.is_file()]
    return max((path for path in files if "train" in str(path.relative_to(root))), key=lambda path: path.stat().st_size)


def test_a_good_dataset_of_any_layout(transcribed, capsys):
    report = verify(transcribed, 2, quiet=True)
    assert report.good, report.text()
    lines = {check.subject: check for check in report.checks}
    assert lines["split train"].found == "23 samples" and lines["split validation"].found == "5 samples"
    assert "ids, labels and numericals in range" in lines or lines["samples whole and in range"].found.startswith(
        "3 sp"
    )
    assert not lines["feature_spec.yaml"].checked  # nothing says what its bytes must be
    assert report.text().endswith("set: good; not checked: 1, see the note")


def test_damage_in_any_layout_is_found(transcribed):
    path = data_file(transcribed)
    whole = path.read_bytes()
    for place in (0, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert any("crc32" in line for line in problems(transcribed)), place
        if not (transcribed / "train" / "label.bin").exists():  # not tf_raw
            notes = [
                check.found for check in verify(transcribed, 1, quiet=True).checks if check.subject == "split train"
            ]
            assert notes == ["a file is damaged, so its samples were not looked at"]
    path.write_bytes(whole[:-3])
    assert any(f"has {len(whole) - 3} bytes, not {len(whole)}" in line for line in problems(transcribed))
    path.write_bytes(whole)
    (transcribed / "train.bak").write_bytes(b"")
    assert problems(transcribed) == ["train.bak: has no checksum in this dataset; somebody added it"]


def change_spec(root, change):
    document = yaml.safe_load((root / "feature_spec.yaml").read_text())
    change(document)
    (root / "feature_spec.yaml").write_text(yaml.safe_dump(document))


def test_ids_of_any_layout_are_checked_where_there_are_no_checksums(transcribed):
    change_spec(transcribed, lambda document: document["metadata"].clear())
    assert problems(transcribed) == []
    change_spec(transcribed, lambda document: document["feature_spec"]["item"].update(cardinality=299))
    (found, *_) = problems(transcribed)
    assert "299" in found and ("item" in found or "cat_1" in found)


def test_a_split_of_an_unknown_type_is_not_called_good(transcribed):
    def change(document):
        document["metadata"].pop("files")
        for chunk in document["source_spec"]["test"]:
            chunk["type"] = "avro"

    change_spec(transcribed, change)
    if (transcribed / "test" / "length.json").exists():  # the folders of split_tfrecords, not its spec, name the files
        assert problems(transcribed) == []
        return
    notes = [f"{check.subject}: {check.found}" for check in verify(transcribed, quiet=True).checks if not check.checked]
    assert "split test: no reader reads the type of its files, so its samples were not looked at" in notes


def test_another_number_of_samples_than_were_written(transcribed):
    change_spec(transcribed, lambda document: document["metadata"]["splits"]["test"].update(num_samples=8))
    assert problems(transcribed) == ["split test: 7 samples, but 8 were written"]


def test_a_spec_without_files_says_that_nothing_was_looked_at(tmp_path):
    change = tf_raw_spec(ONE_HOT, splits=())
    change.save(tmp_path / "feature_spec.yaml")
    assert "names no files, so no sample was looked at" in verify(tmp_path, quiet=True).text()


def test_row_offsets_must_not_fall(tmp_path):
    root = write_tf_raw(tmp_path / "set", RAGGED, {"train": 40})
    path = root / "train" / "tags_offsets.bin"
    offsets = np.fromfile(path, np.int64)
    offsets[20] = offsets[-1] + 1
    offsets.tofile(path)
    assert problems(root) == [f"train/tags_offsets.bin: byte 168: {offsets[21]}, but row offsets must not fall"]
    offsets[20], offsets[0] = offsets[19], 1
    offsets[1:] = np.maximum(offsets[1:], 1)
    offsets.tofile(path)
    assert problems(root) == ["train/tags_offsets.bin: byte 0: 1, but the first row offset must be 0"]
