"""Every line belongs to exactly one split, wherever the cuts fall."""

import gzip

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from criteo_prep.preprocess.distributed.input_splits import COMPRESSED, PARQUET, TEXT, lines_of, plan_splits
from criteo_prep.preprocess.parse.text_stream import InputError

STATE = {"bytes": 0, "modified_ns": 0}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("texts")


@given(st.lists(st.sampled_from([b"", b"a", b"bb\r", b"c" * 9, b"d" * 40]), max_size=8), st.booleans(),
       st.integers(1, 30))  # fmt: skip
def test_lines_of_all_splits_are_the_text(folder, lines, last_newline, split_bytes):
    text = b"\n".join(lines) + b"\n" * last_newline
    (folder / "day_0").write_bytes(text)
    splits = plan_splits([folder / "day_0"], [STATE], split_bytes=split_bytes)
    pieces = [text[slice(*lines_of(split))] for split in splits]
    assert b"".join(pieces) == text
    assert all(piece.endswith(b"\n") for piece in [piece for piece in pieces if piece][:-1])
    for split, piece in zip(splits, pieces, strict=True):
        start, _ = lines_of(split)
        assert not piece or split.start <= start < split.stop, "a split has the lines that begin in its bytes"


def test_kinds_of_files(tmp_path):
    (tmp_path / "day_0").write_bytes(b"x" * 250)
    (tmp_path / "day_1").write_bytes(b"")
    (tmp_path / "day_2").write_bytes(gzip.compress(b"y" * 5000))
    table = pyarrow.table({"a": list(range(100))})
    pyarrow.parquet.write_table(table, tmp_path / "day_3.parquet", row_group_size=30)
    paths = sorted(tmp_path.iterdir())
    splits = plan_splits(paths, [STATE] * 4, split_bytes=100)
    assert [(split.file, split.kind, split.start, split.stop) for split in splits] == [
        (0, TEXT, 0, 100), (0, TEXT, 100, 200), (0, TEXT, 200, 250), (1, TEXT, 0, 0), (2, COMPRESSED, 0, 0),
        (3, PARQUET, 0, 30), (3, PARQUET, 30, 60), (3, PARQUET, 60, 90), (3, PARQUET, 90, 100),
    ]  # fmt: skip
    assert [split.number for split in splits] == list(range(9))


def test_a_format_that_is_not_read(tmp_path):
    (tmp_path / "day_0.gz").write_bytes(b"no gzip")
    with pytest.raises(InputError, match="day_0.gz: is named .gz but is not a gzip file"):
        plan_splits([tmp_path / "day_0.gz"], [STATE], split_bytes=100)
