"""Any table: formats, types, lists, shared vocabularies, splits; each against a few lines of Python."""

import gzip
import random
from collections import Counter
from datetime import datetime, timedelta

import numpy as np
import polars as pl
import pyarrow.parquet
import pytest
from support.public_logs import counted_ids, ids_in

from criteo_prep.preprocess.request import Resources
from criteo_prep.table.run import preprocess_table
from criteo_prep.table.value_codes import IntegerCodes, TextCodes
from criteo_prep.verify import verify


def make(folder, files, schema, name="set", **options):
    path = folder / f"{name}.yaml"
    path.write_text(schema, encoding="utf-8")
    quiet = Resources(2, quiet=True)
    outcome = preprocess_table(files, folder / name, schema=path, options=options, resources=quiet)
    assert verify(folder / name, quiet=True).good
    return outcome


def ids(folder, outcome, feature, splits=("train", "test")):
    return [id_ for split in splits for id_ in ids_in(folder / "set", outcome.spec, split=split, feature=feature)]


def test_text_is_ordered_by_its_utf8_bytes_and_integers_by_their_value(tmp_path):
    cells = {"t": ["b", "a", "Z", "ä", "\U0001f600", "~", "", None], "i": ["10", "9", "-1", "007", "7", "", "+5", None]}
    cells["n"] = ["10", "9", "-1", "007", "7", "", "8", None]
    frame = pl.DataFrame({"y": [0, 1] * 4, **cells})
    schema = "label: {column: y}\ncategorical: {t: {}, i: {}, n: {}, n2: {}}\nsplit: {test_fraction: 0.2}\n"
    frame.with_columns(pl.col("n").alias("n2")).write_csv(tmp_path / "log.csv")
    outcome = make(tmp_path, [tmp_path / "log.csv"], schema.replace("n2: {}", "n2: {type: text}"))
    assert ids(tmp_path, outcome, "t") == [3, 2, 1, 5, 6, 4, 0, 0]
    assert ids(tmp_path, outcome, "i") == ids_of_texts(cells["i"])  # +5 is text, so all are
    assert ids(tmp_path, outcome, "n") == [5, 4, 2, 1, 1, 0, 3, 0]  # 007 and 7 are one value, seen twice
    assert ids(tmp_path, outcome, "n2") == ids_of_texts(cells["n"])
    kinds = {name: pyarrow.parquet.read_schema(tmp_path / f"set/vocabularies/{name}.parquet").field("value").type
             for name in ("t", "n", "n2")}  # fmt: skip
    assert {name: str(kind) for name, kind in kinds.items()} == {"t": "string", "n": "int64", "n2": "string"}


def ids_of_texts(cells):
    texts = sorted(filter(None, cells), key=str.encode)
    return [texts.index(value) + 1 if value else 0 for value in cells]


@pytest.mark.parametrize("dtype", [pl.Int8, pl.UInt16, pl.Int64, pl.Float64, pl.String, pl.Categorical, pl.Boolean])
def test_columns_of_any_type(dtype, tmp_path):
    source = random.Random(1)
    numbers = [source.choice([None, *range(2 if dtype == pl.Boolean else 12)]) for _ in range(300)]
    series = (
        pl.Series(numbers).cast(pl.String).cast(dtype) if dtype == pl.Categorical else pl.Series(numbers).cast(dtype)
    )
    pl.DataFrame({"y": [0, 1] * 150, "a": series}).write_parquet(tmp_path / "log.parquet")
    outcome = make(tmp_path, [tmp_path / "log.parquet"],
                   "label: {column: y}\ncategorical: {a: {threshold: 20}}\nsplit: {test_fraction: 0.5}\n")  # fmt: skip
    assert ids(tmp_path, outcome, "a") == counted_ids(numbers, 20)[0]


