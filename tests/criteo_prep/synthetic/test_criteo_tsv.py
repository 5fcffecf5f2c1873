"""The day files: their form, what stands in them, and that the teacher can be found in them again."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import log_loss, roc_auc_score

from criteo_prep.feature_spec import FeatureSpecError
from criteo_prep.schema import CATEGORICAL, log_numerical
from criteo_prep.synthetic.columns import MISSING_LEVEL
from criteo_prep.synthetic.criteo_tsv import (
    MISSING_NUMBERS,
    MISSING_VALUES,
    DayWriter,
    _write_number,
    id_of_value,
    numbers_of_levels,
    value_of_id,
)
from criteo_prep.synthetic.labels import Labels
from criteo_prep.synthetic.presets import preset, scaled

TABLES = scaled(preset("criteo_t15"), 0.001).categorical


def rows_of(path):
    text = path.read_text()
    assert text.endswith("\n")
    return [line.split("\t") for line in text.splitlines()]


@pytest.fixture(scope="module")
def days(tmp_path_factory):
    folder = tmp_path_factory.mktemp("days")
    made = DayWriter(TABLES, seed=5, labels=Labels("teacher")).write(folder, 40_001, num_test=6_001, num_days=3)
    return folder, made


def test_rows_of_days_and_splits(days):
    folder, made = days
    assert [len(rows_of(folder / f"day_{day}")) for day in range(3)] == [20_000, 20_001, 6_001]
    assert {day: facts["num_samples"] for day, facts in made["days"].items()} == {
        "day_0": 20_000, "day_1": 20_001, "day_2": 6_001}  # fmt: skip
    # An odd row of the last day goes to test, as preprocess has it.
    assert {split: facts["num_samples"] for split, facts in made["splits"].items()} == {
        "train": 40_001, "test": 3_001, "validation": 3_000}  # fmt: skip
    assert {name: entry["bytes"] for name, entry in made["files"].items()} == {
        path.name: path.stat().st_size for path in folder.iterdir()
    }


def test_fields(days):
    folder, _ = days
    rows = rows_of(folder / "day_0")
    assert {len(row) for row in rows} == {40}
    assert {row[0] for row in rows} == {"0", "1"}
    numbers = [[int(field) for field in column if field] for column in zip(*(row[1:14] for row in rows), strict=True)]
    assert [min(column) for column in numbers] == [0, -1, *[0] * 11]
    assert max(map(max, numbers)) > 10**5
    values = {field for row in rows for field in row[14:] if field}
    assert all(len(value) == 8 and set(value) <= set("0123456789abcdef") for value in values)
    missing = np.array([[not field for field in row[1:]] for row in rows]).mean(axis=0)
    np.testing.assert_allclose(missing, np.array([*MISSING_NUMBERS, *MISSING_VALUES]) / 32, atol=0.02)


def test_the_ids_behind_the_values_are_power_law_ids(days):
    folder, _ = days
    rows = rows_of(folder / "day_0")
    for column, table in enumerate(TABLES):
        ids = [id_of_value(table.name, int(row[14 + column], 16)) for row in rows if row[14 + column]]
        assert max(ids) < table.cardinality
        assert ids.count(0) == max(ids.count(row) for row in range(min(table.cardinality, 20)))


def test_the_teacher_is_in_the_text(days):
    """Logits worked out from the text alone score the text's labels as the manifest says is best."""
    folder, made = days
    rows = rows_of(folder / "day_2")
    ids = [np.array([id_of_value(table.name, int(row[14 + column], 16)) if row[14 + column] else -1 for row in rows])
           for column, table in enumerate(TABLES)]  # fmt: skip
    level_of = [{number: level for level, number in enumerate(column)} for column in numbers_of_levels().tolist()]
    levels = [[level_of[column][int(field)] if field else MISSING_LEVEL for column, field in enumerate(row[1:14])]
              for row in rows]  # fmt: skip
    teacher = DayWriter(TABLES, seed=5, labels=Labels("teacher"))._teacher
    probability = 1 / (1 + np.exp(-teacher.logits(ids, np.array(levels, np.uint16)).astype(np.float64)))
    label = np.array([row[0] == "1" for row in rows])
    for name, part in (("test", slice(0, 3_001)), ("validation", slice(3_001, None))):
        facts = made["splits"][name]
        assert facts["best_auc"] == pytest.approx(roc_auc_score(label[part], probability[part]), abs=1e-4)
        assert facts["best_log_loss"] == pytest.approx(log_loss(label[part], probability[part]), abs=1e-5)
        assert facts["num_clicks"] == label[part].sum()
    assert 0.75 < made["days"]["day_2"]["best_auc"] < 0.87


def test_training_sees_the_levels_that_the_teacher_uses():
    """The effects are functions of log(x + 3), and no number has the 0.0 that stands for missing."""
    numbers = numbers_of_levels()
    seen = log_numerical(numbers, np.zeros(numbers.shape, bool))
    assert (seen > 0).all()
    assert all(len(np.unique(column)) >= 10 for column in seen)
    assert (np.diff(numbers, axis=1) >= 0).all()


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_any_number_of_workers_and_days_makes_the_same_rows(tmp_path, workers):
    DayWriter(TABLES, seed=2, labels=Labels("teacher")).write(
        tmp_path, 70_000, num_test=1_000, num_days=2 + workers, workers=workers
    )
    text = b"".join((tmp_path / f"day_{day}").read_bytes() for day in range(2 + workers))
    (tmp_path / "one").mkdir()
    DayWriter(TABLES, seed=2, labels=Labels("teacher")).write(
        tmp_path / "one", 70_000, num_test=1_000, num_days=2, workers=1
    )
    assert text == (tmp_path / "one" / "day_0").read_bytes() + (tmp_path / "one" / "day_1").read_bytes()


@given(number=st.integers(-(10**9), 10**12))
def test_numbers_as_python_writes_them(number):
    out = np.zeros(20, np.uint8)
    assert out[: _write_number(number, out, 0)].tobytes().decode() == str(number)


@given(name=st.sampled_from(CATEGORICAL), row=st.integers(0, 2**31 - 1))
def test_ids_can_be_found_from_values(name, row):
    value = value_of_id(name, row)
    assert 0 <= value < 2**32
    assert id_of_value(name, value) == row


@pytest.mark.parametrize("rows, message", [
    ((10, 1, 1), "num_days 1: must be at least 2, because the last day is the evaluation day"),
    ((2, 1, 4), "2 training rows and 1 test rows do not fill 4 days"),
    ((10, 0, 2), "10 training rows and 0 test rows do not fill 2 days")])  # fmt: skip
def test_days_that_cannot_be_filled_are_refused(tmp_path, rows, message):
    num_train, num_test, num_days = rows
    with pytest.raises(ValueError, match=message):
        DayWriter(TABLES, seed=1).write(tmp_path, num_train, num_test=num_test, num_days=num_days)
    assert list(tmp_path.iterdir()) == []


def test_a_log_cannot_hold_several_ids_a_row():
    with pytest.raises(FeatureSpecError, match="cat_0: has 3 ids a row, but Criteo's logs have one value a field"):
        DayWriter(preset("criteo_t15_multi_hot").categorical, 1)
