"""csv by hand: any order of columns, files side by side, and rows that are refused."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.layout_samples import files_of, to_layout, write_tf_raw

from criteo_prep.feature_spec import Chunk, Feature, FeatureSpec, FeatureSpecError
from criteo_prep.transcribe import csv_text
from criteo_prep.transcribe.csv import Reader
from criteo_prep.transcribe.layout_spec import LayoutError
from criteo_prep.transcribe.request import Request
from criteo_prep.transcribe.run import transcribe_dataset

FEATURES = {"store": Feature("store", "int8", 9), "item": Feature("item", "int32", "auto"),
            "price": Feature("price", "float16"), "age": Feature("age", "float32"),
            "bought": Feature("bought", "bool")}  # fmt: skip
CHANNELS = {"categorical": ("store", "item"), "numerical": ("price", "age"), "label": ("bought",)}
LEFT, RIGHT = "7,0,0.5\n8,1,-1\n0,1,2e-3\n", "30,299\r\n31.5,0\r\n32,7"


def write(folder, left=LEFT, right=RIGHT):
    """Two files side by side, of which the second has Windows' line ends and no last one."""
    folder.mkdir(exist_ok=True)
    chunks = (Chunk(("store", "bought", "price"), ("left.csv",), "csv"), Chunk(("age", "item"), ("right.csv",), "csv"))
    spec = FeatureSpec(FEATURES, CHANNELS, sources={"train": chunks}, metadata={}, root=folder)
    (folder / "left.csv").write_bytes(left.encode())
    (folder / "right.csv").write_bytes(right.encode())
    text = (
        "feature_spec:\n"
        + "".join(
            f"  {f.name}: {{dtype: {f.dtype}{f', cardinality: {f.cardinality}' if f.cardinality else ''}}}\n"
            for f in FEATURES.values()
        )
        + f"channel_spec: { ({k: list(v) for k, v in CHANNELS.items()}) }\n"
    )
    chunks = [{"type": c.type, "features": list(c.features), "files": list(c.files)} for c in chunks]
    (folder / "feature_spec.yaml").write_text(text + f"source_spec: {{train: {chunks}}}\nmetadata: {{}}\n")
    return spec


def test_columns_in_any_order_and_files_side_by_side(tmp_path):
    write(tmp_path / "a")
    spec = FeatureSpec.load(tmp_path / "a/feature_spec.yaml", auto=True)
    spec.features["item"] = Feature("item", "int32", 300)
    with Reader(tmp_path / "a", spec, "train") as reader:
        assert reader.num_samples == 3
        (batch,) = reader.batches(10)
    assert batch.label.tolist() == [False, True, True]
    assert batch.numerical.tolist() == [[0.5, 30], [-1, 31.5], [pytest.approx(2e-3), 32]]
    assert batch.categorical["store"].values.tolist() == [7, 8, 0]
    assert batch.categorical["item"].values.tolist() == [299, 0, 7]


def test_a_cardinality_that_is_to_be_found_is_said_aloud(tmp_path):
    write(tmp_path / "a")
    heard = []
    request = Request(tmp_path / "a", "csv", dst_dataset_path=tmp_path / "out", dst_dataset_type="tf_raw")
    transcribe_dataset(request, quiet=True, warn=heard.append)
    assert heard[::2] == ["cardinalities found (largest id + 1): item 300.",
                          "train: 1 numericals were rounded to float16."]  # fmt: skip
    assert "right.csv: row 2, the last one, has no line end. It is read as it is" in heard[1]
    assert FeatureSpec.load(tmp_path / "out/feature_spec.yaml").features["item"] == Feature("item", "int16", 300)


