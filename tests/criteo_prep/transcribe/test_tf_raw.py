"""tf_raw read back: bytes by hand, any pieces, several ids a sample, and files that are refused."""

import builtins
import dataclasses
import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.tf_raw_samples import CARDINALITIES, SPEC, assert_equal, batch_of, write

from criteo_prep.batch import Batch, Ids
from criteo_prep.feature_spec import Feature, FeatureSpec, FeatureSpecError, minimal_dtype, tf_raw_spec
from criteo_prep.transcribe import array_file
from criteo_prep.transcribe.tf_raw import Reader


def part_of(batch, start, stop):
    categorical = {name: Ids(ids.values[start:stop]) for name, ids in batch.categorical.items()}
    return Batch(batch.label[start:stop], batch.numerical[start:stop], categorical)


def test_the_bytes_by_hand(tmp_path):
    spec = tf_raw_spec([Feature("a", "", 100), Feature("b", "", 1000), Feature("c", "", 100_000)], num_numerical=2)
    batch = Batch(
        np.array([True, False]),
        np.array([[1.0, -2.0], [0.5, 0.0]], np.float16),
        {"a": Ids(np.array([7, 99])), "b": Ids(np.array([258, 3])), "c": Ids(np.array([65536 + 2, 1]))},
    )
    assert write(tmp_path, batch, spec=spec).num_samples == 2
    assert {path.name: path.read_bytes().hex(" ") for path in (tmp_path / "train").iterdir()} == {
        "label.bin": "01 00",
        "numerical.bin": "00 3c 00 c0 00 38 00 00",
        "a.bin": "07 63",
        "b.bin": "02 01 03 00",
        "c.bin": "02 00 01 00 01 00 00 00",
    }


def test_id_widths_follow_the_published_rule(tmp_path):
    write(tmp_path, batch_of(5))
    sizes = {name: (tmp_path / "train" / f"{name}.bin").stat().st_size // 5 for name in CARDINALITIES}
    assert sizes == {"cat_0": 1, "cat_1": 2, "cat_2": 2, "cat_3": 2, "cat_4": 4, "cat_5": 4}
    assert [minimal_dtype(cardinality) for cardinality in CARDINALITIES.values()] == [
        "int8",
        "int16",
        "int16",
        "int16",
        "int32",
        "int32",
    ]


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 40), st.integers(1, 50), st.data())
def test_round_trip_in_any_pieces(tmp_path_factory, num_samples, batch_size, data):
    root, whole = tmp_path_factory.mktemp("set"), batch_of(num_samples)
    cuts = sorted(data.draw(st.sets(st.integers(0, num_samples))) | {0, num_samples})
    pieces = [part_of(whole, start, stop) for start, stop in zip(cuts, cuts[1:], strict=False)]
    write(root, part_of(whole, 0, 0), *pieces)
    with Reader(root, SPEC, split="train") as reader:
        assert reader.num_samples == num_samples
        assert_equal(reader.read(0, num_samples), whole)
        batches = list(reader.batches(batch_size))
        assert [batch.num_samples for batch in batches[:-1]] == [batch_size] * (len(batches) - 1)
        for i, batch in enumerate(batches):
            assert_equal(batch, part_of(whole, i * batch_size, (i + 1) * batch_size))
        start = data.draw(st.integers(0, num_samples))
        stop = data.draw(st.integers(start, num_samples))
        assert_equal(reader.read(start, stop), part_of(whole, start, stop))


def test_an_empty_split(tmp_path):
    write(tmp_path)
    with Reader(tmp_path, SPEC, split="train") as reader:
        assert reader.num_samples == 0 and list(reader.batches(3)) == []


def test_renamed_and_reordered_files(tmp_path):
    spec = tf_raw_spec([Feature("cat_1.bin", "", 50), Feature("cat_0.bin", "", 60)], num_numerical=1)
    chunks = spec.sources["train"]
    renamed = [dataclasses.replace(chunk, files=(f"data/part_{i}",)) for i, chunk in enumerate(chunks)]
    spec.sources["train"] = tuple(reversed(renamed))
    batch = Batch(
        np.array([True]),
        np.ones((1, 1), np.float16),
        {"cat_1.bin": Ids(np.array([49])), "cat_0.bin": Ids(np.array([59]))},
    )
    write(tmp_path, batch, spec=spec)
    assert (tmp_path / "data" / "part_2").read_bytes() == b"\x31"
    with Reader(tmp_path, spec, split="train") as reader:
        assert_equal(reader.read(0, 1), batch)


