"""What a writer of tf_raw takes and what it refuses; then nothing of the split stays."""

import dataclasses
import errno

import numpy as np
import pytest
from support.tf_raw_samples import CARDINALITIES, SPEC, assert_equal, batch_of, write

from criteo_prep.batch import Batch, Ids
from criteo_prep.feature_spec import Chunk, Feature, FeatureSpecError, tf_raw_spec
from criteo_prep.transcribe.tf_raw import Reader, Writer


def changed(**parts):
    return dataclasses.replace(batch_of(3), **parts)


@pytest.mark.parametrize(
    "bad, reason",
    [
        (changed(label=None), "train: row 4: the source has no 'label', which the spec asks for"),
        (changed(numerical=None), "train: row 4: the source has no 'numerical'"),
        (changed(categorical={}), "train: row 4: the source has no 'cat_0'"),
        (changed(numerical=np.zeros((3, 4), np.float16)), r"row 4: 'numerical' has shape \(3, 4\), expected \(3, 3\)"),
        (changed(numerical=np.zeros((2, 3), np.float16)), r"row 4: 'numerical' has shape \(2, 3\), expected \(3, 3\)"),
        (changed(numerical=np.array([[0, 0, 0], [0, 7e4, 0], [0, 0, 0]])), "row 5: 'num_1' is 70000.0, but float16"),
        (changed(label=np.array([1, 0, 2], np.int8)), "train: row 6: 2, but a label is 0 or 1"),
        (batch_of(3, first_ids=(0, 126)), "cat_0.bin: row 5: id 126 of 'cat_0' is not below its cardinality 126"),
        (batch_of(3, first_ids=(-1,)), "cat_0.bin: row 4: id -1 of 'cat_0'"),
        (
            changed(categorical={name: Ids(np.zeros(3, int), np.array([2, 0, 1])) for name in CARDINALITIES}),
            "row 4: 2, but 'cat_0' has 1 id a sample. Declare it ragged",
        ),
    ],
)
def test_a_batch_that_does_not_fit(tmp_path, bad, reason):
    with pytest.raises(FeatureSpecError, match=reason):
        write(tmp_path, batch_of(4), bad)
    assert list((tmp_path / "train").iterdir()) == []


def test_other_number_types_and_strides_are_taken(tmp_path):
    whole = batch_of(6)
    loose = Batch(
        np.repeat(whole.label, 2)[::2].astype(np.int8),
        np.asfortranarray(whole.numerical.astype(np.float64)),
        {
            name: Ids(np.repeat(ids.values, 2)[::2].astype(np.uint32), np.ones(6, int))
            for name, ids in whole.categorical.items()
        },
    )
    strided = Batch(np.repeat(whole.label, 2)[::2], whole.numerical, whole.categorical)
    write(tmp_path, loose, strided)
    with Reader(tmp_path, SPEC, split="train") as reader:
        assert_equal(reader.read(0, 6), whole)
        assert_equal(reader.read(6, 12), whole)


def test_any_exception_in_the_block_removes_the_files(tmp_path):
    with pytest.raises(KeyboardInterrupt), Writer(tmp_path, SPEC, "train") as writer:
        writer.write(batch_of(4))
        raise KeyboardInterrupt
    assert list((tmp_path / "train").iterdir()) == []


def test_a_disk_that_is_full_when_the_files_are_closed(tmp_path, monkeypatch):
    writer = Writer(tmp_path, SPEC, "train")

    class Full:
        def __init__(self, file):
            self.write, self._close = file.write, file.close

        def close(self):
            self._close()
            raise OSError(errno.ENOSPC, "No space left on device")

    writer._files["train/cat_2.bin"] = Full(writer._files["train/cat_2.bin"])
    with pytest.raises(OSError, match="No space left"), writer:
        writer.write(batch_of(4))
    assert list((tmp_path / "train").iterdir()) == []


def test_specs_that_cannot_be_written(tmp_path):
    with pytest.raises(FeatureSpecError, match=r"names no files of the split 'validation'; it has \['train', 'test'\]"):
        Writer(tmp_path, SPEC, "validation")
    clash = tf_raw_spec([Feature("numerical", "", 5)])
    with pytest.raises(FeatureSpecError, match="train/numerical.bin: two chunks name this file"):
        Writer(tmp_path, clash, "train")
    csv = tf_raw_spec([Feature("a", "", 5)])
    csv.sources["test"] = (Chunk(tuple(csv.features), ("test.csv",), "csv"),)
    with pytest.raises(FeatureSpecError, match="test.csv: is of type 'csv', but tf_raw has split_binary files"):
        Writer(tmp_path, csv, "train")
    with pytest.raises(FeatureSpecError, match="leads out of the dataset folder"):
        Writer(tmp_path, tf_raw_spec([Feature("../../x", "", 5)]), "train")
    assert list(tmp_path.iterdir()) == []