def test_lists_of_one_vocabulary(tmp_path):
    source = random.Random(2)
    a = [[f"t{source.randrange(20)}" for _ in range(source.randrange(4))] for _ in range(200)]
    b = [source.choice([None, f"t{source.randrange(25)}"]) for _ in range(200)]
    c = ["|".join(f"t{source.randrange(9)}" for _ in range(source.randrange(3))) for _ in range(200)]
    pl.DataFrame({"y": [0, 1] * 100, "a": a, "b": b, "c": c}).write_parquet(tmp_path / "log.parquet")
    schema = (
        "label: {column: y}\ncategorical:\n  a: {vocabulary: t, threshold: 3}\n  b: {vocabulary: t, threshold: 3}\n"
    )
    schema += "  c: {vocabulary: t, threshold: 3, separator: '|', hotness: 3}\nsplit: {test_fraction: 0.3}\n"
    outcome = make(tmp_path, [tmp_path / "log.parquet"], schema)
    pieces = [cell.split("|") if cell else [] for cell in c]
    counts = Counter(value for cell in [*a, *pieces, [value for value in b if value]] for value in cell)
    order = sorted((v for v in counts if counts[v] >= 3), key=lambda v: (-counts[v], v))
    id_of = {value: place for place, value in enumerate(order, 1)}
    assert ids(tmp_path, outcome, "a") == [[id_of.get(v, 0) for v in cell] for cell in a]
    assert ids(tmp_path, outcome, "b") == [id_of.get(v, 0) for v in b]
    assert ids(tmp_path, outcome, "c") == [([id_of.get(v, 0) for v in cell] + [0] * 3)[:3] for cell in pieces]
    assert {outcome.spec.features[f].cardinality for f in "abc"} == {len(order) + 1}


