"""From TSV to a finished dataset, against hand-written expectations and an independent count in plain Python."""

import gzip
import io
import itertools
import json
import math
import os
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
import zstandard
from support.log_samples import check_split, content, kept_in, make, plain_count, random_rows, write_rows

from criteo_prep.feature_spec import FeatureSpec
from criteo_prep.manifest import block_entry, load_manifest
from criteo_prep.preprocess.columns import hash_table
from criteo_prep.preprocess.columns.vocabulary import VocabularyError
from criteo_prep.preprocess.parse import raw_columns
from criteo_prep.preprocess.parse.text_stream import InputError
from criteo_prep.preprocess.parse.tsv import BadRowError
from criteo_prep.transcribe.tf_raw import Reader

HAND_MADE = Path(__file__).parents[2] / "data" / "hand_made.tsv"


def test_hand_made_rows(tmp_path):
    outcome = make(HAND_MADE, tmp_path / "set", threshold=2)
    assert outcome.manifest["splits"] == {"train": {"num_samples": 11}, "test": {"num_samples": 1}}
    with Reader(tmp_path / "set", outcome.spec, split="train") as reader:
        train = reader.read(0, 11)
    with Reader(tmp_path / "set", outcome.spec, split="test") as reader:
        test = reader.read(0, 1)
    assert train.label.tolist() == [False, True] * 5 + [False] and test.label.tolist() == [True]
    # cat_0: a three times, ffffffff three times, 0 and 5 twice, 12345678 once, missing once; cases and lengths vary.
    assert train.categorical["cat_0"].values.tolist() == [1, 2, 0, 3, 1, 0, 4, 2, 3, 1, 4]
    assert test.categorical["cat_0"].values.tolist() == [2]
    cardinalities = [feature.cardinality for feature in outcome.spec.categorical]
    assert cardinalities == [5, 2, 1, 1] + [2] * 22  # cat_2 is always missing, cat_3 never twice the same
    expected = [3, 4, 2, None, None, None, None, 10**18 + 2, None, 8, 5_000_000_003]
    logs = np.array([0.0 if x is None else math.log(x) for x in expected]).astype(np.float16)
    assert train.numerical[:, 0].tolist() == logs.tolist()
    assert test.numerical[0, 0] == np.float16(math.log(3))
    table = pyarrow.parquet.read_table(tmp_path / "set" / "vocabularies" / "cat_0.parquet").to_pydict()
    assert table == {"value": [10, 0xFFFFFFFF, 0, 5], "id": [1, 2, 3, 4], "count": [3, 3, 2, 2]}


@pytest.mark.parametrize("threshold", [0, 3, 15])
def test_days_against_a_plain_count(tmp_path, threshold):
    """Natural order, plain and gzip, last day halved with the odd row in test, vocabulary over all days."""
    days = {name: random_rows(name, count) for name, count in (("day_2", 301), ("day_9.gz", 150), ("day_10", 101))}
    (tmp_path / "logs").mkdir()
    for name, rows in days.items():
        write_rows(tmp_path / "logs" / name, rows)
    root = tmp_path / "set"
    (tmp_path / "logs" / "notes.txt").write_text("not a day")
    outcome = make(tmp_path / "logs", root, threshold)
    assert outcome.warnings == (
        f"{tmp_path / 'logs' / 'notes.txt'}: was not read; its name is not the name of an input",
    )
    ids_of = plain_count([*itertools.chain(*days.values())], threshold)
    check_split(root, "train", days["day_2"] + days["day_9.gz"], ids_of)
    check_split(root, "test", days["day_10"][:51], ids_of)
    check_split(root, "validation", days["day_10"][51:], ids_of)


@pytest.mark.parametrize("vocabulary_days", ["all", "train"])
def test_one_file(tmp_path, vocabulary_days):
    rows = random_rows(1, 205)
    write_rows(tmp_path / "train.txt", rows)
    make(tmp_path / "train.txt", tmp_path / "set", 2, test_fraction=0.25, vocabulary_days=vocabulary_days)
    ids_of = plain_count(rows if vocabulary_days == "all" else rows[:154], 2)
    check_split(tmp_path / "set", "train", rows[:154], ids_of)
    check_split(tmp_path / "set", "test", rows[154:], ids_of)
    assert FeatureSpec.load(tmp_path / "set" / "feature_spec.yaml").splits == ("train", "test")


