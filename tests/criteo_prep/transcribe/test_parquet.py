"""parquet against pyarrow's own tables, and what is refused."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.layout_samples import RAGGED, samples, to_layout, write_tf_raw

from criteo_prep.feature_spec import Chunk, Feature, FeatureSpec, FeatureSpecError
from criteo_prep.transcribe import parquet
from criteo_prep.transcribe.layout_spec import LayoutError
from criteo_prep.transcribe.parquet import Reader

COLUMNS = {
    "tags": pa.array([[1, 2], [], [8], [3, 3, 3]], pa.large_list(pa.int64())),
    "other": pa.array(["left", "alone", "by", "us"]),
    "bought": pa.array([1.0, 0.0, 0.0, 1.0], pa.float32()),
    "pair": pa.array([[0, 1], [2, 3], [4, 5], [6, 7]], pa.list_(pa.int32(), 2)),
    "price": pa.array([0.5, -1.0, 2.0, 1e-3], pa.float64()),
    "item": pa.array([0, 5, 299, 7], pa.int64()),
}


def write(folder, *files, columns=COLUMNS):
    """Files as another program would write them, with their spec."""
    features = {"tags": Feature("tags", "int64", 9, ragged=True), "pair": Feature("pair", "int32", 8, hotness=2),
                "item": Feature("item", "int64", 300), "price": Feature("price", "float64"),
                "bought": Feature("bought", "float32")}  # fmt: skip
    channels = {"categorical": ("item", "pair", "tags"), "numerical": ("price",), "label": ("bought",)}
    chunk = Chunk(("bought", "price", "item", "pair", "tags"), files, "parquet")
    FeatureSpec(features, channels, {"train": (chunk,)}).save(folder / "feature_spec.yaml")
    for file in files:
        pq.write_table(pa.table(columns), folder / file, row_group_size=3)


def test_columns_by_name_lists_of_every_kind_and_several_files(tmp_path):
    write(tmp_path, "a.parquet", "b.parquet")
    with Reader(tmp_path, FeatureSpec.load(tmp_path / "feature_spec.yaml"), "train") as reader:
        assert reader.num_samples == 8
        batches = list(reader.batches(5))
    assert [batch.num_samples for batch in batches] == [5, 3]
    first = batches[0]
    assert first.label.tolist() == [True, False, False, True, True]
    assert first.numerical.tolist() == [[0.5], [-1.0], [2.0], [1e-3], [0.5]]
    assert first.categorical["item"].values.tolist() == [0, 5, 299, 7, 0]
    assert first.categorical["pair"].values.tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 0, 1]
    assert first.categorical["pair"].row_lengths.tolist() == [2] * 5
    assert first.categorical["tags"].values.tolist() == [1, 2, 8, 3, 3, 3, 1, 2]
    assert first.categorical["tags"].row_lengths.tolist() == [2, 0, 1, 3, 2]


def test_what_pyarrow_reads(tmp_path):
    folder = to_layout(write_tf_raw(tmp_path / "raw", RAGGED, {"train": 21}), "tf_raw", tmp_path / "a", "parquet")
    table, expected = pq.read_table(folder / "train.parquet"), samples(RAGGED, 21)
    assert [str(field.type) for field in table.schema] == ["int8", "float", "float", "int32", "list<element: int32>"]
    tags = expected.categorical["tags"]
    assert table["tags"].to_pylist() == [tags.part(k, k + 1).values.tolist() for k in range(21)]
    assert table["store"].to_pylist() == expected.categorical["store"].values.tolist()
    assert table["num_1"].to_pylist() == expected.numerical[:, 1].tolist()


@pytest.mark.parametrize("column, values, reason", [
    ("item", pa.array([0, None, 2, 3], pa.int64()), "row 1: 'item' is null"),
    ("tags", pa.array([[1], [2, None], [], []], pa.large_list(pa.int64())), "list of 'tags' after row 0 holds a null"),
    ("tags", pa.array([[1], None, [], []], pa.large_list(pa.int64())), "row 1: 'tags' is null"),
    ("item", pa.array([0, 1, 2, 3], pa.int32()), "column 'item' is int32, but the feature spec says int64"),
    ("item", pa.array(["a", "b", "c", "d"]), "'item' is string, but .* says int64 .* Save the column as int64"),
    ("item", pa.array([0, 1, 2, 3], pa.uint64()), "column 'item' is uint64, .* A feature spec cannot say uint64 here"),
    ("item", pa.array([0, 1, 2, 3], pa.float64()), "'item' is double, .* cannot say float64 here: save the"),
    ("price", pa.array([0, 1, 2, 3], pa.float32()), "'price' is float, .* Write float32 into the feature spec"),
    ("pair", pa.array([0, 1, 2, 3], pa.int32()), "'pair' is int32, .* with hotness 2. Correct the hotness of"),
    ("item", pa.array([0, 1, -2, 3], pa.int64()), "row 2: id -2 of 'item' is negative; ids start at 0"),
    ("item", pa.array([0, 1, 2, 300], pa.int64()), "row 3: id 300 of 'item' is not below its cardinality 300"),
    ("price", pa.array([0, 1, 2, np.nan], pa.float64()), "row 3: 'price' is nan"),
    ("bought", pa.array([0, 1, 2, 1], pa.float32()), "row 2: 2.0, but a label is 0 or 1"),
    ("price", None, "has 0 columns 'price'; exactly one is right"),
])  # fmt: skip
def test_columns_that_are_refused(tmp_path, column, values, reason):
    (tmp_path / "a").mkdir()
    columns = {name: array for name, array in {**COLUMNS, column: values}.items() if array is not None}
    write(tmp_path / "a", "a.parquet", columns=columns)
    with pytest.raises((LayoutError, FeatureSpecError), match=f"a.parquet: .*{reason}"):
        to_layout(tmp_path / "a", "parquet", tmp_path / "out", "tf_raw")
    assert not (tmp_path / "out").exists()


def test_a_sample_with_another_number_of_ids_than_its_hotness(tmp_path):
    (tmp_path / "a").mkdir()
    columns = {**COLUMNS, "pair": pa.array([[0, 1], [2, 3], [4], [6, 7]], pa.list_(pa.int32()))}
    write(tmp_path / "a", "a.parquet", columns=columns)
    with pytest.raises(FeatureSpecError, match="row 2: 1, but 'pair' has 2 ids a sample. Declare it ragged if samples"):
        to_layout(tmp_path / "a", "parquet", tmp_path / "out", "tf_raw")


def write_tags(folder, lengths):
    """A small file of any number of ids: 0 for each, which parquet writes once."""
    folder.mkdir()
    features = {"tags": Feature("tags", "int32", 9, ragged=True), "bought": Feature("bought", "int8")}
    channels = {"categorical": ("tags",), "numerical": (), "label": ("bought",)}
    chunk = Chunk(("bought", "tags"), ("a.parquet",), "parquet")
    FeatureSpec(features, channels, {"train": (chunk,)}).save(folder / "feature_spec.yaml")
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32))
    tags = pa.ListArray.from_arrays(offsets, pa.array(np.zeros(sum(lengths), np.int32)))
    bought = pa.array(np.arange(len(lengths)) % 2, pa.int8())
    pq.write_table(pa.table({"bought": bought, "tags": tags}), folder / "a.parquet", row_group_size=50)


def test_samples_with_very_many_ids_are_decoded_a_few_at_a_time(tmp_path, monkeypatch):
    lengths = [1000] * 50 + [1] * 25
    write_tags(folder := tmp_path / "a", lengths)
    monkeypatch.setattr(parquet, "_NUMBERS", 3003)
    with Reader(folder, FeatureSpec.load(folder / "feature_spec.yaml"), "train") as reader:
        batches = list(reader.batches(65536))
    assert {batch.num_samples for batch in batches} == {3}
    assert np.concatenate([batch.categorical["tags"].row_lengths for batch in batches]).tolist() == lengths
    monkeypatch.setattr(parquet, "_NUMBERS", 3000)  # 12,000 numbers in a row group that is written
    copy = to_layout(folder, "parquet", tmp_path / "copy", "parquet")
    metadata = pq.ParquetFile(copy / "train.parquet").metadata
    assert max(metadata.row_group(i).column(1).num_values for i in range(metadata.num_row_groups)) <= 17_000
    table = pq.read_table(copy / "train.parquet")
    assert table["tags"].combine_chunks().value_lengths().to_pylist() == lengths


def test_a_row_group_of_more_numbers_than_memory_holds_is_refused_unread(tmp_path, monkeypatch):
    write_tags(folder := tmp_path / "a", [10] * 50 + [700])
    monkeypatch.setattr(parquet, "_LARGEST_GROUP", 600)
    with pytest.raises(LayoutError, match="a.parquet: row group 1 has 700 numbers of tags in 1 rows; at mos"):
        to_layout(folder, "parquet", tmp_path / "out", "tf_raw")


def test_a_file_that_is_no_parquet(tmp_path):
    (tmp_path / "a").mkdir()
    write(tmp_path / "a", "a.parquet")
    content = (tmp_path / "a/a.parquet").read_bytes()
    for bad in (b"", b"PAR1", content[:-30], b"x" * 100):
        (tmp_path / "a/a.parquet").write_bytes(bad)
        with pytest.raises(LayoutError, match="a.parquet: cannot be read as parquet: .* It is damaged"):
            to_layout(tmp_path / "a", "parquet", tmp_path / "out", "tf_raw")
