"""From TSV to a finished dataset, against hand-written expectations and an independent count in plain Python."""

import collections
import gzip
import itertools
import math
import os
import random
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest

from criteo_prep.destination import DestinationError
from criteo_prep.feature_spec import FeatureSpec
from criteo_prep.manifest import ManifestError, file_entry, load_manifest
from criteo_prep.preprocess import DifferentDatasetError, local_engine, preprocess, raw_columns
from criteo_prep.preprocess.blocks import InputError
from criteo_prep.preprocess.inputs import find_inputs
from criteo_prep.preprocess.threshold import VocabularyError
from criteo_prep.preprocess.tsv import BadRowError
from criteo_prep.transcribe.tf_raw import Reader

HAND_MADE = Path(__file__).parents[1] / "data" / "hand_made.tsv"


def make(paths, destination, threshold=3, **more):
    paths = [paths] if isinstance(paths, (str, Path)) else paths
    return preprocess(paths, destination, threshold, quiet=True, **more)


def random_rows(seed, count):
    """Text rows with columns from a handful of values to nearly all different ones, and missing fields."""
    source = random.Random(seed)
    rows = []
    for _ in range(count):
        numbers = ["" if source.random() < 0.2 else str(int(source.expovariate(0.001)) - 4) for _ in range(13)]
        values = [
            "" if source.random() < 0.1 else f"{int(source.paretovariate(0.5)) * 7919 % (3 << column):08x}"
            for column in range(26)
        ]
        rows.append("\t".join([str(source.randrange(2)), *numbers, *values]))
    return rows