def test_a_test_file(tmp_path):
    train, test = random_rows(1, 90), random_rows(2, 33)
    paths = [write_rows(tmp_path / "b.tsv", train[:40]), write_rows(tmp_path / "a.tsv", train[40:])]
    write_rows(tmp_path / "held_out.tsv", test)
    make(paths, tmp_path / "set", 0, test_file=tmp_path / "held_out.tsv", vocabulary_days="train")
    ids_of = plain_count(train, 0)
    check_split(tmp_path / "set", "train", train, ids_of)  # files in the order given
    check_split(tmp_path / "set", "test", test, ids_of)


def test_several_files_and_a_fraction(tmp_path):
    rows = random_rows(3, 60)
    paths = [write_rows(tmp_path / "a.tsv", rows[:50]), write_rows(tmp_path / "b.tsv", rows[50:])]
    make(paths, tmp_path / "set", 0, test_fraction=0.5)
    check_split(tmp_path / "set", "train", rows[:30], plain_count(rows, 0))
    check_split(tmp_path / "set", "test", rows[30:], plain_count(rows, 0))


def test_bytes_depend_on_neither_workers_nor_block_size_nor_luck(tmp_path, monkeypatch):
    for day in range(3):
        write_rows(tmp_path / f"day_{day}", random_rows(day, 203))
    days = [tmp_path / f"day_{day}" for day in range(3)]
    make(days, tmp_path / "a", workers=1)
    make(days, tmp_path / "b", workers=3, block_bytes=1000)
    monkeypatch.setattr(hash_table, "MAX_VALUES", 350)  # the last columns are counted and encoded by a bitmap
    make(days, tmp_path / "c", workers=4, block_bytes=100, checkpoint_bytes=0)
    assert content(tmp_path / "a") == content(tmp_path / "b") == content(tmp_path / "c")


def test_manifest_and_files(tmp_path):
    write_rows(tmp_path / "day_0", random_rows(0, 20))
    write_rows(tmp_path / "day_1.gz", random_rows(1, 10))
    outcome = make([tmp_path / "day_1.gz", tmp_path / "day_0"], tmp_path / "set", 3)
    document = load_manifest(tmp_path / "set")
    assert outcome.manifest == document
    assert [(entry["name"], entry["rows"], entry["skipped"]) for entry in document["inputs"]] == [
        ("day_0", 20, {}),
        ("day_1.gz", 10, {}),
    ]
    assert document["inputs"][1]["bytes"] == (tmp_path / "day_1.gz").stat().st_size
    assert document["rules"]["threshold"] == 3
    assert document["splits"] == {s: {"num_samples": n} for s, n in (("train", 20), ("test", 5), ("validation", 5))}
    there = content(tmp_path / "set")
    assert sorted(document["files"]) == sorted(there.keys() - {"manifest.json"})
    assert len(there) == 3 * 28 + 26 + 2  # no work file among them
    folders = sorted(path.name for path in (tmp_path / "set").iterdir() if path.is_dir())
    assert folders == ["test", "train", "validation", "vocabularies"]
    for name, entry in document["files"].items():
        assert entry == block_entry(tmp_path / "set" / name), name


def test_bad_rows_are_skipped_and_counted(tmp_path):
    good = random_rows(5, 40)
    bad = ["", good[0][2:], good[1] + "\t", "2" + good[2][1:], good[3].replace("\t", "\t+", 1), "x" * 70_000]
    write_rows(tmp_path / "mixed.tsv", [*good[:10], *bad, *good[10:], ""])
    outcome = make(tmp_path / "mixed.tsv", tmp_path / "set", 2, on_bad_row="skip", block_bytes=500)
    ids_of = plain_count(good, 2)
    check_split(tmp_path / "set", "train", good[:36], ids_of)
    check_split(tmp_path / "set", "test", good[36:], ids_of)
    (entry,) = outcome.manifest["inputs"]
    assert entry["rows"] == 40
    assert entry["skipped"] == {
        "blank_line": 2, "too_few_fields": 1, "too_many_fields": 1, "bad_label": 1, "bad_number": 1, "line_too_long": 1,
    }  # fmt: skip
    assert any("mixed.tsv: line 14: field 1 (label) is '2'" in warning for warning in outcome.warnings)
    assert "bad rows skipped: 7 (" in outcome.summary()


