"""csv by hand: any order of columns, files side by side, and rows that are refused."""

import pytest
from support.layout_samples import files_of, to_layout, write_tf_raw

from criteo_prep.feature_spec import Chunk, Feature, FeatureSpec, FeatureSpecError
from criteo_prep.transcribe import csv
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
])  # fmt: skip
def test_rows_that_are_refused(tmp_path, left, right, reason):
    write(tmp_path / "a", left, right)
    with pytest.raises((LayoutError, FeatureSpecError), match=reason):
        to_layout(tmp_path / "a", "csv", tmp_path / "out", "tf_raw")
    assert not (tmp_path / "out").exists()


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
    monkeypatch.setattr(csv, "_BLOCK_BYTES", 4000)
    left = LEFT.splitlines(keepends=True)[:1] * 2000
    left[row] = "7,0,half\n"
    write(tmp_path / "a", "".join(left), "30,299\n" * 2000)
    with pytest.raises(LayoutError, match=f"left.csv: row {row}: 'price' is 'half', which is not float"):
        to_layout(tmp_path / "a", "csv", tmp_path / "out", "tf_raw")


def test_auto_is_for_sources_only(tmp_path):
    write(tmp_path / "a")
    with pytest.raises(FeatureSpecError, match="item: cardinality auto is for the source of a transcription"):
        FeatureSpec.load(tmp_path / "a/feature_spec.yaml")
