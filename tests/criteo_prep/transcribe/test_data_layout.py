"""docs/data_layout.md: its commands run as they stand, and its examples are what the writers write.

`PYTHONPATH=. python tests/criteo_prep/test_data_layout.py` prints the page with the examples as they are now.
"""

import filecmp
import functools
import re
import shlex
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

from criteo_prep import cli, generate_feature_spec
from criteo_prep.batch import Batch, Ids
from criteo_prep.feature_spec import Feature, FeatureSpec, tf_raw_spec
from criteo_prep.split_bin.files import split
from criteo_prep.split_bin.record import RecordForm
from criteo_prep.transcribe import __main__ as transcribe
from criteo_prep.transcribe import tf_raw
from criteo_prep.transcribe.request import Request
from criteo_prep.transcribe.run import transcribe_dataset

PAGE = Path(__file__).parents[3] / "docs" / "data_layout.md"
CARDINALITIES = {"cat_0": 90, "cat_1": 300, "cat_2": 70_000}
LAYOUTS = ("record_binary", "criteo_npy", "split_tfrecords", "csv", "parquet")
EXAMPLE = re.compile(r"<!-- example: (\w+) -->\n```\n(.*?)```\n", re.S)


def samples(page):
    """The table of the page, and tf_raw's spec for it."""
    lines = re.findall(r"^\| \d.*", page, re.M)
    rows = np.array([[float(cell) for cell in line.strip("| ").split("|")] for line in lines])
    assert rows.shape == (5, 7)
    spec = tf_raw_spec([Feature(name, "int32", size) for name, size in CARDINALITIES.items()], 2, splits=("train",))
    ids = {name: Ids(rows[:, 4 + i].astype(np.int32)) for i, name in enumerate(CARDINALITIES)}
    return Batch(rows[:, 1] == 1, rows[:, 2:4].astype(np.float16), ids), spec


def multi_hot():
    """cat_0 with 2 ids a sample, cat_1 with any number of them."""
    spec = tf_raw_spec([Feature("cat_0", "", 90, 2), Feature("cat_1", "", 300, ragged=True)], 0, splits=("train",))
    pairs = Ids(np.array([0, 1, 89, 2, 3, 4, 5, 6, 7, 8]), np.full(5, 2, np.int32))
    bags = Ids(np.array([299, 7, 256, 1, 2]), np.array([2, 0, 1, 0, 2], np.int32))
    return Batch(np.array([1, 0, 0, 1, 0]), None, {"cat_0": pairs, "cat_1": bags}), spec


def write(folder, batch, spec):
    with tf_raw.Writer(folder, spec, "train") as writer:
        writer.write(batch)
    spec.save(folder / "feature_spec.yaml")
    return folder


def listing(folder):
    """Every file but the feature spec: short ones on a line, text as text, others as offsets, bytes and characters."""
    lines = []
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != "feature_spec.yaml")
    for path in paths:
        name, content = str(path.relative_to(folder)), path.read_bytes()
        if path.suffix in (".csv", ".json"):
            lines += [f"{name}", *(f"  {line}" for line in content.decode().splitlines())]
        elif len(content) <= 20:
            lines.append(f"{name:<24} {content.hex(' ')}")
        else:
            lines.append(f"{name}  ({len(content)} bytes)")
            for start in range(0, len(content), 16):
                row = content[start : start + 16]
                text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in row)
                lines.append(f"  {start:04x}  {row.hex(' '):<47}  {text}".rstrip())
    return "\n".join(lines) + "\n"


@functools.cache
def examples(page):
    """name -> text, made anew."""
    made = {}
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        raw = write(root / "raw", *samples(page))
        made["tf_raw"] = listing(raw)
        made["tf_raw_multi_hot"] = listing(write(root / "multi", *multi_hot()))
        for layout in LAYOUTS:
            there = root / layout
            request = Request(raw, "tf_raw", dst_dataset_path=there, dst_dataset_type=layout, dst_prebatch_size=3)
            transcribe_dataset(request, quiet=True)
            for path in there.rglob("categorical_[12]"):  # as categorical_0
                for file in path.iterdir():
                    file.unlink()
            made[layout] = columns_of(there / "train.parquet") if layout == "parquet" else listing(there)
        words = np.zeros((5, 17), np.int32)
        batch, _ = samples(page)
        words[:, 0], words[:, 1:14] = batch.label, np.arange(13)
        words[:, 14:] = np.stack([ids.values for ids in batch.categorical.values()], axis=1)
        words.tofile(root / "records.bin")
        split(
            root / "records.bin",
            root / "split",
            form=RecordForm(hotness=(1, 1, 1)),
            slot_sizes=list(CARDINALITIES.values()),
            quiet=True,
        )
        (root / "split/dense.bin").unlink()
        made["split_bin"] = listing(root / "split")
    return made


def columns_of(path):
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    return "train.parquet\n" + "".join(
        f"  {field.name:<6} {str(field.type):<6} {table[field.name].to_pylist()}\n" for field in table.schema
    )


@pytest.mark.parametrize("name", ["tf_raw", "tf_raw_multi_hot", *LAYOUTS, "split_bin"])
def test_the_examples_are_true(name):
    page = PAGE.read_text()
    assert dict(EXAMPLE.findall(page))[name] == examples(page)[name]


PROGRAMS = {
    "criteo-prep": cli.main,
    "python -m criteo_prep.transcribe": transcribe.main,
    "python -m criteo_prep.generate_feature_spec": generate_feature_spec.main,
    "cmp": lambda files: 0 if filecmp.cmp(*files, shallow=False) else 1,
}


def run_line(line):
    """Runs one command of a block, in this process. Returns its exit code."""
    words = shlex.split(line, comments=True)
    count = 3 if words[0] == "python" else 1
    return PROGRAMS[" ".join(words[:count])](words[count:])


@pytest.mark.parametrize("block", re.findall(r"^```bash\n(.*?)^```", PAGE.read_text(), re.M | re.S))
def test_a_block_of_commands_survives_being_pasted_whole(tmp_path, monkeypatch, block):
    monkeypatch.chdir(tmp_path)
    lines = [line for line in block.replace("\\\n", "").splitlines() if line.partition("#")[0].strip()]
    assert len(lines) >= 3
    assert [(line, run_line(line)) for line in lines] == [(line, 0) for line in lines]


def test_the_spec_of_the_page_is_one(tmp_path):
    (text,) = re.findall(r"^```yaml\n(.*?)^```", PAGE.read_text(), re.M | re.S)
    (tmp_path / "feature_spec.yaml").write_text(text)
    spec = FeatureSpec.load(tmp_path / "feature_spec.yaml")
    assert spec.splits == ("train", "test") and spec.features["cat_1"].alpha == 1.45


if __name__ == "__main__":
    text = PAGE.read_text()
    made = examples(text)
    sys.stdout.write(EXAMPLE.sub(lambda m: f"<!-- example: {m[1]} -->\n```\n{made[m[1]]}```\n", text))