@pytest.mark.parametrize("block_bytes", [100, 1 << 20])
def test_a_bad_row_is_named_and_the_good_part_is_kept(tmp_path, block_bytes):
    rows = random_rows(6, 30)
    bad = [*rows[:17], rows[17][:-1] + "g", *rows[18:25], "", *rows[26:]]
    days = [write_rows(tmp_path / "day_0", random_rows(7, 10)), write_rows(tmp_path / "day_1", bad)]
    with pytest.raises(BadRowError, match=r"day_1: line 18: field 40 \(cat_25\) is '.*g'; .* add --on_bad_row skip"):
        make(days, tmp_path / "set", block_bytes=block_bytes)
    assert kept_in(tmp_path) == [".set.partial"]
    write_rows(days[1], rows)
    write_rows(days[0], random_rows(7, 10))
    make(days, tmp_path / "set", block_bytes=block_bytes)
    make(days, tmp_path / "at_once")
    assert content(tmp_path / "set") == content(tmp_path / "at_once")
    assert kept_in(tmp_path) == ["at_once", "set"]


def test_a_bad_first_row_leaves_nothing(tmp_path):
    write_rows(tmp_path / "day_0", ["header", *random_rows(7, 10)])
    with pytest.raises(BadRowError, match="line 1"):
        make(tmp_path / "day_0", tmp_path / "set")
    assert kept_in(tmp_path) == []


@pytest.mark.parametrize("pack, ending", [(gzip.compress, "gz"), (zstandard.compress, "zst")])
def test_truncated_input_is_named_and_other_files_are_kept(tmp_path, pack, ending):
    rows = [random_rows(day, 400) for day in range(3)]
    days = [tmp_path / "day_0", tmp_path / f"day_1.{ending}", tmp_path / "day_2"]
    text = "".join(row + "\n" for row in rows[1]).encode()
    write_rows(days[0], rows[0]), write_rows(days[2], rows[2]), days[1].write_bytes(pack(text)[:-30])
    with pytest.raises(InputError, match=r"day_1\.\w+: the (gzip|zstd) stream ends early"):
        make(days, tmp_path / "set", block_bytes=1000)
    assert kept_in(tmp_path) == [".set.partial"]
    days[1].write_bytes(pack(text))
    make(days, tmp_path / "set")
    make(days, tmp_path / "at_once")
    assert content(tmp_path / "set") == content(tmp_path / "at_once")


def test_shuffle_is_one_permutation_of_the_train_rows(tmp_path):
    days = [write_rows(tmp_path / f"day_{day}", random_rows(day, 300)) for day in range(3)]
    for name, more in (("plain", {}), ("a", {"shuffle": "global"}), ("b", {"shuffle": "global", "seed": 1})):
        make(days, tmp_path / name, 2, **more)

    def rows_of(name, split):
        spec = FeatureSpec.load(tmp_path / name / "feature_spec.yaml")
        with Reader(tmp_path / name, spec, split=split) as reader:
            batch = reader.read(0, reader.num_samples)
        ids = [ids.values for ids in batch.categorical.values()]
        return np.concatenate([batch.label[:, None], batch.numerical, np.stack(ids, axis=1)], axis=1).tolist()

    for name in ("a", "b"):
        assert sorted(rows_of(name, "train")) == sorted(rows_of("plain", "train"))
        assert rows_of(name, "train") != rows_of("plain", "train")
        assert rows_of(name, "test") == rows_of("plain", "test")
    assert rows_of("a", "train") != rows_of("b", "train")