def test_the_text_by_hand(tmp_path):
    raw = write_tf_raw(tmp_path / "raw", splits={"train": 2})
    (raw / "train/numerical.bin").write_bytes(bytes.fromhex("003c 00c0 662e 0080".replace(" ", "")))
    (raw / "train/label.bin").write_bytes(b"\1\0")
    folder = to_layout(raw, "tf_raw", tmp_path / "a", "csv")
    assert (folder / "train.csv").read_text() == "1,1,-2,0,0,0\n0,0.099975586,-0,89,299,2147483645\n"
    assert files_of(to_layout(folder, "csv", tmp_path / "b", "tf_raw")) == files_of(raw)


@pytest.mark.parametrize("left, right, reason", [
    (LEFT, RIGHT + "\n1,1", "right.csv: has 4 lines, but left.csv has 3"),
    (LEFT.replace("8,1", "9,1"), RIGHT, "left.csv: row 1: id 9 of 'store' is not below its cardinality 9"),
    (LEFT.replace("8,1", "-1,1"), RIGHT, "left.csv: row 1: id -1 of 'store'"),
    (LEFT.replace("8,1", "8,2"), RIGHT, "left.csv: row 1: 2, but a label is 0 or 1"),
    (LEFT.replace("8,1", "x,1"), RIGHT, "left.csv: row 1: 'store' is 'x', which is not int64"),
    (LEFT.replace("8,1", ",1"), RIGHT, "left.csv: row 1: 'store' is '', which is not int64"),
    (LEFT.replace("-1", "nan"), RIGHT, "left.csv: row 1: 'price' is nan"),
    (LEFT.replace("8,1,", "8,1,1,"), RIGHT, "left.csv: row 1: has 4 columns, the feature spec names 3. Correct"),
    (LEFT.replace("8,1,-1\n", "\n"), RIGHT, "left.csv: row 1: has 1 columns, the feature spec names 3"),
    (LEFT, RIGHT.replace("31.5", "caf\u00e9"), "right.csv: row 1: 'age' is 'caf\u00e9', which is not float"),
    (LEFT.replace("8,1", "0x8,1"), RIGHT, "left.csv: row 1: 'store' is '0x8', which is not int64"),
    (LEFT.replace("8,1", " 8,1"), RIGHT, "left.csv: row 1: 'store' is ' 8', which is not int64"),
    (LEFT.replace("2e-3", "2e-3\t"), RIGHT, r"left.csv: row 2: 'price' is '2e-3\\t', which is not float"),
    (LEFT.replace("8,1", "+8,1"), RIGHT, r"left.csv: row 1: 'store' is '\+8', which is not int64"),
    (LEFT.replace("8,1", f"{'0' * 5000}{'1' * 20},1"), RIGHT, "row 1: 'store' is '0+', which int64 cannot hold"),
    ("\ufeff" + LEFT, RIGHT, "left.csv: row 0: begins with a byte order mark. Save the file as UTF-8"),
    (LEFT.replace("2e-3", "1e-400"), RIGHT, "left.csv: row 2: 'price' is '1e-400', which is too small for float"),
    (LEFT.replace("2e-3", f".{'0' * 60}1"), RIGHT, r"left.csv: row 2: 'price' is '\.0+', which is too small for float"),
    (LEFT.replace("2e-3", "-4e39"), RIGHT, "left.csv: row 2: 'price' is '-4e39', which is too large for float"),
    (LEFT.replace("\n", "\r"), RIGHT, "left.csv: row 0: has a carriage return without a line feed. Save"),
    (LEFT, RIGHT.replace("0\r\n32", "0\r32"), "right.csv: row 1: has a carriage return without a line feed"),
    (LEFT, RIGHT + "\r", "right.csv: row 2: has a carriage return without a line feed"),
])  # fmt: skip
def test_rows_that_are_refused(tmp_path, left, right, reason):
    write(tmp_path / "a", left, right)
    with pytest.raises((LayoutError, FeatureSpecError), match=reason):
        to_layout(tmp_path / "a", "csv", tmp_path / "out", "tf_raw")
    assert not (tmp_path / "out").exists()


