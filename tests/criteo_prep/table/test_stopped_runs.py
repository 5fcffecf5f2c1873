"""Stopped runs, running again, other thresholds, new rows: the bytes are the same as those of one undisturbed run."""

import os
import random
import shutil

import numpy as np
import polars as pl
import pytest

from criteo_prep.preprocess.columns import encoder
from criteo_prep.preprocess.parse import raw_columns
from criteo_prep.preprocess.request import Resources
from criteo_prep.preprocess.run import DifferentDatasetError
from criteo_prep.table import journal, read_arrow, read_csv, read_ndjson, work_files
from criteo_prep.table.new_rows import encode_table
from criteo_prep.table.run import preprocess_table
from criteo_prep.verify import verify

SCHEMA = """
label: {column: y}
numerical: {x: {transform: standardize}, q: {transform: quantile, clip: [0, 90]}}
categorical: {a: {threshold: T}, tags: {vocabulary: v}, more: {vocabulary: v, hotness: 2}, n: {max_cardinality: 9}}
split: {column: day, test: [2], validation: [3]}
"""
CALLS = ("rename", "replace", "unlink", "rmdir", "mkdir", "pwrite", "link")
PLAIN = SCHEMA.replace(", tags: {vocabulary: v}, more: {vocabulary: v, hotness: 2}, n: {max_cardinality: 9}", ", n: {}")


class Killed(BaseException):
    """Nothing works from here on."""


