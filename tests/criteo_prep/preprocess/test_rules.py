"""The rules that a user decides, the memory limit, and the check before a run."""

from dataclasses import replace

import pytest

from criteo_prep.machine import available_memory_bytes
from criteo_prep.preprocess.columns.memory import MemoryPlan, PreflightError
from criteo_prep.preprocess.columns.vocabulary import VocabularyError
from criteo_prep.preprocess.preflight import Columns, check_resources, memory_limit
from criteo_prep.preprocess.rules import format_per_column, make_rules, per_column


@pytest.mark.parametrize("given, changed, shown", [
    ("15", {}, 15), (15, {}, 15), ("15,cat_0:3", {0: 3}, "15,cat_0:3"),
    ("15,14:3, 39:0", {0: 3, 25: 0}, "15,cat_0:3,cat_25:0"),
    ("cat_1:15,15", {}, 15),
])  # fmt: skip
def test_per_column(given, changed, shown):
    numbers = per_column("threshold", given)
    assert numbers == tuple(changed.get(column, 15) for column in range(26))
    assert format_per_column(numbers) == shown and per_column("threshold", shown) == numbers


@pytest.mark.parametrize("threshold, message", [
    ("x", "'x' is neither a number nor COLUMN:number"), ("3,13:5", "'13:5' is neither"), ("3,cat_26:5", "is neither"),
    ("3,4", "gives the number for all columns twice"), ("3,cat_0:1,14:2", "gives the number for 14 twice"),
    ("-1", "-1: is negative"),
    ("cat_0:3", "gives no threshold for all columns"), ("", "is neither a number"),
])  # fmt: skip
def test_thresholds_that_make_no_sense(threshold, message):
    with pytest.raises(VocabularyError, match=message):
        make_rules(threshold)


def test_other_rules_that_make_no_sense():
    with pytest.raises(VocabularyError, match="--max_cardinality 1: must be at least 2"):
        make_rules(3, max_cardinality="1")
    with pytest.raises(VocabularyError, match="--seed -1"):
        make_rules(3, shuffle="global", seed=-1)


@pytest.mark.parametrize("flag", ["threshold", "max_cardinality", "vocabulary_days"])
def test_raw_ids_have_no_vocabulary(flag):
    given = {"threshold": None, flag: {"vocabulary_days": "all"}.get(flag, 2)}
    with pytest.raises(VocabularyError, match=f"--{flag} {given[flag]}: is for vocabularies, and --ids raw makes none"):
        make_rules(**given, ids="raw")


@pytest.mark.parametrize(
    "given, size", [(5, 5), ("8G", 8 << 30), ("1.5M", 3 << 19), ("2 GiB", 2 << 30), ("7kb", 7 << 10)]
)
def test_memory_limit(given, size):
    assert memory_limit(given) == size


def test_text_that_is_not_a_size():
    with pytest.raises(PreflightError, match="--memory_limit lots: is not a size. Write a size such as 8G"):
        memory_limit("lots")
    assert 0 < memory_limit(None) < available_memory_bytes() * 1.5


def test_preflight(tmp_path):
    path = tmp_path / "rows.tsv"
    path.write_text(("1" + "\t" * 39 + "\n") * 1000)
    found = check_resources((path,), tmp_path / "set", plan=MemoryPlan(4 << 30, 2), columns=Columns())
    assert found.num_rows == 1000 and found.disk_needed == 1000 * (131 + 8)
    assert "about 1,000 rows" in str(found) and "refused" not in str(found)
    keys = check_resources((path,), tmp_path / "set", plan=MemoryPlan(600 << 20, 2), columns=Columns(keys=True))
    assert keys.disk_needed == 1000 * (131 + 104 + 8)  # 27 + 208, and two raw columns whose keys are being written
    tight = replace(found, memory_needed=2_000_000_001, memory_limit=2_000_000_000)
    assert str(tight).endswith(f": a column with more than {found.most_distinct:,} distinct values will be refused")
    with pytest.raises(PreflightError, match=r"--memory_limit 209.72 MB: is too small; 2 workers need .* for any data"):
        check_resources((path,), tmp_path / "set", plan=MemoryPlan(200 << 20, 2), columns=Columns())


@pytest.mark.parametrize("limit", [1_500_000_000, 2_000_000_000, 24 << 30])
def test_as_many_distinct_values_as_the_limit_allows(limit):
    plan = MemoryPlan(limit, 2)
    plan.check_distinct("cat_0", plan.most_distinct, 1)
    with pytest.raises(PreflightError):
        plan.check_distinct("cat_0", plan.most_distinct + 1, 1)


def test_a_disk_that_is_too_small(tmp_path, monkeypatch):
    path = tmp_path / "rows.tsv"
    path.write_text(("1" + "\t" * 39 + "\n") * 1000)
    monkeypatch.setattr("criteo_prep.preprocess.preflight.estimated_rows", lambda path: 10**15)
    with pytest.raises(PreflightError, match="The disk is too small"):
        check_resources((path,), tmp_path / "set", plan=MemoryPlan(4 << 30, 2), columns=Columns())


def test_large_columns_that_fit_memory():
    assert MemoryPlan(2 << 30, 8).large_columns(10**9) == 1
    assert MemoryPlan(64 << 30, 8).large_columns(10**6) == 8
    MemoryPlan(3 << 30, 2).check_distinct("cat_0", 300_000_000, 1)
    with pytest.raises(PreflightError, match=r"cat_0: 1,000,000,000 distinct values need .* Give a --memory_limit"):
        MemoryPlan(3 << 30, 2).check_distinct("cat_0", 10**9, 1)