def test_the_formats_have_the_same_samples(tmp_path):
    source = random.Random(3)
    frame = pl.DataFrame({
        "y": [source.choice(["yes", "no"]) for _ in range(500)],
        "x": [source.choice([None, round(source.gauss(0, 9), 3)]) for _ in range(500)],
        "a b": [source.choice([None, "ä,\"b\"", "line\nbreak", "x;y", f"v{source.randrange(30)}"]) for _ in range(500)],
    })  # fmt: skip
    schema = 'label: {column: y, positive: "yes"}\nnumerical: {x: {transform: standardize}}\ncategorical: {"a b": {}}\n'
    schema += "split: {test_fraction: 0.1}\n"
    frame.write_parquet(tmp_path / "a.parquet")
    frame.write_ipc(tmp_path / "a.arrow")
    frame.write_ipc_stream(tmp_path / "b.arrow")
    frame.write_ndjson(tmp_path / "a.ndjson")
    frame.write_csv(tmp_path / "a.csv")
    frame.write_csv(tmp_path / "b.csv", separator=";", quote_char="'")
    (tmp_path / "c.csv.gz").write_bytes(gzip.compress((tmp_path / "a.csv").read_bytes()))
    (tmp_path / "b.ndjson.gz").write_bytes(gzip.compress((tmp_path / "a.ndjson").read_bytes()))
    first = None
    for file in ("a.parquet", "a.arrow", "b.arrow", "a.ndjson", "b.ndjson.gz", "a.csv", "b.csv", "c.csv.gz"):
        read = "read: {delimiter: ';', quote: \"'\"}\n" if file == "b.csv" else ""
        make(tmp_path, [tmp_path / file], schema + read, name=f"set_{file}")
        root = tmp_path / f"set_{file}"
        found = {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*.*") if p.name != "manifest.json"}
        first = first or found
        assert found == first, file


def test_splits_by_column_time_and_files(tmp_path):
    start = datetime(2026, 1, 1)
    frame = pl.DataFrame({
        "y": [0, 1] * 12, "a": range(24), "day": [row % 4 for row in range(24)],
        "ts": [start + timedelta(hours=row) for row in range(24)],
    }).with_columns(pl.col("ts").dt.to_string("%Y-%m-%d %H:%M:%S").alias("text"),
                    (pl.col("ts").dt.epoch("s")).alias("epoch"))  # fmt: skip
    frame.write_parquet(tmp_path / "log.parquet")
    base = "label: {column: y}\ncategorical: {a: {}}\nsplit: "
    late = [row >= 18 for row in range(24)]
    for number, (split, is_test) in enumerate([
        ("{column: day, test: [1, 3]}", [row % 4 in (1, 3) for row in range(24)]),
        ("{time: ts, test_after: 2026-01-01 18:00:00}", late),
        ("{time: text, test_after: 2026-01-01 18:00:00}", late),
        (f"{{time: epoch, test_after: {int(frame['epoch'][18])}}}", late),
    ]):  # fmt: skip
        outcome = make(tmp_path, [tmp_path / "log.parquet"], base + split, name=f"set{number}")
        rows = [row for row in range(24) if not is_test[row]], [row for row in range(24) if is_test[row]]
        for part, name in zip(rows, ("train", "test"), strict=True):
            found = ids_in(tmp_path / f"set{number}", outcome.spec, split=name, feature="a")
            assert found == [row + 1 for row in part], split
    files = [tmp_path / f"{name}.parquet" for name in ("one", "two", "three")]
    for place, file in enumerate(files):
        frame[8 * place : 8 * place + 8].write_parquet(file)
    outcome = make(tmp_path, files, base + "{test_file: two.parquet, validation_file: half}", name="set4")
    expected = {"train": [*range(8), *range(16, 24)], "test": range(8, 12), "validation": range(12, 16)}
    for name, rows in expected.items():
        assert ids_in(tmp_path / "set4", outcome.spec, split=name, feature="a") == [row + 1 for row in rows]


def test_vocabularies_and_statistics_of_train_rows_only(tmp_path):
    pl.DataFrame({"y": [0, 1, 0, 1], "a": ["p", "q", "r", "r"], "x": [1.0, 3.0, 100.0, 100.0]}).write_csv(
        tmp_path / "l.csv"
    )
    schema = "label: {column: y}\nnumerical: {x: {transform: standardize}}\ncategorical: {a: {}}\n"
    outcome = make(tmp_path, [tmp_path / "l.csv"], schema + "split: {test_fraction: 0.5}\n", vocabulary_days="train")
    assert ids(tmp_path, outcome, "a") == [1, 2, 0, 0] and outcome.spec.features["a"].cardinality == 3
    known = outcome.manifest["statistics"]["x"]
    assert (known["mean"], known["standard_deviation"]) == (2.0, 1.0)
    assert np.fromfile(tmp_path / "set/train/numerical.bin", np.float16).tolist() == [-1, 1]
    assert np.fromfile(tmp_path / "set/test/numerical.bin", np.float16).tolist() == [98, 98]


def test_a_cap_folds_the_highest_ids(tmp_path):
    values = [value for value in range(9) for _ in range(10 - value)]
    pl.DataFrame({"y": [n % 2 for n in range(len(values))], "a": values}).write_parquet(tmp_path / "log.parquet")
    schema = "label: {column: y}\ncategorical: {a: {max_cardinality: 4}}\nsplit: {test_fraction: 0.1}\n"
    outcome = make(tmp_path, [tmp_path / "log.parquet"], schema)
    assert ids(tmp_path, outcome, "a") == [1 + value % 3 for value in values]


def test_a_column_with_too_many_values_for_the_memory_limit_is_refused(tmp_path, monkeypatch):
    pl.DataFrame({"y": [0, 1] * 500, "a": [f"v{n}" for n in range(1000)]}).write_parquet(tmp_path / "log.parquet")
    monkeypatch.setattr("criteo_prep.table.value_codes.TEXT_BYTES", 1 << 40)
    schema = "label: {column: y}\ncategorical: {a: {}}\nsplit: {test_fraction: 0.1}\n"
    with pytest.raises(ValueError, match="column 'a': more than 1,000 distinct values do not fit the memory limit"):
        make(tmp_path, [tmp_path / "log.parquet"], schema)


@pytest.mark.parametrize("table, values", [
    (IntegerCodes, [5, None, -1, 5, 2**63 - 1, -(2**63), 0, *range(10_000), 5]),
    (TextCodes, ["b", None, "a", "b", *map(str, range(10_000)), "a"]),
])  # fmt: skip
def test_codes_number_the_values_in_the_order_of_their_first_occurrence(table, values):
    codes, coded = table(), []
    for start in range(0, len(values), 777):
        coded += codes.codes(pl.Series(values[start : start + 777])).tolist()
    order = list(dict.fromkeys(value for value in values if value is not None))
    assert coded == [0 if value is None else order.index(value) + 1 for value in values[:50]] + coded[50:]
    assert codes.values().to_list() == order and coded[-1] == order.index(values[-1]) + 1
    assert table(codes.values()).codes(pl.Series(values)).tolist() == coded