def test_chosen_days(tmp_path):
    days = [write_rows(tmp_path / f"day_{day}", random_rows(day, 20 + day)) for day in range(5)]
    outcome = make(days, tmp_path / "set", days="0-1,4")
    assert [entry["name"] for entry in outcome.manifest["inputs"]] == ["day_0", "day_1", "day_4"]
    for text, message in (("0-x", "neither a day nor a range"), ("7", "no input is of day 7")):
        with pytest.raises(InputError, match=message):
            make(days, tmp_path / "other", days=text)


def test_max_cardinality_folds_the_highest_ids(tmp_path):
    rows = random_rows(1, 200)
    path = write_rows(tmp_path / "rows.tsv", rows)
    make(path, tmp_path / "free", 0)
    outcome = make(path, tmp_path / "capped", 0, max_cardinality="10,cat_1:7")
    free = FeatureSpec.load(tmp_path / "free" / "feature_spec.yaml")
    for number, feature in enumerate(outcome.spec.categorical):
        cap = 7 if number == 1 else 10
        assert feature.cardinality == min(free.features[feature.name].cardinality, cap)
        before = np.fromfile(tmp_path / "free" / "train" / f"{feature.name}.bin", free.features[feature.name].dtype)
        after = np.fromfile(tmp_path / "capped" / "train" / f"{feature.name}.bin", feature.dtype)
        assert after.tolist() == [id_ and 1 + (id_ - 1) % (cap - 1) for id_ in before.tolist()]


def test_empty_files(tmp_path):
    rows = random_rows(12, 3)
    write_rows(tmp_path / "day_0", rows)
    write_rows(tmp_path / "day_1", [])
    outcome = make([tmp_path / "day_0", tmp_path / "day_1"], tmp_path / "set", 0)
    check_split(tmp_path / "set", "train", rows, plain_count(rows, 0))
    check_split(tmp_path / "set", "test", [], plain_count(rows, 0))
    assert outcome.warnings == (
        f"{tmp_path / 'day_1'}: holds no row", "split test has no samples", "split validation has no samples",
    )  # fmt: skip
    with pytest.raises(InputError, match="day_1: no good row to train on; no row was skipped"):
        make(tmp_path / "day_1", tmp_path / "none")
    assert sorted(os.listdir(tmp_path)) == ["day_0", "day_1", "set"]


def test_no_good_row(tmp_path):
    write_rows(tmp_path / "rows.tsv", ["label\tI1", "1"])
    with pytest.raises(InputError, match=r"no good row to train on; skipped 2 bad rows: 2 too_few_fields"):
        make(tmp_path / "rows.tsv", tmp_path / "set", on_bad_row="skip")


def test_one_row(tmp_path):
    rows = random_rows(13, 1)
    outcome = make(write_rows(tmp_path / "rows.tsv", rows), tmp_path / "set", 0)
    check_split(tmp_path / "set", "train", rows, plain_count(rows, 0))
    assert outcome.warnings == ("split test has no samples",)


def test_a_negative_threshold_is_refused(tmp_path):
    with pytest.raises(VocabularyError, match="--threshold -1: is negative"):
        make(write_rows(tmp_path / "rows.tsv", random_rows(1, 3)), tmp_path / "set", -1)


def test_a_full_disk_is_named(tmp_path, monkeypatch):
    """The raw columns go to a device that is always full."""
    days = [write_rows(tmp_path / f"day_{day}", random_rows(day, 50)) for day in range(2)]
    original = raw_columns.open_to_append
    full = lambda path, size: open("/dev/full", "wb", buffering=0) if path.name == "cat_3.raw" else original(path, size)  # noqa: E731
    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space left on device: '/dev/full'"):
        patch.setattr(raw_columns, "open_to_append", full)
        make(days, tmp_path / "set")
    assert kept_in(tmp_path) == []


def test_progress_as_json_lines(tmp_path):
    log = io.StringIO()
    make(write_rows(tmp_path / "day_0", random_rows(9, 50)), tmp_path / "set", log=log)
    lines = [json.loads(line) for line in log.getvalue().splitlines()]
    assert [(line["stage"], line["state"], line["done"]) for line in lines if line["state"] != "running"] == [
        ("parse", "done", 50), ("arrange", "done", 100), ("columns", "done", 2600),
    ]  # fmt: skip
