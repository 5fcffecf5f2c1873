"""The manifest of a dataset that a schema describes, with all that later commands read in it."""

from collections.abc import Iterator
from pathlib import Path

from criteo_prep import manifest
from criteo_prep.manifest import MANIFEST, ManifestError
from criteo_prep.messages import one_line, shown
from criteo_prep.table.document_values import SchemaError
from criteo_prep.table.request import ENCODE, FEATURE_SPEC, PREPROCESS
from criteo_prep.table.schema import TableSchema
from criteo_prep.table.schema_document import parse_schema


def has_schema(dataset: str | Path) -> bool:
    """Whether a folder holds a dataset that `preprocess --schema` or `encode` of such a dataset made."""
    try:
        return manifest.load_manifest(dataset)["made_by"] in (PREPROCESS, ENCODE)
    except (ManifestError, OSError):
        return False


def load_finished(root: Path) -> dict:
    """The manifest of a dataset. Of another program's dataset, only what criteo_prep.manifest checks is right.

    Raises:
      ManifestError: there is no manifest, it is damaged, or it contradicts itself.
    """
    document = manifest.load_manifest(root)
    if document["made_by"] in (PREPROCESS, ENCODE):
        schema = schema_of(root, document)
        if problem := next(_problems(document, schema), None):
            raise _contradiction(root, problem)
    return document


def schema_of(root: str | Path, document: dict) -> TableSchema:
    """The schema in a manifest. Raises ManifestError."""
    try:
        return parse_schema(document["rules"].get("schema"), "schema")
    except SchemaError as error:
        raise _contradiction(root, f"its schema is not valid: {one_line(str(error), 200)}") from None


def _problems(document: dict, schema: TableSchema) -> Iterator[str]:
    """What does not fit in the inputs, rules, splits and files of a manifest."""
    for entry in document["inputs"]:
        skipped = entry.get("skipped")
        if (
            not _is_count(entry.get("rows"))
            or not isinstance(skipped, dict)
            or not all(map(_is_count, skipped.values()))
        ):
            yield f"its input {shown(entry['name'])} has no numbers of good and of skipped rows"
            return
    thresholds, known = document["rules"].get("threshold"), document.get("statistics")
    if not isinstance(thresholds, dict) or not all(_is_count(thresholds.get(e.feature)) for e in schema.categorical):
        yield "its rules have no threshold for each feature"
    if not isinstance(known, dict) or not all(_is_known(known, each) for each in schema.numerical):
        yield "its statistics do not fit the transforms"
    rows, samples = (
        sum(entry["rows"] for entry in document["inputs"]),
        sum(entry["num_samples"] for entry in document["splits"].values()),
    )
    if rows != samples:
        yield f"its inputs have {rows} good rows, its splits {samples} samples"
    needed = [FEATURE_SPEC, *(f"vocabularies/{each.feature}.parquet" for each in schema.categorical)]
    for split in document["splits"]:
        needed += [f"{split}/label.bin", *(f"{split}/{each.feature}.bin" for each in schema.categorical)]
        needed += [f"{split}/numerical.bin"] if schema.numerical else []
    yield from (f"it does not list the file {name}" for name in needed if name not in document["files"])


def _is_known(known: dict, each) -> bool:
    """Whether the statistics of a numerical are what its transform needs."""
    found = known.get(each.feature, {})
    if each.transform == "standardize":
        return isinstance(found, dict) and all(_is_number(found.get(key)) for key in ("mean", "standard_deviation"))
    if each.transform == "quantile":
        return (
            isinstance(found, dict) and isinstance(found.get("limits"), list) and all(map(_is_number, found["limits"]))
        )
    return True


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def _contradiction(root: str | Path, problem: str) -> ManifestError:
    return ManifestError(
        f"{Path(root) / MANIFEST}: {problem}, so somebody changed it. Restore it, or make the dataset again (with "
        "--overwrite)."
    )
