"""Small synthetic files in the forms of public click logs, with a schema for each; and an independent count of ids."""

import csv
import json
import random
from collections import Counter
from typing import NamedTuple

import numpy as np


class PublicLog(NamedTuple):
    """A file in the form of a public log.

    Attributes:
      path: the file.
      schema: the text of a schema; {T} stands for a threshold.
      label: the column of the label, and its positive value as text.
      columns: categorical column -> its values as a list of one cell a row; a cell of a list column is a list.
      num_train: rows at the beginning that are train rows.
    """

    path: object
    schema: str
    label: tuple[str, str]
    columns: dict[str, list]
    num_train: int


def counted_ids(cells: list, threshold: int) -> tuple[list, dict]:
    """(the ids of each cell, value -> id) by a few lines of Python that share nothing with the program."""
    flat = [value for cell in cells for value in (cell if isinstance(cell, list) else [cell])]
    counts = Counter(value for value in flat if value not in ("", None))
    integers = all(isinstance(v, int) or (v.lstrip("-").isdigit() and v.lstrip("-").isascii()) for v in counts)
    merged = Counter()
    for value, count in counts.items():
        merged[int(value) if integers else value] += count
    order = sorted(merged, key=lambda v: (-merged[v], v if integers else v.encode()))
    ids = {value: place for place, value in enumerate((v for v in order if merged[v] >= threshold), 1)}

    def id_of(value):
        return 0 if value in ("", None) else ids.get(int(value) if integers else value, 0)

    return [[id_of(v) for v in cell] if isinstance(cell, list) else id_of(cell) for cell in cells], ids


def avazu(folder, num_rows=600) -> PublicLog:
    """Avazu's train.csv: an id, click, an hour such as 14102100, integers and hexadecimal hashes."""
    rng = random.Random(1)
    names = ["id", "click", "hour", "C1", "banner_pos", "site_id", "app_id", "device_ip", "C14", "C20"]
    rows = [
        [10**18 + i, int(rng.random() < 0.2), 14102100 + i * 48 // num_rows, rng.choice([1005, 1002]),
         rng.randrange(8), f"{int(rng.paretovariate(0.5)) % 2**32:08x}", f"{rng.randrange(30):08x}",
         f"{rng.randrange(2**32):08x}", rng.randrange(500, 700), rng.choice([-1, 100084, 100000])]
        for i in range(num_rows)
    ]  # fmt: skip
    path = _write_csv(folder / "avazu.csv", names, rows)
    used = ["hour", "C1", "banner_pos", "site_id", "app_id", "device_ip", "C14", "C20"]
    schema = f"label: {{column: click}}\n{_categorical(used)}split: {{time: hour, test_after: 14102140}}\n"
    num_train = sum(row[2] < 14102140 for row in rows)
    return PublicLog(path, schema, ("click", "1"), _columns(names, rows, used), num_train)