def write_rows(path, rows):
    data = "".join(row + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def plain_count(rows, threshold):
    """The independent count. Returns per column {value: id}."""
    columns = []
    for column in range(14, 40):
        counts = collections.Counter(int(text, 16) for row in rows if (text := row.split("\t")[column]))
        kept = sorted((-times, value) for value, times in counts.items() if times >= threshold)
        columns.append({value: number for number, (_, value) in enumerate(kept, 1)})
    return columns


def check_split(root, split, rows, ids_of):
    """The split holds just these text rows, by the rules."""
    spec = FeatureSpec.load(root / "feature_spec.yaml")
    with Reader(root, spec, split) as reader:
        batch = reader.read(0, reader.num_samples)
    fields = [row.split("\t") for row in rows]
    assert batch.label.tolist() == [row[0] == "1" for row in fields]
    numbers = [[math.log(int(x) + 3) if x and int(x) > -3 else 0.0 for x in row[1:14]] for row in fields]
    assert np.array_equal(batch.numerical, np.array(numbers, np.float64).reshape(-1, 13).astype(np.float16))
    for column, name in enumerate(spec.channels["categorical"]):
        expected = [ids_of[column].get(int(row[14 + column], 16), 0) if row[14 + column] else 0 for row in fields]
        assert batch.categorical[name].values.tolist() == expected, name
        assert spec.features[name].cardinality == len(ids_of[column]) + 1


def content(root):
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def test_hand_made_rows(tmp_path):
    outcome = make(HAND_MADE, tmp_path / "set", threshold=2)
    assert outcome.manifest["splits"] == {"train": {"num_samples": 11}, "test": {"num_samples": 1}}
    with Reader(tmp_path / "set", outcome.spec, "train") as reader:
        train = reader.read(0, 11)
    with Reader(tmp_path / "set", outcome.spec, "test") as reader:
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
    assert outcome.warnings == (f"{tmp_path / 'logs' / 'notes.txt'}: is not named day_N and was not read",)
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
    monkeypatch.setattr(local_engine, "_LARGE_SLOTS", 0)  # every column waits until it may work alone
    make(days, tmp_path / "c", workers=4, block_bytes=100)
    assert content(tmp_path / "a") == content(tmp_path / "b") == content(tmp_path / "c")


def test_manifest_and_files(tmp_path):
    write_rows(tmp_path / "day_0", random_rows(0, 20))
    write_rows(tmp_path / "day_1.gz", random_rows(1, 10))
    outcome = make([tmp_path / "day_1.gz", tmp_path / "day_0"], tmp_path / "set", 3)
    document = load_manifest(tmp_path / "set")
    assert outcome.manifest == document
    assert [(entry["name"], entry["rows"], entry["skipped"]) for entry in document["inputs"]] == [
        ("day_0", 20, {}), ("day_1.gz", 10, {}),
    ]  # fmt: skip
    assert document["inputs"][1]["bytes"] == (tmp_path / "day_1.gz").stat().st_size
    assert document["rules"]["threshold"] == 3
    assert document["splits"] == {s: {"num_samples": n} for s, n in (("train", 20), ("test", 5), ("validation", 5))}
    there = content(tmp_path / "set")
    assert sorted(document["files"]) == sorted(there.keys() - {"manifest.json"})
    assert len(there) == 3 * 28 + 26 + 2  # no work file among them
    folders = sorted(path.name for path in (tmp_path / "set").iterdir() if path.is_dir())
    assert folders == ["test", "train", "validation", "vocabularies"]
    for name, entry in document["files"].items():
        assert entry == file_entry(tmp_path / "set" / name), name


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
def test_a_bad_row_is_named_and_leaves_nothing(tmp_path, block_bytes):
    rows = random_rows(6, 30)
    rows[17] = rows[17][:-1] + "g"
    rows[25] = ""
    write_rows(tmp_path / "day_0", random_rows(7, 10))
    write_rows(tmp_path / "day_1", rows)
    before = content(tmp_path)
    with pytest.raises(BadRowError, match=r"day_1: line 18: field 40 \(cat_25\) is '.*g'; .* add --on_bad_row skip"):
        make([tmp_path / "day_0", tmp_path / "day_1"], tmp_path / "set", block_bytes=block_bytes)
    assert content(tmp_path) == before and sorted(os.listdir(tmp_path)) == ["day_0", "day_1"]


def test_truncated_gzip_leaves_nothing(tmp_path):
    path = write_rows(tmp_path / "day_0.gz", random_rows(8, 50))
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(InputError, match=r"day_0\.gz: the gzip stream ends early"):
        make(path, tmp_path / "set")
    assert os.listdir(tmp_path) == ["day_0.gz"]


@pytest.mark.parametrize("stage", ["parse_block", "encode"])
def test_an_interrupt_leaves_nothing_and_stops_the_other_columns(tmp_path, monkeypatch, stage):
    write_rows(tmp_path / "day_0", random_rows(9, 50))

    def interrupt(*arguments):
        raise KeyboardInterrupt

    if stage == "encode":
        monkeypatch.setattr(local_engine.ColumnEncoder, "_encode", interrupt)
    else:
        monkeypatch.setattr(local_engine, "_parse_block", interrupt)
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path / "day_0", tmp_path / "set")
    assert os.listdir(tmp_path) == ["day_0"]


def test_running_again(tmp_path):
    path = write_rows(tmp_path / "rows.tsv", random_rows(10, 50))
    first = make(path, tmp_path / "set", 3)
    before = content(tmp_path / "set")
    again = make(path, tmp_path / "set", 3)
    assert (first.already_complete, again.already_complete) == (False, True)
    assert again.summary() == first.summary()
    with pytest.raises(DifferentDatasetError, match=r"threshold: there 3, asked for 4\n(?s:.*)--overwrite"):
        make(path, tmp_path / "set", 4)
    with pytest.raises(DifferentDatasetError, match="split: there 'the last floor.*0.1.*0.2"):
        make(path, tmp_path / "set", 3, test_fraction=0.2)
    assert content(tmp_path / "set") == before
    write_rows(path, random_rows(11, 51))
    with pytest.raises(DifferentDatasetError, match=r"input 1 \(rows.tsv\): bytes was \d+, is \d+"):
        make(path, tmp_path / "set", 3)
    assert make(path, tmp_path / "set", 4, overwrite=True).manifest["inputs"][0]["rows"] == 51
    assert sorted(os.listdir(tmp_path)) == ["rows.tsv", "set"]


def test_a_finished_dataset_that_lost_a_file_is_not_complete(tmp_path):
    path = write_rows(tmp_path / "rows.tsv", random_rows(10, 50))
    make(path, tmp_path / "set")
    (tmp_path / "set" / "train" / "cat_3.bin").write_bytes(b"")
    with pytest.raises(ManifestError, match=r"train/cat_3\.bin: has 0 bytes; the manifest says \d+"):
        make(path, tmp_path / "set")


