"""Records with their types in a file next to them, and records that say nothing of their types."""

import json
import shutil

import numpy as np
import pytest
from support.layout_samples import drop_checksums, files_of, to_layout, write_tf_raw

from criteo_prep.feature_spec import Feature, FeatureSpec
from criteo_prep.split_bin.__main__ import main

TABLES = [Feature(f"table_{i}", "", 50 + i) for i in range(26)]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A tf_raw dataset of logarithms and, from `transcribe`, the same samples as records with a spec."""
    folder = tmp_path_factory.mktemp("made")
    raw = write_tf_raw(folder / "raw", TABLES, {"train": 40}, num_numerical=13)
    return {"raw": raw, "records": to_layout(raw, "tf_raw", folder / "records", "record_binary")}


def split_bin(*argv):
    return main([*map(str, argv), "--quiet"])


def test_records_of_transcribe_give_the_dataset_that_they_were_made_from(made, tmp_path, capsys):
    assert split_bin(made["records"] / "train.bin", tmp_path / "out", "--layout=tf_raw") == 0
    assert "feature_spec.yaml says: label int32, dense float32, ids int32, 26 tables" in capsys.readouterr().out
    expected = {name.replace("table_", "cat_"): data for name, data in files_of(made["raw"]).items()}
    assert files_of(tmp_path / "out") == expected
    spec = FeatureSpec.load(tmp_path / "out/feature_spec.yaml")
    assert [table.cardinality for table in spec.categorical] == [table.cardinality for table in TABLES]


def test_the_three_files_get_the_types_of_the_spec(made, tmp_path):
    assert split_bin(made["records"] / "train.bin", tmp_path / "out") == 0
    document = json.loads((tmp_path / "out/metadata.json").read_text())
    assert (document["dense_raw_type"], document["dense_log"]) == ("float32", False)
    assert document["vocab_sizes"] == [table.cardinality for table in TABLES]


def test_a_flag_that_contradicts_the_spec(made, tmp_path, capsys):
    assert split_bin(made["records"] / "train.bin", tmp_path / "out", "--dense_type=int32") == 1
    assert (
        "--dense_type int32: " in (heard := capsys.readouterr().err) and "feature_spec.yaml says float32 for" in heard
    )
    assert not (tmp_path / "out").exists()


def test_a_changed_byte_is_found_by_the_checksum_in_the_spec(made, tmp_path, capsys):
    records = shutil.copytree(made["records"], tmp_path / "records") / "train.bin"
    words = np.fromfile(records, np.int32)
    words[0] ^= 1  # another good label
    words.tofile(records)
    assert split_bin(records, tmp_path / "out") == 1
    assert "train.bin: is damaged: its bytes do not fit its checksum" in capsys.readouterr().err


@pytest.fixture
def alone(made, tmp_path):
    """The records without their spec."""
    return shutil.copy(made["records"] / "train.bin", tmp_path / "alone.bin")


@pytest.mark.parametrize("layout", ["split_bin", "tf_raw"])
def test_floats_that_nothing_calls_floats_are_refused(alone, tmp_path, capsys, layout):
    assert split_bin(alone, tmp_path / "out", f"--layout={layout}") == 1
    heard = capsys.readouterr().err
    assert "alone.bin: most numericals, read as int32, are beyond 2**24, such as" in heard
    assert "Give --dense_type float32, or --dense_type int32 if the numbers are right" in heard
    assert not (tmp_path / "out").exists()


def test_a_type_that_is_given_is_taken_and_doubted_aloud(alone, tmp_path, capsys):
    assert split_bin(alone, tmp_path / "floats", "--dense_type=float32") == 0
    assert "Is the dense_type right" not in capsys.readouterr().err
    assert split_bin(alone, tmp_path / "integers", "--dense_type=int32") == 0
    assert "in float32. Is the dense_type right?" in capsys.readouterr().err
    words = np.zeros((6, 40), np.int32)
    words[:, 1:14] = 1 + np.arange(13)
    words.tofile(tmp_path / "integers.bin")
    assert split_bin(tmp_path / "integers.bin", tmp_path / "more", "--dense_type=float32") == 0
    assert "such as 1.401298464324817e-45, which is 1 in int32" in capsys.readouterr().err


def test_metadata_next_to_the_records(alone, tmp_path, capsys):
    (tmp_path / "metadata.json").write_text('{"made by": "another program"}')
    assert split_bin(alone, tmp_path / "out") == 1
    document = {"vocab_sizes": [99] * 26, "dense_raw_type": "float32", "dense_log": False}
    (tmp_path / "metadata.json").write_text(json.dumps(document))
    assert split_bin(alone, tmp_path / "out") == 0
    assert "metadata.json says: label int32, dense float32" in capsys.readouterr().out
    assert json.loads((tmp_path / "out/metadata.json").read_text()).items() >= document.items()


@pytest.mark.parametrize("num_numerical, reason", [
    (2, "the records of train.bin are not label, 13 numericals and ids"),
    (13, "label 1065353216, read as int32, but a label is 0 or 1"),
])  # fmt: skip
def test_records_that_split_bin_cannot_read(tmp_path, capsys, num_numerical, reason):
    raw = write_tf_raw(tmp_path / "raw", TABLES, {"train": 9}, num_numerical)
    records = to_layout(raw, "tf_raw", tmp_path / "records", "record_binary") / "train.bin"
    if num_numerical == 13:
        drop_checksums(records.parent)
        words = np.fromfile(records, np.int32).reshape(9, -1)
        words[4, 0] = np.float32(1).view(np.int32)
        words.tofile(records)
    assert split_bin(records, tmp_path / "out") == 1
    assert reason in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_spec_of_records_with_the_wrong_dtype_is_doubted_aloud(made, tmp_path, capsys):
    """`transcribe` reads what a spec says; the spec may have been written by hand for another program's records."""
    from criteo_prep.transcribe.__main__ import main as transcribe

    records = shutil.copytree(made["records"], tmp_path / "records")
    spec = records / "feature_spec.yaml"
    spec.write_text(spec.read_text().replace("float32", "int32"))
    assert transcribe(["--src_dataset_type=record_binary", f"--src_dataset_path={records}", "--dst_dataset_type=csv",
                       f"--dst_dataset_path={tmp_path / 'out'}"]) == 0  # fmt: skip
    heard = capsys.readouterr().err
    assert "train.bin: most numericals, read as int32, are beyond 2**24" in heard and "Is the dtype in" in heard
