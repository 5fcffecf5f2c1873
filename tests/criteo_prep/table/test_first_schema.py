"""`criteo-prep schema`: the first schema of a log reads as a schema, and the log goes through it."""

import random

import polars as pl
import pytest
import yaml
from support.public_logs import FORMS

from criteo_prep.cli import main
from criteo_prep.table.first_schema import first_schema
from criteo_prep.table.schema_document import load_schema


def log(num_rows=3000):
    source = random.Random(3)
    return pl.DataFrame({
        "row": range(num_rows),
        "Clicked?": [source.choice(["yes", "no"]) for _ in range(num_rows)],
        "price": [source.gauss(20, 4) for _ in range(num_rows)],
        "views": [int(source.paretovariate(0.4)) for _ in range(num_rows)],
        "user_id": [source.randrange(1500) for _ in range(num_rows)],
        "hash": [f"{source.randrange(40):08x}" for _ in range(num_rows)],
        "genres": ["|".join(source.sample("abcdef", source.randrange(1, 5))) for _ in range(num_rows)],
        "tags": [[source.randrange(9)] * source.randrange(3) for _ in range(num_rows)],
        "seen": [f"2026-01-{1 + row % 28:02} 10:00:00" for row in range(num_rows)],
        "same": ["x"] * num_rows,
        "no": [source.choice([None, "on", "a: b # c"]) for _ in range(num_rows)],
    })  # fmt: skip


def test_each_column_is_what_it_looks_like(tmp_path):
    log().write_parquet(tmp_path / "log.parquet")
    text = first_schema([tmp_path / "log.parquet"])
    schema = yaml.safe_load(text)
    assert schema["label"] == {"column": "Clicked?", "positive": "yes"}
    assert {name: each["transform"] for name, each in schema["numerical"].items()} == {
        "price": "standardize", "views": "log1p",
    }  # fmt: skip
    assert list(schema["categorical"]) == ["user_id", "hash", "genres", "tags", "no"]
    assert schema["categorical"]["genres"]["separator"] == "|"
    assert "#   row: a different value in every row" in text and "#   same: the same value" in text
    assert "#   seen: a time" in text and "{time: seen, test_after: ...}" in text


@pytest.mark.parametrize("form", FORMS)
def test_public_forms_go_through_their_first_schema(form, tmp_path, capsys):
    path = FORMS[form](tmp_path).path
    assert main(["schema", str(path), "-o", str(tmp_path / "schema.yaml")]) == 0
    load_schema(tmp_path / "schema.yaml")
    arguments = ["preprocess", "--schema", str(tmp_path / "schema.yaml"), str(path), "--output", str(tmp_path / "set")]
    assert main([*arguments, "--quiet"]) == 0
    assert main(["verify", str(tmp_path / "set"), "--quiet"]) == 0


def test_a_schema_is_never_overwritten(tmp_path, capsys):
    log(200).drop("tags").write_csv(tmp_path / "log.csv")
    (tmp_path / "schema.yaml").write_text("mine")
    assert main(["schema", str(tmp_path / "log.csv"), "-o", str(tmp_path / "schema.yaml")]) == 1
    assert "exists already" in capsys.readouterr().err and (tmp_path / "schema.yaml").read_text() == "mine"


def test_a_log_without_a_label_is_refused(tmp_path, capsys):
    (tmp_path / "log.csv").write_text("a,b\n1,2\n2,3\n3,4\n")
    assert main(["schema", str(tmp_path / "log.csv")]) == 1
    assert "no column has exactly two values in the first 3 rows" in capsys.readouterr().err