def test_a_folder_with_other_things_is_not_touched(tmp_path):
    path = write_rows(tmp_path / "rows.tsv", random_rows(10, 5))
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "thesis.txt").write_text("mine")
    with pytest.raises(DestinationError, match="is not empty"):
        make(path, tmp_path / "set")
    assert content(tmp_path / "set") == {"thesis.txt": b"mine"}


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


def names_of(inputs):
    return [path.name for path in inputs.train], inputs.evaluation and inputs.evaluation.name


def test_which_files_are_what(tmp_path):
    for name in ("day_0", "day_10", "day_2.gz", "readme.txt", ".hidden"):
        (tmp_path / name).touch()
    assert names_of(find_inputs([tmp_path])) == (["day_0", "day_2.gz"], "day_10")
    assert [path.name for path in find_inputs([tmp_path]).ignored] == ["readme.txt"]
    given = [tmp_path / "day_10", tmp_path / "day_2.gz"]
    assert names_of(find_inputs(given)) == (["day_2.gz"], "day_10")
    assert names_of(find_inputs(given, test_file=tmp_path / "day_0")) == (["day_2.gz", "day_10"], "day_0")
    assert names_of(find_inputs(given, test_fraction=0.1)) == (["day_2.gz", "day_10"], None)
    assert names_of(find_inputs(given[:1])) == (["day_10"], None)
    (tmp_path / "alone").mkdir()
    (tmp_path / "alone" / "log.tsv").touch()
    assert names_of(find_inputs([tmp_path / "alone"])) == (["log.tsv"], None)


@pytest.mark.parametrize(
    "paths, more, message",
    [
        (["a.tsv", "b.tsv"], {}, r"a\.tsv: is not named day_N, and there are 2 files.*--test_file.*--test_fraction"),
        (["day_0", "b.tsv"], {}, r"b\.tsv: is not named day_N"),
        (["a.tsv", "a.tsv"], {}, r"a\.tsv: is given twice"),
        (["day_0", "day_0.gz"], {}, r"day_0\.gz: is day 0, as is .*day_0\. Name each day once"),
        (["."], {}, r"holds 4 files, none of them named day_N"),
        (["empty"], {}, r"empty: holds no file"),
        (["a.tsv", "empty"], {}, r"empty: is a folder"),
        (["nowhere"], {}, r"nowhere: there is no such file"),
        (["a.tsv"], {"test_file": "nowhere"}, r"nowhere: there is no such file"),
        (["a.tsv"], {"test_file": "a.tsv"}, r"a\.tsv: is both an input and the test file"),
        (["a.tsv"], {"test_file": "b.tsv", "test_fraction": 0.1}, r"both say which rows are test"),
        (["a.tsv"], {"test_fraction": 1.0}, r"--test_fraction 1\.0: must be above 0 and below 1"),
        (["a.tsv"], {"test_fraction": float("nan")}, r"--test_fraction nan: must be above 0 and below 1"),
    ],
)
def test_inputs_that_make_no_sense(tmp_path, monkeypatch, paths, more, message):
    monkeypatch.chdir(tmp_path)
    for name in ("a.tsv", "b.tsv", "c.tsv", "e.tsv"):
        Path(name).touch()
    Path("empty").mkdir()
    if any(name.startswith("day") for name in paths):
        Path("day_0").touch(), Path("day_0.gz").touch()
    with pytest.raises(InputError, match=message):
        find_inputs(paths, **more)


def test_a_full_disk_is_named_and_leaves_nothing(tmp_path, monkeypatch):
    """The raw columns go to a device that is always full."""
    write_rows(tmp_path / "day_0", random_rows(9, 50))
    monkeypatch.setattr(raw_columns, "open", lambda path, mode: open("/dev/full", mode, buffering=0), raising=False)
    with pytest.raises(OSError, match="No space left on device: '/dev/full'"):
        make(tmp_path / "day_0", tmp_path / "set")
    assert os.listdir(tmp_path) == ["day_0"]
