"""Rows of Criteo's logs for tests, what becomes of them by an independent count, and a short way to preprocess them."""

import collections
import gzip
import math
import os
import random
import re
from pathlib import Path

import numpy as np

from criteo_prep.feature_spec import FeatureSpec
from criteo_prep.preprocess.parse.text_blocks import MAX_LINE_BYTES
from criteo_prep.preprocess.request import Resources
from criteo_prep.preprocess.rules import make_rules
from criteo_prep.preprocess.run import preprocess
from criteo_prep.transcribe.tf_raw import Reader

RULES = ("max_cardinality", "vocabulary_days", "on_bad_row", "on_truncated", "shuffle", "seed", "ids")
RESOURCES = ("workers", "memory_limit", "block_bytes", "checkpoint_bytes", "log", "task_sizes")


def make(paths, destination, threshold=3, **more):
    paths = [paths] if isinstance(paths, (str, Path)) else paths
    rules = make_rules(threshold, **{name: more.pop(name) for name in RULES if name in more})
    resources = Resources(quiet=True, **{name: more.pop(name) for name in RESOURCES if name in more})
    return preprocess(paths, destination, rules=rules, resources=resources, **more)


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


def plain_parse(text):
    """A twin of tsv.parse: good rows as (label, numbers, values), None for missing; each bad row's reason by line."""
    rows, bad = [], {}
    for number, row in enumerate(text.split(b"\n")[:-1]):
        fields = row.removesuffix(b"\r").split(b"\t")
        if fields == [b""]:
            bad[number] = "blank_line"
        elif len(row) > MAX_LINE_BYTES:
            bad[number] = "line_too_long"
        elif len(fields) != 40:
            bad[number] = "too_few_fields" if len(fields) < 40 else "too_many_fields"
        elif fields[0] not in (b"0", b"1"):
            bad[number] = "bad_label"
        elif not all(re.fullmatch(rb"|-?[0-9]{1,18}", field) for field in fields[1:14]):
            bad[number] = "bad_number"
        elif not all(re.fullmatch(rb"[0-9a-fA-F]{0,8}", field) for field in fields[14:]):
            bad[number] = "bad_value"
        else:
            numbers = [int(field) if field else None for field in fields[1:14]]
            rows.append((fields[0] == b"1", numbers, [int(field, 16) if field else None for field in fields[14:]]))
    return rows, bad


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
    with Reader(root, spec, split=split) as reader:
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


def kept_in(folder):
    """Names in a folder, without the inputs of the test."""
    return sorted(name for name in os.listdir(folder) if not name.startswith("day_"))
