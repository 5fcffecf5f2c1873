"""TFRecords without TensorFlow, checked against TensorFlow's own bytes and reader."""

import json
import struct

import numpy as np
import pytest
from support.layout_samples import FIXED, ONE_HOT, RAGGED, drop_checksums, files_of, samples, to_layout, write_tf_raw

from criteo_prep.transcribe import split_tfrecords
from criteo_prep.transcribe.layout_spec import LayoutError
from criteo_prep.transcribe.tensor_proto import ProtoError, example, parse_ragged, parse_tensor, ragged_tensor, tensor
from criteo_prep.transcribe.tfrecord import crc32c, masked_crc32c, records, write_record


def test_the_checksum_by_hand():
    assert crc32c(b"") == 0
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(bytes(32)) == 0x8A9136AA  # RFC 3720, B.4
    assert crc32c(bytes(range(32))) == 0x46DD794E


def test_what_tensorflow_writes(tmp_path):
    tf = pytest.importorskip("tensorflow")
    for array in (np.arange(6, dtype=np.float16).reshape(3, 2), np.array([[1], [-2]], np.int8),
                  np.arange(200, dtype=np.int32), np.zeros((0, 3), np.int32), np.array([2**40], np.int64)):  # fmt: skip
        expected = tf.io.serialize_tensor(array).numpy()
        assert tensor(array) == expected
        np.testing.assert_array_equal(parse_tensor(memoryview(expected)), array)
    values, row_splits = np.arange(300, dtype=np.int32), np.array([0, 5, 5, 300], np.int32)
    parts = tf.stack([tf.io.serialize_tensor(values), tf.io.serialize_tensor(row_splits)])
    expected = tf.io.serialize_tensor(parts).numpy()
    assert ragged_tensor(values, row_splits) == expected
    feature = tf.train.Feature(bytes_list=tf.train.BytesList(value=[expected]))
    message = tf.train.Example(features=tf.train.Features(feature={"data": feature})).SerializeToString()
    assert example("data", expected) == message
    with tf.io.TFRecordWriter(str(tmp_path / "theirs")) as file:
        file.write(message)
        file.write(b"x" * 1000)
    with open(tmp_path / "ours", "wb") as file:
        write_record(file, message)
        write_record(file, b"x" * 1000)
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()
    assert [data for _, data in records(tmp_path / "theirs")] == [message, b"x" * 1000]


@pytest.mark.parametrize("features", [ONE_HOT, FIXED, RAGGED])
def test_tensorflow_reads_a_dataset(tmp_path, features):
    tf = pytest.importorskip("tensorflow")
    folder = to_layout(
        write_tf_raw(tmp_path / "raw", features, {"train": 20}), "tf_raw", tmp_path / "a", "split_tfrecords"
    )
    expected = samples(features, 20)
    assert json.loads((folder / "train/length.json").read_text()) == 4  # of 6, 6, 6 and 2 samples

    def read(name, dtype, ragged=False):
        content = {"data": tf.io.FixedLenFeature([], tf.string)}
        parts = []
        for record in tf.data.TFRecordDataset(str(folder / "train" / name / "data_0.tfrecords")):
            data = tf.io.parse_single_example(record, content)["data"]
            if ragged:
                pair = tf.io.parse_tensor(data, tf.string)
                ids = tf.RaggedTensor.from_row_splits(*(tf.io.parse_tensor(pair[i], tf.int32) for i in range(2)))
                parts += ids.to_list()
            else:
                parts += tf.io.parse_tensor(data, dtype).numpy().tolist()
        return parts

    assert read("label", tf.int8) == [[int(label)] for label in expected.label]
    assert read("numerical", tf.float16) == expected.numerical.tolist()
    for i, feature in enumerate(features):
        ids = expected.categorical[feature.name]
        document = json.loads((folder / f"train/categorical_{i}/format.json").read_text())
        assert document == {"format": "tfrecords", "dtype": "int32", "multihot": ids.row_lengths is not None,
                            "feature_name": "data", "num_features": 1, "batches_per_file": 4}  # fmt: skip
        lists = [ids.part(k, k + 1).values.tolist() for k in range(20)]
        assert read(f"categorical_{i}", tf.int32, ids.row_lengths is not None) == lists


def test_the_source_spec_of_another_layout_does_not_matter(tmp_path):
    raw = write_tf_raw(tmp_path / "raw")
    folder = to_layout(raw, "tf_raw", tmp_path / "a", "split_tfrecords")
    (folder / "feature_spec.yaml").write_text((raw / "feature_spec.yaml").read_text())
    assert files_of(to_layout(folder, "split_tfrecords", tmp_path / "b", "tf_raw")) == files_of(raw)


def test_several_files_are_read_in_natural_order(tmp_path):
    """data_10 after data_9, which an unsorted or alphabetical glob gets wrong."""
    raw = write_tf_raw(tmp_path / "raw", splits={"train": 23})
    folder = to_layout(raw, "tf_raw", tmp_path / "a", "split_tfrecords", dst_prebatch_size=2)
    for path in (folder / "train").glob("*/data_0.tfrecords"):
        for i, (_, data) in enumerate(list(records(path))):
            with open(path.with_name(f"data_{i}.tfrecords"), "wb") as file:
                write_record(file, data)
    drop_checksums(folder)
    assert len(list((folder / "train/label").iterdir())) == 13
    assert files_of(to_layout(folder, "split_tfrecords", tmp_path / "b", "tf_raw")) == files_of(raw)