@pytest.mark.parametrize(
    "features, opened",
    [
        (["cat_3"], ["cat_3.bin"]),
        (["cat_1", "label"], ["cat_1.bin", "label.bin"]),
        (["num_0", "num_1", "num_2"], ["numerical.bin"]),
        ([], []),
        (None, sorted(["label.bin", "numerical.bin", *(f"{name}.bin" for name in CARDINALITIES)])),
    ],
)
def test_only_the_files_that_are_asked_for_are_opened(tmp_path, monkeypatch, features, opened):
    whole = batch_of(9)
    write(tmp_path, whole)
    seen, os_open = [], os.open
    monkeypatch.setattr(array_file.os, "open", lambda path, flags: (seen.append(path.name), os_open(path, flags))[1])
    monkeypatch.setattr(builtins, "open", None)
    with Reader(tmp_path, SPEC, split="train", features=features) as reader:
        batch = reader.read(2, 5)
    assert sorted(seen) == opened
    assert (batch.label is not None) == ("label.bin" in opened)
    assert (batch.numerical is not None) == ("numerical.bin" in opened)
    assert {f"{name}.bin" for name in batch.categorical} == set(opened) - {"label.bin", "numerical.bin"}
    for name, ids in batch.categorical.items():
        np.testing.assert_array_equal(ids.values, whole.categorical[name].values[2:5])


def test_features_that_are_not_there(tmp_path):
    write(tmp_path, batch_of(3))
    with pytest.raises(FeatureSpecError, match=r"there is no feature 'cat_9'; the features are \['cat_0', "):
        Reader(tmp_path, SPEC, split="train", features=["cat_0", "cat_9"])
    with pytest.raises(FeatureSpecError, match=r"there is no split 'validation'"):
        Reader(tmp_path, SPEC, split="validation")


def test_every_byte_of_a_label_but_zero_is_true(tmp_path):
    write(tmp_path, batch_of(4))
    (tmp_path / "train" / "label.bin").write_bytes(b"\x00\x01\x02\xff")
    with Reader(tmp_path, SPEC, split="train", features=["label"]) as reader:
        assert reader.read(0, 4).label.tolist() == [False, True, True, True]


def test_a_truncated_file(tmp_path):
    write(tmp_path, batch_of(5))
    os.truncate(tmp_path / "train" / "cat_4.bin", 19)
    with pytest.raises(FeatureSpecError, match=r"cat_4.bin: 19 bytes is not a multiple of 4 .* truncated or its dtype"):
        Reader(tmp_path, SPEC, split="train")
    os.truncate(tmp_path / "train" / "cat_4.bin", 16)
    with pytest.raises(FeatureSpecError, match="cat_4.bin: holds 4 samples, but train/numerical.bin holds 5"):
        Reader(tmp_path, SPEC, split="train", features=["cat_0"])


def test_a_file_that_shrinks_under_the_reader(tmp_path):
    write(tmp_path, batch_of(5))
    with Reader(tmp_path, SPEC, split="train") as reader:
        os.truncate(tmp_path / "train" / "cat_4.bin", 14)
        reader.read(0, 3)
        with pytest.raises(FeatureSpecError, match=r"cat_4.bin: ends at byte 14, before sample 5. It shrank"):
            reader.read(2, 5)


@pytest.mark.parametrize("bad", [-1, 126, 127])
def test_an_id_out_of_range_is_named_with_its_row(tmp_path, bad):
    write(tmp_path, batch_of(10))
    content = bytearray((tmp_path / "train" / "cat_0.bin").read_bytes())
    content[7] = bad % 256
    (tmp_path / "train" / "cat_0.bin").write_bytes(content)
    with Reader(tmp_path, SPEC, split="train") as reader:
        reader.read(0, 7)
        with pytest.raises(
            FeatureSpecError,
            match=rf"cat_0.bin: row 7: id {bad} of 'cat_0' is (negative|not below its cardinality 126)",
        ):
            reader.read(5, 10)


