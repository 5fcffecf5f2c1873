"""The id rule and its files; exact counting in bounded memory."""

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from criteo_prep.preprocess.columns import vocabulary as vocabulary_file
from criteo_prep.preprocess.columns.vocabulary import Vocabulary, VocabularyError, make_vocabulary


def vocabulary(counts, threshold):
    return make_vocabulary(np.array(list(counts), np.uint32), np.array(list(counts.values()), np.int64), threshold)


def test_ids_by_falling_count_then_rising_value():
    made = vocabulary({7: 2, 0xFFFFFFFF: 5, 3: 2, 0: 2, 9: 1, 4: 5}, threshold=2)
    assert made.values.tolist() == [4, 0xFFFFFFFF, 0, 3, 7]
    assert made.counts.tolist() == [5, 5, 2, 2, 2]
    assert made.cardinality == 6


@pytest.mark.parametrize("threshold, kept", [(0, 3), (1, 3), (2, 2), (3, 1), (4, 0)])
def test_a_value_at_the_threshold_is_kept(threshold, kept):
    made = vocabulary({10: 1, 11: 2, 12: 3}, threshold)
    assert len(made.values) == kept
    assert made.cardinality == kept + 1  # 1 where nothing is kept: id 0 is there always


def test_nothing_was_seen():
    assert vocabulary({}, 0).cardinality == 1


def test_a_negative_threshold_is_refused():
    with pytest.raises(VocabularyError, match="threshold -1 is negative; 0 keeps every value"):
        vocabulary({1: 1}, -1)


def test_counts_past_32_bits():
    made = vocabulary({1: 2**32 + 1, 2: 2**33, 3: 2**31}, threshold=2**32)
    assert made.values.tolist() == [2, 1]


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.integers(0, 2**32 - 1), st.integers(1, 9)), st.integers(0, 9), st.randoms())
def test_the_id_rule_in_plain_python_for_any_order(counts, threshold, source):
    shuffled = list(counts.items())
    source.shuffle(shuffled)
    expected = sorted(((-n, value) for value, n in counts.items() if n >= threshold))
    made = vocabulary(dict(shuffled), threshold)
    assert made.values.tolist() == [value for _, value in expected]
    assert made.counts.tolist() == [-n for n, _ in expected]


def test_save_and_load(tmp_path):
    made = vocabulary({5: 3, 0xFFFFFFFF: 4}, 0)
    made.save(tmp_path / "cat_0.parquet")
    table = pyarrow.parquet.read_table(tmp_path / "cat_0.parquet")
    assert table.schema.equals(
        pyarrow.schema([("value", pyarrow.uint32()), ("id", pyarrow.int32()), ("count", pyarrow.int64())])
    )
    assert table.to_pydict() == {"value": [0xFFFFFFFF, 5], "id": [1, 2], "count": [4, 3]}
    again = Vocabulary.load(tmp_path / "cat_0.parquet")
    assert again.values.tolist() == [0xFFFFFFFF, 5] and again.counts.tolist() == [4, 3]
    assert again.values.dtype == np.uint32 and again.counts.dtype == np.int64


def test_load_refuses_a_file_that_is_not_a_vocabulary(tmp_path):
    (tmp_path / "text.parquet").write_bytes(b"no parquet")
    with pytest.raises(VocabularyError, match=r"text\.parquet: is not a whole parquet file"):
        Vocabulary.load(tmp_path / "text.parquet")
    table = pyarrow.table({"value": [1, 2], "id": [2, 1], "count": [1, 1]})
    pyarrow.parquet.write_table(table, tmp_path / "ids.parquet")
    with pytest.raises(VocabularyError, match=r"ids\.parquet: is not a vocabulary: its ids are not 1 to 2 in order"):
        Vocabulary.load(tmp_path / "ids.parquet")


def test_a_vocabulary_is_read_a_row_group_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr(vocabulary_file, "FILE_ROWS", 1 << 14)
    values = np.random.default_rng(0).permutation(1 << 20).astype(np.uint32)
    Vocabulary(values, np.ones(len(values), np.int64)).save(tmp_path / "v.parquet")
    before, most, read = pyarrow.total_allocated_bytes(), 0, []
    for part, _ in vocabulary_file.read_vocabulary(tmp_path / "v.parquet"):
        most = max(most, pyarrow.total_allocated_bytes() - before)
        read.append(part)
    assert np.array_equal(np.concatenate(read), values)
    assert most < (tmp_path / "v.parquet").stat().st_size / 4
