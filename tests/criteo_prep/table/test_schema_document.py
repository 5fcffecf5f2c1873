"""The schema reader: what it reads, and one line for everything that is wrong."""

import pytest
import yaml
from support.any_json import mutations

from criteo_prep.table.schema import Categorical, Numerical, SplitRule, feature_names
from criteo_prep.table.schema_document import SchemaError, load_schema, parse_schema
from criteo_prep.table.schema_in_manifest import document_of

ISSUE = """
label: {column: clicked, positive: "yes"}
numerical:
  price: {transform: log1p, missing: 0, clip: [0, 1000]}
categorical:
  hour: {}
  site: {threshold: 3}
  "city, name": {max_cardinality: 100000}
split: {test_fraction: 0.2}
"""


def read(tmp_path, text):
    path = tmp_path / "schema.yaml"
    path.write_text(text, encoding="utf-8")
    return load_schema(path)


def test_the_schema_of_the_documentation(tmp_path):
    schema = read(tmp_path, ISSUE)
    assert (schema.label.column, schema.label.positive) == ("clicked", "yes")
    assert schema.numerical == (Numerical("price", "price", "log1p", missing=0.0, clip=(0.0, 1000.0)),)
    assert schema.categorical == (
        Categorical("hour", "hour"),
        Categorical("site", "site", threshold=3),
        Categorical("city, name", "city__name", cap=100000),
    )
    assert schema.split == SplitRule(test_fraction=0.2) and schema.split.names == ("train", "test")
    assert schema.columns == ("clicked", "price", "hour", "site", "city, name")


@pytest.mark.parametrize("split, columns, names", [
    ("{column: day, test: [23], validation: [22, x]}", "day", ("train", "test", "validation")),
    ("{time: ts, test_after: 2026-01-01}", "ts", ("train", "test")),
    ("{test_file: F, validation_file: half}", None, ("train", "test", "validation")),
])  # fmt: skip
def test_splits(tmp_path, split, columns, names):
    rule = read(tmp_path, ISSUE.replace("{test_fraction: 0.2}", split)).split
    assert (rule.reads, rule.names) == (columns, names)


def test_a_schema_survives_its_own_document(tmp_path):
    text = ISSUE.replace("hour: {}", "hour: {type: integer, vocabulary: v, hotness: 2, separator: '|'}")
    schema = read(tmp_path, text + "read: {delimiter: ';', columns: [a, b]}\n")
    again = parse_schema(document_of(schema), "again")
    assert again.numerical == schema.numerical and again.read == schema.read and again.split == schema.split
    assert [(c.column, c.type, c.hotness) for c in again.categorical] == [
        (c.column, c.type, c.hotness) for c in schema.categorical
    ]


@pytest.mark.parametrize("old, new, complaint", [
    ("label: {column: clicked", "label: {columm: clicked", "unknown key 'columm'"),
    ("column: clicked", "column: 5", "label: column is 5; it must be text"),
    ("transform: log1p", "transform: log2", "transform is 'log2'; the transforms are log_shift"),
    ("clip: [0, 1000]", "clip: [10, 1]", "the lowest value stands first"),
    ("missing: 0", "missing: .nan", "must be a finite number"),
    ("threshold: 3", "threshold: -1", "a whole number of at least 0"),
    ("threshold: 3", "threshold: 1.5", "threshold is 1.5"),
    ("max_cardinality: 100000", "max_cardinality: 1", "at least 2"),
    ("test_fraction: 0.2", "test_fraction: 1", "above 0 and below 1"),
    ("test_fraction: 0.2", "test_fraction: 0.2, time: ts", "it must have exactly one"),
    ("test_fraction: 0.2", "column: day", "test names no value"),
    ("test_fraction: 0.2", "time: ts, test_after: 2026-02-01, validation_after: 2026-01-01", "must be later"),
    ("hour: {}", "clicked: {}", "is the label"),
    ("hour: {}", "price: {}", "both numerical and categorical"),
    ("hour: {}", "hour: {type: decimal}", "type is 'decimal'; the types are"),
    ("hour: {}", "7: {}", "7 is not a name"),
    ("hour: {}", "hour: {}\n  hour: {}", "twice"),
    ("site: {threshold: 3}", "site: {vocabulary: v}\n  s2: {vocabulary: v, threshold: 2}", "threshold differs"),
    ("split:", "splits:", "unknown key 'splits'"),
])  # fmt: skip
def test_mistakes_are_named_in_one_line(tmp_path, old, new, complaint):
    assert old in ISSUE
    with pytest.raises(SchemaError, match=complaint) as raised:
        read(tmp_path, ISSUE.replace(old, new))
    assert str(raised.value).startswith(f"{tmp_path / 'schema.yaml'}: ") and "\n" not in str(raised.value)


@pytest.mark.parametrize("content, complaint", [
    (b"\xff\xfe", "UTF-8"), (b"", "must be a mapping"),
    (b"[1, 2]", "must be a mapping"), (b"a: [", "is not plain YAML"),
])  # fmt: skip
def test_a_file_that_is_no_schema(tmp_path, content, complaint):
    (tmp_path / "s.yaml").write_bytes(content)
    with pytest.raises(SchemaError, match=complaint):
        load_schema(tmp_path / "s.yaml")
    with pytest.raises(SchemaError, match="no such file"):
        load_schema(tmp_path / "other.yaml")


def test_any_document_is_a_schema_or_a_schema_error():
    """Documents of the right shape with any value in any place, and any documents."""
    good = yaml.safe_load(ISSUE.replace("{test_fraction: 0.2}", "{time: ts, test_after: 5, validation_after: 6}"))
    good["read"] = {"format": "csv", "delimiter": ";", "columns": ["a"]}
    num_good = 0
    for document in mutations(good, 3000):
        try:
            parse_schema(document, "it")
            num_good += 1
        except SchemaError as error:
            assert "\n" not in str(error) and len(str(error)) < 1000
    assert 0 < num_good < 3000


@pytest.mark.parametrize("columns, names", [
    (["a b", "a.b", "a/b"], ["a_b", "a_b_2", "a_b_3"]),
    (["label", "Label", "numerical"], ["label_2", "Label_3", "numerical_2"]),
    (["x", "x_offsets"], ["x", "x_offsets_2"]),
    (["x_offsets", "x"], ["x_offsets", "x_2"]),
    (["", "ä" * 300], ["_", "_" * 80]),
])  # fmt: skip
def test_feature_names_are_plain_and_different(columns, names):
    assert feature_names(columns) == names