MULTI_HOT = tf_raw_spec([Feature("a", "", 100, hotness=3), Feature("b", "", 300, ragged=True)], 0, splits=("train",))


def multi_hot(lengths=(2, 0, 1)):
    pairs = Ids(np.arange(9), np.full(3, 3, np.int32))
    return Batch(np.array([1, 0, 1]), None, {"a": pairs, "b": Ids(np.array([256, 0, 299]), np.array(lengths))})


def test_multi_hot_bytes_by_hand(tmp_path):
    write(tmp_path, multi_hot(), multi_hot(), spec=MULTI_HOT)
    assert {path.name: path.read_bytes().hex(" ") for path in (tmp_path / "train").iterdir()} == {
        "label.bin": "01 00 01 01 00 01",
        "a.bin": "00 01 02 03 04 05 06 07 08 00 01 02 03 04 05 06 07 08",
        "b.bin": "00 01 00 00 2b 01 00 01 00 00 2b 01",
        "b_offsets.bin": " ".join(f"{offset:02x}" + " 00" * 7 for offset in (0, 2, 2, 3, 5, 5, 6)),
    }
    MULTI_HOT.save(tmp_path / "feature_spec.yaml")
    spec = FeatureSpec.load(tmp_path / "feature_spec.yaml")
    assert spec.categorical == MULTI_HOT.categorical
    with Reader(tmp_path, spec, split="train") as reader:
        assert reader.num_samples == 6
        batch = reader.read(2, 5)
    assert batch.categorical["a"].values.tolist() == [6, 7, 8, 0, 1, 2, 3, 4, 5]
    assert batch.categorical["a"].row_lengths.tolist() == [3, 3, 3]
    assert batch.categorical["b"].values.tolist() == [299, 256, 0]
    assert batch.categorical["b"].row_lengths.tolist() == [1, 2, 0]


@pytest.mark.parametrize("offsets, reason", [
    ([0, 2, 1, 3], "row 2: offset 1; offsets start at 0, never decrease"),
    ([1, 2, 2, 3], "row 0: offset 1; offsets start at 0"),
    ([0, 2, 2**62, 3], "row 2: offset 4611686018427387904"),
    ([0, -(2**63), 2, 3], "row 1: offset -9223372036854775808"),
    ([0, 2, 2, 4], r"b.bin: 6 bytes, but the last offset in b_offsets.bin, 4, makes 8 bytes of int16"),
    ([0, 2, 3], "b.bin: holds 2 samples, but train/label.bin holds 3"),
    ([], "b_offsets.bin: 0 bytes is not a positive multiple of 8"),
])  # fmt: skip
def test_row_offsets_that_are_wrong(tmp_path, offsets, reason):
    write(tmp_path, multi_hot(), spec=MULTI_HOT)
    np.array(offsets, np.int64).tofile(tmp_path / "train" / "b_offsets.bin")
    with pytest.raises(FeatureSpecError, match=reason):
        Reader(tmp_path, MULTI_HOT, split="train").read(0, 3)


def test_numbers_of_ids_that_are_wrong(tmp_path):
    with pytest.raises(FeatureSpecError, match="'b' has shape .3,., expected .4,."):
        write(tmp_path, multi_hot((2, 1, 1)), spec=MULTI_HOT)
    one = dataclasses.replace(multi_hot(), categorical={**multi_hot().categorical, "a": Ids(np.arange(3))})
    with pytest.raises(FeatureSpecError, match="row 0: 1, but 'a' has 3 ids a sample. Declare it ragged if"):
        write(tmp_path, one, spec=MULTI_HOT)


@pytest.mark.parametrize("bad", [0x7E00, 0x7C00, 0xFC00])  # NaN, infinity, -infinity
def test_a_numerical_that_is_no_number_is_named_with_its_row(tmp_path, bad):
    write(tmp_path, batch_of(10))
    numerical = np.fromfile(tmp_path / "train" / "numerical.bin", np.uint16)
    numerical[7 * 3 + 2] = bad
    numerical.tofile(tmp_path / "train" / "numerical.bin")
    with Reader(tmp_path, SPEC, split="train") as reader:
        reader.read(0, 7)
        with pytest.raises(FeatureSpecError, match="numerical.bin: row 7: 'num_2' is .*, which no model"):
            reader.read(5, 10)
