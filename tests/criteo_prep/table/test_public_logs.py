"""The forms of public logs: ids, splits and labels against a few lines of independent Python."""

import csv
import json

import numpy as np
import pytest
from support.log_samples import random_rows, write_rows
from support.public_logs import FORMS, counted_ids, ids_in

from criteo_prep.preprocess.request import Resources
from criteo_prep.preprocess.rules import make_rules
from criteo_prep.preprocess.run import preprocess
from criteo_prep.schema import CATEGORICAL, NUMERICAL
from criteo_prep.table.run import preprocess_table
from criteo_prep.verify import verify


def make(log, folder, threshold):
    schema = folder / f"schema_{threshold}.yaml"
    schema.write_text(log.schema.replace("{T}", str(threshold)), encoding="utf-8")
    dataset = folder / f"dataset_{threshold}"
    outcome = preprocess_table([log.path], dataset, schema=schema, options={}, resources=Resources(2, quiet=True))
    return dataset, outcome.spec


def labels_of(log):
    column, positive = log.label
    if log.path.suffix == ".ndjson":
        rows = [json.loads(line) for line in log.path.read_text(encoding="utf-8").splitlines()]
    else:
        with open(log.path, newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file, delimiter="\t" if log.path.suffix == ".tsv" else ","))
    return [str(row[column]) == positive for row in rows]


@pytest.mark.parametrize("form", FORMS)
def test_ids_are_as_counted_by_hand(form, tmp_path):
    log = FORMS[form](tmp_path)
    for threshold in (0, 3, 15):
        dataset, spec = make(log, tmp_path, threshold)
        for column, cells in log.columns.items():
            expected, ids = counted_ids(cells, threshold)
            assert spec.features[column].cardinality == len(ids) + 1, (column, threshold)
            assert ids_in(dataset, spec, split="train", feature=column) == expected[: log.num_train], (
                column,
                threshold,
            )
            assert ids_in(dataset, spec, split="test", feature=column) == expected[log.num_train :]
        labels = [np.fromfile(dataset / split / "label.bin", bool).tolist() for split in ("train", "test")]
        assert labels[0] + labels[1] == labels_of(log) and len(labels[0]) == log.num_train
        assert verify(dataset, quiet=True).good


def test_criteos_logs_with_a_schema_give_the_same_bytes(tmp_path):
    """Text of Criteo's form, with and without a schema: every file but the manifest, at three thresholds."""
    days = []
    for number in range(3):
        days.append(tmp_path / f"day_{number}")
        write_rows(days[-1], random_rows(number, 300 + number))
    columns = ["label", *NUMERICAL, *CATEGORICAL]
    for threshold in (0, 3):
        schema = tmp_path / f"schema_{threshold}.yaml"
        schema.write_text(
            "label: {column: label}\nnumerical:\n"
            + "".join(f"  {name}: {{transform: log_shift}}\n" for name in NUMERICAL)
            + "categorical:\n"
            + "".join(f"  {name}: {{type: hexadecimal, threshold: {threshold}}}\n" for name in CATEGORICAL)
            + f"split: {{test_file: {days[-1].name}, validation_file: half}}\n"
            + f'read: {{format: csv, delimiter: "\\t", quote: null, columns: [{", ".join(columns)}]}}\n',
            encoding="utf-8",
        )
        quiet = Resources(2, quiet=True)
        without, with_ = tmp_path / f"without_{threshold}", tmp_path / f"with_{threshold}"
        preprocess(days, without, rules=make_rules(threshold), resources=quiet)
        preprocess_table(days, with_, schema=schema, options={}, resources=quiet)
        files = sorted(str(path.relative_to(without)) for path in without.rglob("*.*") if path.name != "manifest.json")
        assert files == sorted(str(p.relative_to(with_)) for p in with_.rglob("*.*") if p.name != "manifest.json")
        for file in files:
            assert (without / file).read_bytes() == (with_ / file).read_bytes(), file
