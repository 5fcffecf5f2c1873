"""A schema as the manifest of a dataset has it: a document that parse_schema reads again."""

from dataclasses import asdict, fields
from datetime import date
from pathlib import Path

from criteo_prep.table.schema import HALF, TableSchema


def document_of(schema: TableSchema) -> dict:
    """The document that `parse_schema` reads as this schema, without what does not change the samples' features.

    Thresholds and caps are left out: the manifest has them next to the schema, because they are about ids.
    """
    numerical = {each.column: _without_defaults(each, ("column", "feature")) for each in schema.numerical}
    about_ids = ("column", "feature", "threshold", "cap")
    categorical = {
        each.column: _without_defaults(each, (*about_ids, *(["max_length"] if each.hotness else [])))
        for each in schema.categorical
    }
    split = _without_defaults(schema.split, ())
    for key in ("test", "validation"):
        if key in split:
            split[key] = list(split[key])
    for key in ("test_after", "validation_after"):
        if isinstance(split.get(key), date):
            split[key] = split[key].isoformat()
    for key in ("test_file", "validation_file"):
        if split.get(key, HALF) != HALF:
            split[key] = Path(split[key]).name
    read = _without_defaults(schema.read, ())
    return {
        "label": asdict(schema.label),
        "numerical": numerical,
        "categorical": categorical,
        "split": split,
        **({"read": {**read, **({"columns": list(read["columns"])} if "columns" in read else {})}} if read else {}),
    }


def _without_defaults(record: object, left_out: tuple[str, ...]) -> dict:
    found = {}
    for field in fields(record):
        value = getattr(record, field.name)
        if field.name not in left_out and value != field.default:
            found[field.name] = list(value) if field.name == "clip" else value
    return found
