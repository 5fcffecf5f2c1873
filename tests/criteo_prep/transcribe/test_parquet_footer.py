"""The numbers in the columns of parquet files, from their footers, against pyarrow; and footers that are damaged."""

import random
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.any_json import cuts
from support.layout_samples import RAGGED, drop_checksums, to_layout, write_tf_raw

from criteo_prep.transcribe.parquet_footer import numbers_of_columns

ROWS = 400


def table():
    rng = np.random.default_rng(0)
    tags = [list(range(number % 4)) for number in range(ROWS)]
    return pa.table({
        "label": rng.integers(0, 2, ROWS).astype(bool),
        "price": rng.normal(size=ROWS),
        "tags": pa.array(tags, pa.list_(pa.int32())),
        "name.with.dots": [f"{number:08x}" if number % 5 else None for number in range(ROWS)],
        "pair": pa.array([{"a": 1, "b": [2, 3]}] * ROWS),
        "kind": pa.array(["a", "b"] * (ROWS // 2)).dictionary_encode(),
    })  # fmt: skip


@pytest.mark.parametrize("options", [
    {}, {"row_group_size": 150}, {"row_group_size": 7}, {"write_statistics": False, "compression": "none"},
    {"use_dictionary": False, "write_page_index": True, "store_schema": False}, {"version": "1.0"},
])  # fmt: skip
def test_the_numbers_that_pyarrow_finds(tmp_path, options):
    pq.write_table(table(), tmp_path / "file", **options)
    metadata = pq.ParquetFile(tmp_path / "file").metadata
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    expected = [[group.column(column).num_values for column in range(metadata.num_columns)] for group in groups]
    assert numbers_of_columns(tmp_path / "file") == expected
    assert sum(numbers[2] for numbers in expected) == (0 + 1 + 2 + 3) * ROWS // 4 + ROWS // 4  # an empty list counts


def test_a_file_without_rows(tmp_path):
    pq.write_table(table().slice(0, 0), tmp_path / "file")
    assert sum(map(sum, numbers_of_columns(tmp_path / "file"))) == 0


def test_a_footer_by_hand(tmp_path):
    """One row group of one column with 300 numbers: field 4, a list of structs; field 1; field 3; field 5, zigzag."""
    column = bytes([0x3C, 0x56, 0xD8, 0x04, 0, 0])  # struct 3: {integer 5: 600 / 2}
    group = bytes([0x19, 0x1C]) + column + bytes([0])  # list 1 of one struct
    footer = bytes([0x49, 0x1C]) + group + bytes([0])
    (tmp_path / "file").write_bytes(b"PAR1" + footer + len(footer).to_bytes(4, "little") + b"PAR1")
    assert numbers_of_columns(tmp_path / "file") == [[300]]


def test_any_damage_is_an_error_or_gives_numbers(tmp_path):
    pq.write_table(table(), tmp_path / "file", row_group_size=150)
    content = (tmp_path / "file").read_bytes()
    footer = int.from_bytes(content[-8:-4], "little") + 8
    refused = 0
    for changed in [*(content[:-footer] + cut for cut in cuts(content[-footer:], 400)), b"", b"PAR1", b"\x19" * 5000]:
        (tmp_path / "file").write_bytes(changed)
        try:
            numbers = numbers_of_columns(tmp_path / "file")
            assert all(type(number) is int for group in numbers for number in group)
        except ValueError as error:
            assert "its footer is no struct of Thrift near byte" in str(error)
            refused += 1
    assert refused > 150


READ_ALL = """
import sys
from pathlib import Path
from criteo_prep.feature_spec import FeatureSpec
from criteo_prep.transcribe.parquet import Reader
folder = Path(sys.argv[1])
spec = FeatureSpec.load(folder / "feature_spec.yaml")
content, refused = (folder / "train.parquet").read_bytes(), 0
for change in sys.argv[2].split(","):
    place, bits = map(int, change.split(":"))
    (folder / "train.parquet").write_bytes(content[:place] + bytes([content[place] ^ bits]) + content[place + 1 :])
    try:
        with Reader(folder, spec, "train") as reader:
            list(reader.batches(100))
    except (ValueError, OSError):
        refused += 1
print("refused", refused)
"""


def test_no_damaged_footer_ends_the_process(tmp_path):
    """For each byte of the footer, another value. pyarrow's metadata.row_group(0).column(0) would abort for some."""
    raw = write_tf_raw(tmp_path / "raw", RAGGED, {"train": 30})
    folder = to_layout(raw, "tf_raw", tmp_path / "set", "parquet")
    drop_checksums(folder)
    content, rng = (folder / "train.parquet").read_bytes(), random.Random(0)
    footer = int.from_bytes(content[-8:-4], "little") + 8
    places = range(len(content) - footer, len(content))
    changes = ",".join(f"{place}:{rng.randrange(1, 256)}" for place in places for _ in range(2))
    run = subprocess.run([sys.executable, "-c", READ_ALL, folder, changes], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert int(run.stdout.split()[1]) > len(places) // 2