def frame(num_rows=400, seed=0):
    source = random.Random(seed)
    return pl.DataFrame({
        "y": [source.random() < 0.3 for _ in range(num_rows)],
        "x": [None if source.random() < 0.1 else source.gauss(3, 5) for _ in range(num_rows)],
        "q": [source.paretovariate(1) for _ in range(num_rows)],
        "a": [f"v{int(source.paretovariate(0.8)) % 100}" for _ in range(num_rows)],
        "tags": [[f"t{source.randrange(30)}" for _ in range(source.randrange(4))] for _ in range(num_rows)],
        "more": [[f"t{source.randrange(40)}" for _ in range(source.randrange(3))] for _ in range(num_rows)],
        "n": [source.randrange(-20, 20) for _ in range(num_rows)],
        "day": [row * 4 // num_rows for row in range(num_rows)],
    })  # fmt: skip


def make(folder, files, name="set", threshold=2, schema=SCHEMA, **more):
    path = folder / f"schema_{threshold}.yaml"
    path.write_text(schema.replace("T", str(threshold)), encoding="utf-8")
    options = {key: more.pop(key) for key in ("seed", "vocabulary_days") if key in more}
    resources = Resources(more.pop("workers", 2), quiet=True, checkpoint_bytes=more.pop("checkpoint_bytes", 0))
    return preprocess_table(files, folder / name, schema=path, options=options, resources=resources, **more)


def content(folder):
    """The bytes of each file but the manifest, whose versions and inputs do not matter here."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "manifest.json"
    }


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(read_arrow, "BLOCK_ROWS", 50)
    monkeypatch.setattr(read_csv, "BLOCK_BYTES", 2000)
    monkeypatch.setattr(read_ndjson, "_BLOCK_BYTES", 4000)


def write(folder, kind):
    """Two files of a kind with the same 400 rows; CSV has no lists, so tags and more are left out."""
    files = []
    for number, part in enumerate((frame()[:230], frame()[230:])):
        files.append(folder / f"log_{number}.{kind}")
        if kind == "csv":
            part.drop("tags", "more").write_csv(files[-1])
        else:
            getattr(part, {"parquet": "write_parquet", "ndjson": "write_ndjson", "arrow": "write_ipc"}[kind])(files[-1])
    return files


def counted_calls(monkeypatch) -> dict:
    """Counts the calls that change the disk; when state["left"] of them are done, nothing works any more."""
    state = {"left": 1 << 30}

    def counted(original):
        def call(*arguments, **more):
            state["left"] -= 1
            if state["left"] < 0:
                raise Killed
            return original(*arguments, **more)

        return call

    for name in CALLS:
        monkeypatch.setattr(os, name, counted(getattr(os, name)))
    append = counted(raw_columns.append)
    for module in (work_files, encoder):
        monkeypatch.setattr(module, "append", append)
    return state


@pytest.mark.parametrize(
    "kind", ["parquet", *(pytest.param(kind, marks=pytest.mark.long) for kind in ("csv", "ndjson", "arrow"))]
)
def test_a_run_that_is_killed_at_any_moment_is_resumed(kind, tmp_path, monkeypatch, small_blocks):
    files, more = write(tmp_path, kind), {"schema": PLAIN if kind == "csv" else SCHEMA}
    make(tmp_path, files, "good", **more)
    state = counted_calls(monkeypatch)
    make(tmp_path, files, "counted", **more)
    used = (1 << 30) - state["left"]
    for calls in [used - 1, used - 2, *random.Random(kind).sample(range(used), 4)]:
        state["left"] = calls
        with pytest.raises(Killed):
            make(tmp_path, files, **more)
        state["left"] = 1 << 30
        make(tmp_path, files, **more)
        assert content(tmp_path / "set") == content(tmp_path / "good"), calls
        assert not (tmp_path / ".set.partial").exists()
        shutil.rmtree(tmp_path / "set")


@pytest.mark.parametrize("threshold", [1, 9])
def test_a_finished_dataset_stays_whole_until_the_new_one_replaces_it(threshold, tmp_path, monkeypatch):
    """Threshold 1 is made from the inputs, 9 from the ids."""
    files, more = write(tmp_path, "parquet"), {"schema": SCHEMA.replace(", n: {max_cardinality: 9}", "")}
    make(tmp_path, files, "old", threshold=2, **more)
    make(tmp_path, files, "new", threshold=threshold, **more)
    old, new = content(tmp_path / "old"), content(tmp_path / "new")
    state = counted_calls(monkeypatch)
    shutil.copytree(tmp_path / "old", tmp_path / "set")
    state["left"] = 1 << 30
    make(tmp_path, files, threshold=threshold, **more)
    used = (1 << 30) - state["left"]
    for calls in [used - 1, used - 3, *random.Random(threshold).sample(range(used), 4)]:
        shutil.rmtree(tmp_path / "set")
        shutil.copytree(tmp_path / "old", tmp_path / "set")
        state["left"] = calls
        with pytest.raises(Killed):
            make(tmp_path, files, threshold=threshold, **more)
        state["left"] = 1 << 30
        found = tmp_path / "set" if (tmp_path / "set").exists() else tmp_path / ".set.old"  # between two renames
        assert content(found) in (old, new), calls
        make(tmp_path, files, threshold=threshold, **more)
        assert content(tmp_path / "set") == new and not (tmp_path / ".set.partial").exists(), calls


def test_a_resumed_run_does_not_parse_again(tmp_path, monkeypatch, small_blocks):
    files = write(tmp_path, "parquet")
    make(tmp_path, files, "good")
    with monkeypatch.context() as patch:
        patch.setattr(journal.TableJournal, "finish_feature", _stop_at_third(journal.TableJournal.finish_feature))
        with pytest.raises(KeyboardInterrupt):
            make(tmp_path, files)
    monkeypatch.setattr(read_arrow.ParquetFile, "blocks", None)  # whoever parses, fails
    make(tmp_path, files)
    assert content(tmp_path / "set") == content(tmp_path / "good")


def _stop_at_third(original):
    calls = []

    def call(*arguments):
        calls.append(arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt
        original(*arguments)

    return call


def test_block_sizes_and_workers_do_not_change_the_bytes(tmp_path, monkeypatch, small_blocks):
    files = write(tmp_path, "parquet")
    make(tmp_path, files, "small", workers=1)
    monkeypatch.setattr(read_arrow, "BLOCK_ROWS", 1 << 16)
    make(tmp_path, files, "large", workers=3)
    assert content(tmp_path / "small") == content(tmp_path / "large")


def test_running_again(tmp_path, capsys):
    files = write(tmp_path, "parquet")
    assert not make(tmp_path, files).already_complete
    assert make(tmp_path, files).already_complete
    with pytest.raises(DifferentDatasetError, match="schema: existing"):
        make(tmp_path, files, schema=SCHEMA.replace("standardize", "none"))
    with pytest.raises(DifferentDatasetError, match="input 2"):
        make(tmp_path, files[:1], schema=SCHEMA)
    assert make(tmp_path, files, threshold=1).warnings[-1].startswith("replaced the existing dataset: threshold")
    make(tmp_path, files, "fresh", threshold=1)
    assert content(tmp_path / "set") == content(tmp_path / "fresh")


def test_a_higher_threshold_is_derived_from_the_ids(tmp_path, monkeypatch):
    files, schema = write(tmp_path, "parquet"), SCHEMA.replace(", n: {max_cardinality: 9}", "")
    make(tmp_path, files, "fresh", threshold=9, schema=schema)
    make(tmp_path, files, threshold=2, schema=schema)
    monkeypatch.setattr(read_arrow.ParquetFile, "blocks", None)  # whoever parses, fails
    make(tmp_path, files, threshold=9, schema=schema)
    assert content(tmp_path / "set") == content(tmp_path / "fresh") and verify(tmp_path / "set", quiet=True).good


def test_a_shuffled_dataset_has_the_same_rows(tmp_path):
    schema = PLAIN.replace("n: {}", "n: {}, more: {hotness: 2}")
    files = write(tmp_path, "parquet")
    plain, mixed = make(tmp_path, files, "plain", schema=schema), make(tmp_path, files, "mixed", schema=schema, seed=5)
    for split in ("train", "test"):
        assert _rows_in(tmp_path / "plain", plain.spec, split) == _rows_in(tmp_path / "mixed", mixed.spec, split)
    assert content(tmp_path / "plain")["train/a.bin"] != content(tmp_path / "mixed")["train/a.bin"]
    assert content(tmp_path / "plain")["test/a.bin"] == content(tmp_path / "mixed")["test/a.bin"]
    with pytest.raises(ValueError, match="--shuffle global: column 'tags' has lists of different lengths"):
        make(tmp_path, files, "ragged", seed=5)


def _rows_in(folder, spec, split):
    """The samples of a split, sorted."""
    columns = []
    for feature, width in (("a", 1), ("n", 1), ("more", 2), ("x", 2)):
        data = np.fromfile(folder / spec.chunk_of(split, feature).files[0], spec.features[feature].dtype)
        columns.append([tuple(row) for row in data.reshape(-1, width).tolist()])
    return sorted(zip(*columns, strict=True))


@pytest.mark.parametrize("labelled", [True, False])
def test_new_rows_have_the_ids_and_numbers_of_the_dataset(labelled, tmp_path):
    files = write(tmp_path, "parquet")
    outcome = make(tmp_path, files)
    new = frame()[100:150] if labelled else frame()[100:150].drop("y", "day")
    new.write_parquet(tmp_path / "new.parquet")
    encode_table(
        tmp_path / "set", [tmp_path / "new.parquet"], destination=tmp_path / "new", resources=Resources(2, quiet=True)
    )
    old, made = content(tmp_path / "set"), content(tmp_path / "new")
    assert verify(tmp_path / "new", quiet=True).good
    for feature in ("a", "more", "n", "x"):
        file = outcome.spec.chunk_of("test", feature).files[0]
        row_bytes = len(old[file.replace("test", "train")]) // 200
        assert made[file] == old[file.replace("test", "train")][100 * row_bytes : 150 * row_bytes], feature
    assert made["test/label.bin"] == (old["train/label.bin"][100:150] if labelled else bytes(50))


def test_new_rows_may_have_unseen_values_and_other_formats(tmp_path):
    make(tmp_path, write(tmp_path, "csv"), schema=PLAIN)
    (tmp_path / "new.ndjson").write_text('{"a": "never seen", "n": "x", "x": 1, "q": null}\n{"a": null, "n": 3}\n')
    encode_table(
        tmp_path / "set", [tmp_path / "new.ndjson"], destination=tmp_path / "new", resources=Resources(2, quiet=True)
    )
    made = content(tmp_path / "new")
    assert made["test/a.bin"] == b"\0\0" and made["test/n.bin"][:1] == b"\0" and made["test/n.bin"][1:] != b"\0"