def broken_crc(folder):
    path = folder / "train/categorical_1/data_0.tfrecords"
    content = bytearray(path.read_bytes())
    content[-6] ^= 1
    path.write_bytes(content)


def absurd_length(folder):
    path = folder / "train/label/data_0.tfrecords"
    path.write_bytes(b"\xff" * 8 + path.read_bytes()[8:])


def truncated(folder):
    path = folder / "train/numerical/data_0.tfrecords"
    path.write_bytes(path.read_bytes()[:-20])


def one_record_less(folder):
    path = folder / "train/categorical_0/data_0.tfrecords"
    last = list(records(path))[-1][0]
    path.write_bytes(path.read_bytes()[:last])


def one_record_more(folder):
    path = folder / "train/categorical_0/data_0.tfrecords"
    path.write_bytes(path.read_bytes() * 2)


@pytest.mark.parametrize("damage, reason", [
    (broken_crc, r"categorical_1/data_0.tfrecords: the record at byte \d+ has a broken crc of its data"),
    (absurd_length, "label/data_0.tfrecords: the record at byte 0 has a broken crc of its length"),
    (truncated, r"numerical/data_0.tfrecords: the record at byte \d+ has \d+ bytes, but the file ends at"),
    (one_record_less, "categorical_0: ends after 3 records, the label has 4. It is truncated"),
    (one_record_more, "categorical_0: has more than the 4 records of the label"),
    (lambda folder: (folder / "train/length.json").write_text("7"), "length.json: says 7 records, but the label has 4"),
    (lambda folder: (folder / "test/length.json").unlink(), "test: has records, but no file length.json"),
    (lambda folder: (folder / "train/length.json").write_text("{"), "length.json: is not JSON"),
    (lambda folder: (folder / "train/label/format.json").write_text("[]"), "label/format.json: has no 'format'"),
    (lambda folder: (folder / "train/categorical_2/data_0.tfrecords").unlink(), "categorical_2: has no data_"),
])  # fmt: skip
def test_damage_is_named(tmp_path, damage, reason):
    folder = to_layout(write_tf_raw(tmp_path / "raw"), "tf_raw", tmp_path / "a", "split_tfrecords")
    drop_checksums(folder)
    damage(folder)
    with pytest.raises(LayoutError, match=reason):
        to_layout(folder, "split_tfrecords", tmp_path / "b", "tf_raw")
    assert not (tmp_path / "b").exists()


def test_a_length_with_a_good_crc_is_not_believed_beyond_the_file(tmp_path):
    length = struct.pack("<Q", 1 << 50)
    (tmp_path / "x").write_bytes(length + struct.pack("<I", masked_crc32c(length)) + b"abcd")
    with pytest.raises(LayoutError, match="byte 0 has 1125899906842624 bytes, but the file ends at 16"):
        list(records(tmp_path / "x"))


@pytest.mark.parametrize("data, reason", [
    (b"\x08\x03\x12\x04\x12\x02\x08\x05\x22\x04abcd", "shape .5. of int32, but 4 bytes of content"),
    (b"\x08\x02", "a tensor of type 2"), (b"\x22\x7f", "a field of 127 bytes where 0 are left"),
    (b"\x08\xff", "a number that does not end"), (b"\x0b", "wire type 3"),
])  # fmt: skip
def test_bytes_that_are_no_tensor(data, reason):
    with pytest.raises(ProtoError, match=reason):
        parse_tensor(memoryview(data))


@pytest.mark.parametrize("splits", [[0, 3], [1, 2], [0, 2, 1, 2], []])
def test_row_splits_that_do_not_fit(splits):
    data = ragged_tensor(np.array([7, 8], np.int32), np.array(splits, np.int32))
    with pytest.raises(ProtoError, match="row splits that do not rise from 0"):
        parse_ragged(memoryview(data))


def test_a_spec_that_says_otherwise(tmp_path):
    folder = to_layout(write_tf_raw(tmp_path / "raw", FIXED), "tf_raw", tmp_path / "a", "split_tfrecords")
    spec = folder / "feature_spec.yaml"
    spec.write_text(spec.read_text().replace("hotness: 3", "hotness: 1"))
    with pytest.raises(LayoutError, match="categorical_1/format.json: says multihot true, but .* 'tags' hotness 1"):
        to_layout(folder, "split_tfrecords", tmp_path / "b", "tf_raw")


def test_a_record_that_no_protocol_buffer_holds(tmp_path, monkeypatch):
    raw = write_tf_raw(tmp_path / "raw")
    monkeypatch.setattr(split_tfrecords, "_LARGEST_TENSOR", 50)
    with pytest.raises(LayoutError, match=r"train: num_0: a record of \d+ bytes; .* a smaller --dst_prebatch_size"):
        to_layout(raw, "tf_raw", tmp_path / "a", "split_tfrecords", dst_prebatch_size=20)
    assert not (tmp_path / "a").exists()