def test_numbers_of_any_length_and_exponent_that_their_type_holds(tmp_path):
    tiny = f"0.{'0' * 37}1"
    write(tmp_path / "a", LEFT.replace("-1", "-3e38").replace("2e-3", "1e-38"), RIGHT.replace("31.5", tiny))
    spec = FeatureSpec.load(tmp_path / "a/feature_spec.yaml", auto=True)
    spec.features["item"] = Feature("item", "int32", 300)
    with Reader(tmp_path / "a", spec, "train") as reader:
        (batch,) = reader.batches(10)
    assert batch.numerical.tolist() == np.array([[0.5, 30], [-3e38, 1e-38], [1e-38, 32]], np.float32).tolist()


def test_a_line_without_end_is_refused_before_it_is_in_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(csv_text, "_BLOCK_BYTES", 1000)
    write(tmp_path / "a", LEFT + "1" * 50_000, RIGHT + "\n0,0")
    with pytest.raises(LayoutError, match="left.csv: row 3: has more than 1000 bytes without a line feed"):
        to_layout(tmp_path / "a", "csv", tmp_path / "out", "tf_raw")


@given(lines=st.lists(st.text("0123,", max_size=12), max_size=30), block_bytes=st.integers(13, 60), ends=st.booleans())
@settings(deadline=None)
def test_blocks_are_the_file_in_whole_lines(tmp_path_factory, lines, block_bytes, ends):
    path = tmp_path_factory.mktemp("blocks") / "x.csv"
    content = "\n".join(lines) + "\n" * ends
    path.write_text(content)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(csv_text, "_BLOCK_BYTES", block_bytes)
        blocks = list(csv_text.text_blocks(path))
    assert b"".join(block.text for block in blocks).decode() == content
    assert all(block.text.endswith(b"\n") for block in blocks[:-1])
    rows = [0, *np.cumsum([block.text.count(b"\n") for block in blocks])]
    assert [block.first_row for block in blocks] == rows[: len(blocks)]
    assert csv_text.count_lines(path) == (len(content.splitlines()), content[-1:] in ("\n", ""))


def test_a_file_of_ours_that_was_cut_within_its_last_number(tmp_path):
    folder = to_layout(write_tf_raw(tmp_path / "raw"), "tf_raw", tmp_path / "a", "csv")
    text = (folder / "train.csv").read_bytes()
    (folder / "train.csv").write_bytes(text[:-2])
    with pytest.raises(LayoutError, match=rf"train.csv: has {len(text) - 2} bytes, but {len(text)} were written, says"):
        to_layout(folder, "csv", tmp_path / "out", "tf_raw")
    spec = (folder / "feature_spec.yaml").read_text()
    (folder / "feature_spec.yaml").write_text(spec.partition("metadata:")[0] + "metadata: {files: [1], splits: x}\n")
    heard = []
    request = Request(folder, "csv", dst_dataset_path=tmp_path / "out", dst_dataset_type="tf_raw")
    transcribe_dataset(request, quiet=True, warn=heard.append)
    assert [message.partition("csv: ")[2].partition(" It")[0] for message in heard] == [
        "row 22, the last one, has no line end."
    ]


@pytest.mark.parametrize("row", [0, 1, 777, 1999])
def test_a_bad_row_is_found_among_many(tmp_path, monkeypatch, row):
    monkeypatch.setattr(csv_text, "_BLOCK_BYTES", 4000)
    left = LEFT.splitlines(keepends=True)[:1] * 2000
    left[row] = "7,0,half\n"
    write(tmp_path / "a", "".join(left), "30,299\n" * 2000)
    with pytest.raises(LayoutError, match=f"left.csv: row {row}: 'price' is 'half', which is not float"):
        to_layout(tmp_path / "a", "csv", tmp_path / "out", "tf_raw")


def test_auto_is_for_sources_only(tmp_path):
    write(tmp_path / "a")
    with pytest.raises(FeatureSpecError, match="item: cardinality auto is for the source of a transcription"):
        FeatureSpec.load(tmp_path / "a/feature_spec.yaml")