def criteo_kaggle(folder, num_rows=500) -> PublicLog:
    """Criteo's Kaggle train.csv with a header: 13 integers and 26 hashes, with missing values."""
    rng = random.Random(2)
    numbers, values = [f"I{i}" for i in range(1, 14)], [f"C{i}" for i in range(1, 27)]
    rows = [
        [int(rng.random() < 0.25), *(rng.choice(["", -1, 0, rng.randrange(5000)]) for _ in numbers),
         *(rng.choice(["", f"{int(rng.paretovariate(0.7)) % 2**32:08x}"]) for _ in values)]
        for _ in range(num_rows)
    ]  # fmt: skip
    path = _write_csv(folder / "train.csv", ["Label", *numbers, *values], rows)
    schema = "label: {column: Label}\nnumerical:\n" + "".join(
        f"  {name}: {{transform: log_shift}}\n" for name in numbers
    )
    schema += _categorical(values) + "split: {test_fraction: 0.1}\n"
    columns = _columns(["Label", *numbers, *values], rows, values)
    return PublicLog(path, schema, ("Label", "1"), columns, num_rows - num_rows // 10)


def criteo_uplift(folder, num_rows=400) -> PublicLog:
    """Criteo's uplift log: twelve floats, a treatment, and a visit; the label is conversion."""
    rng = random.Random(3)
    names = [*(f"f{i}" for i in range(12)), "treatment", "conversion", "visit", "exposure"]
    rows = [
        [*(f"{rng.gauss(10, 3):.6f}" for _ in range(12)), rng.randrange(2), int(rng.random() < 0.1),
         rng.randrange(2), rng.randrange(2)]
        for _ in range(num_rows)
    ]  # fmt: skip
    path = _write_csv(folder / "uplift.csv", names, rows)
    schema = "label: {column: conversion}\nnumerical:\n"
    schema += "".join(f"  f{i}: {{transform: {'standardize' if i % 2 else 'quantile'}}}\n" for i in range(12))
    schema += _categorical(["treatment", "f3"]).replace("  f3", "  exposure") + "split: {test_fraction: 0.25}\n"
    return PublicLog(path, schema, ("conversion", "1"), _columns(names, rows, ["treatment", "exposure"]), 300)


def criteo_attribution(folder, num_rows=400) -> PublicLog:
    """Criteo's attribution log: tabs, a timestamp in seconds, negative ids, floats."""
    rng = random.Random(4)
    names = ["timestamp", "uid", "campaign", "conversion", "conversion_id", "click", "cost", "cat1", "cat2"]
    rows = [
        [i * 1000, rng.randrange(50), rng.randrange(5) * 1000003, 0, rng.choice([-1, 7]), int(rng.random() < 0.4),
         f"{rng.random() / 1000:.10f}", rng.choice([-5, 138937, 28928366]), rng.randrange(40)]
        for i in range(num_rows)
    ]  # fmt: skip
    path = _write_csv(folder / "attribution.tsv", names, rows, "\t")
    used = ["uid", "campaign", "conversion_id", "cat1", "cat2"]
    schema = "label: {column: click}\nnumerical:\n  cost: {transform: log1p}\n" + _categorical(used)
    schema += "split: {time: timestamp, test_after: 300000}\n"
    return PublicLog(path, schema, ("click", "1"), _columns(names, rows, used), 300)


def outbrain(folder, num_rows=400) -> PublicLog:
    """Rows with lists, as Outbrain's documents have topics and entities: JSON lines."""
    rng = random.Random(5)
    rows = [
        {"clicked": rng.random() < 0.2, "ad_id": rng.randrange(60), "platform": rng.choice(["1", "2", "\\N", None]),
         "topics": [rng.randrange(300) for _ in range(rng.randrange(4))],
         "entities": [f"{rng.randrange(40):032x}" for _ in range(rng.randrange(3))]}
        for _ in range(num_rows)
    ]  # fmt: skip
    path = folder / "outbrain.ndjson"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    used = ["ad_id", "platform", "topics", "entities"]
    schema = f"label: {{column: clicked}}\n{_categorical(used)}split: {{test_fraction: 0.5}}\n"
    return PublicLog(path, schema, ("clicked", "True"), {name: [row[name] for row in rows] for name in used}, 200)


FORMS = {
    "avazu": avazu,
    "criteo_kaggle": criteo_kaggle,
    "criteo_uplift": criteo_uplift,
    "criteo_attribution": criteo_attribution,
    "outbrain": outbrain,
}


def ids_in(dataset, spec, *, split: str, feature: str) -> list:
    """The ids of a feature in a split: one a row, or a list of them for a ragged feature."""
    files = spec.chunk_of(split, feature).files
    ids = np.fromfile(dataset / files[0], spec.features[feature].dtype).tolist()
    if len(files) == 1:
        hotness = spec.features[feature].hotness
        return ids if hotness == 1 else [ids[i : i + hotness] for i in range(0, len(ids), hotness)]
    offsets = np.fromfile(dataset / files[1], np.int64).tolist()
    return [ids[start:stop] for start, stop in zip(offsets, offsets[1:], strict=False)]


def _categorical(names) -> str:
    return "categorical:\n" + "".join(f"  {name}: {{threshold: {{T}}}}\n" for name in names)


def _columns(names, rows, used) -> dict[str, list]:
    return {name: [str(row[names.index(name)]) for row in rows] for name in used}


def _write_csv(path, names, rows, delimiter=","):
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerow(names)
        writer.writerows(rows)
    return path
