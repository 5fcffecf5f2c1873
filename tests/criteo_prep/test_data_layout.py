"""The five-sample example of docs/data_layout.md is what the writer writes."""

import re
from pathlib import Path

import numpy as np

from criteo_prep.batch import Batch, Ids
from criteo_prep.feature_spec import Feature, tf_raw_spec
from criteo_prep.transcribe.tf_raw import Writer

PAGE = (Path(__file__).parents[2] / "docs" / "data_layout.md").read_text()


def test_the_example_is_true(tmp_path):
    lines = re.findall(r"^\| \d.*", PAGE, re.M)
    rows = np.array([[float(cell) for cell in line.strip("| ").split("|")] for line in lines])
    assert rows.shape == (5, 7)
    cardinalities = {"cat_0": 90, "cat_1": 300, "cat_2": 70_000}
    spec = tf_raw_spec([Feature(name, "int32", size) for name, size in cardinalities.items()], 2, ("train",))
    with Writer(tmp_path, spec, "train") as writer:
        ids = {name: Ids(rows[:, 4 + i].astype(np.int32)) for i, name in enumerate(cardinalities)}
        writer.write(Batch(rows[:, 1] == 1, rows[:, 2:4].astype(np.float16), ids))
    written = {f"train/{path.name}": path.read_bytes().hex(" ") for path in (tmp_path / "train").iterdir()}
    assert dict(re.findall(r"^(train/\w+\.bin) +((?:[0-9a-f]{2} ?)+)$", PAGE, re.M)) == written
