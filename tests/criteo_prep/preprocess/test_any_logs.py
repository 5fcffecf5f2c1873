"""Any logs, by any rules, in any way of working: the dataset is what a few lines of plain Python make of them, or the
error names the file and the line."""

import collections
import math
import re
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.any_logs import FILES, PACK, RULES, text_of
from support.log_samples import make, plain_parse

from criteo_prep.feature_spec import FeatureSpec
from criteo_prep.preprocess.parse.text_stream import InputError
from criteo_prep.preprocess.parse.tsv import BadRowError

HOW = st.fixed_dictionaries(
    {
        "workers": st.integers(1, 3),
        "block_bytes": st.sampled_from([1, 100, 700, 1 << 20]),
        "checkpoint_bytes": st.sampled_from([0, 1 << 20]),
    }
)


def number_for(text, column):
    """What a flag such as "2,cat_1:0" says of a column; 14 is cat_0."""
    parts = [part.rpartition(":") for part in str(text).split(",")]
    named = {int(name.removeprefix("cat_")) - 14 * name.isdecimal(): int(n) for name, _, n in parts if name}
    return named.get(column, int(parts[0][2]) if not parts[0][0] else None)


def expected_ids(values, counted, threshold, cap):
    """Ids of some values (None: missing) by the counts of `counted`; and the cardinality."""
    counts = collections.Counter(value for value in counted if value is not None)
    kept = sorted((value for value in counts if counts[value] >= threshold), key=lambda value: (-counts[value], value))
    ids = {value: number if cap is None else 1 + (number - 1) % (cap - 1) for number, value in enumerate(kept, 1)}
    return [ids.get(value, 0) for value in values], min(len(kept) + 1, cap or len(kept) + 1)


def plain_log(number):
    return 0.0 if number is None or number <= -3 else float(np.float16(math.log(number + 3)))


def split_by_hand(files, test_fraction):
    """Rows of each split, in order."""
    rows = [row for file in files for row in file]
    if len(files) == 1 or test_fraction:
        cut = len(rows) - int(len(rows) * (test_fraction or 0.1) + 1e-9)
        return {"train": rows[:cut], "test": rows[cut:]}
    last, cut = len(rows) - len(files[-1]), len(rows) - len(files[-1]) // 2
    return {"train": rows[:last], "test": rows[last:cut], "validation": rows[cut:]}


def rows_in(root, split):
    """(label, numericals, ids) of every row, read without the program's reader."""
    spec = FeatureSpec.load(root / "feature_spec.yaml")
    label = np.fromfile(root / split / "label.bin", bool).tolist()
    numerical = np.fromfile(root / split / "numerical.bin", np.float16).reshape(-1, 13).tolist()
    ids = [np.fromfile(root / split / f"{f.name}.bin", f.dtype).tolist() for f in spec.categorical]
    return [*zip(label, map(tuple, numerical), zip(*ids, strict=True), strict=True)]


def check(files, rules, how, test_fraction):
    texts = [text_of(rows, last_newline) for rows, _, last_newline in files]
    parsed = [plain_parse(text + b"\n" * (not text.endswith(b"\n") and bool(text))) for text in texts]
    good = [[(label, *fields) for label, *fields in rows] for rows, _ in parsed]
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"day_{number}" for number in range(len(files))]
        for path, text, (_, pack, _) in zip(paths, texts, files, strict=True):
            path.write_bytes(PACK[pack](text))
        run = lambda: make(paths, Path(folder) / "set", **rules, **how, test_fraction=test_fraction)  # noqa: E731
        bad = [(path, line) for path, (_, lines) in zip(paths, parsed, strict=True) for line in sorted(lines)]
        splits = split_by_hand(good, test_fraction)
        if bad and rules["on_bad_row"] == "error":
            with pytest.raises(BadRowError, match=re.escape(f"{bad[0][0]}: line {bad[0][1] + 1}: ")):
                run()
            return
        if not splits["train"]:
            with pytest.raises(InputError, match="no good row to train on"):
                run()
            return
        outcome = run()
        assert [sum(entry["skipped"].values()) for entry in outcome.manifest["inputs"]] == [len(b) for _, b in parsed]
        everything = [row for rows in splits.values() for row in rows]
        counted = splits["train"] if rules["vocabulary_days"] == "train" else everything
        columns = []
        for column in range(26):
            cap = number_for(rules["max_cardinality"], column) if rules["max_cardinality"] else None
            ids, cardinality = expected_ids([row[2][column] for row in everything], [row[2][column] for row in counted],
                                            number_for(rules["threshold"], column), cap)  # fmt: skip
            assert outcome.spec.categorical[column].cardinality == cardinality
            columns.append(ids)
        ids = iter(zip(*columns, strict=True))
        for split, rows in splits.items():
            expected = [(label, tuple(map(plain_log, numbers)), next(ids)) for label, numbers, _ in rows]
            found = rows_in(Path(folder) / "set", split)
            if split == "train" and rules["shuffle"] == "global":
                expected, found = sorted(expected), sorted(found)
            assert found == expected, split


@settings(max_examples=20, deadline=None)
@given(FILES, RULES, HOW, st.sampled_from([None, None, 0.5]))
def test_any_logs(files, rules, how, test_fraction):
    check(files, rules, how, test_fraction)


@pytest.mark.long
@settings(max_examples=200, deadline=None)
@given(FILES, RULES, HOW, st.sampled_from([None, None, 0.5]))
def test_many_more_logs(files, rules, how, test_fraction):
    check(files, rules, how, test_fraction)
