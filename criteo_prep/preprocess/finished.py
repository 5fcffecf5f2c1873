"""The manifest of a dataset that `preprocess` or `encode` finished, with all that these commands read in it.

criteo_prep.manifest checks what every manifest has. Its "rules" and the facts of its "inputs" are free there.
"""

from collections.abc import Iterator
from pathlib import Path

from criteo_prep import manifest
from criteo_prep.feature_spec import Feature, tf_raw_spec
from criteo_prep.manifest import MANIFEST, ManifestError
from criteo_prep.messages import one_line, shown
from criteo_prep.preprocess.columns.keys import KEY_RULE
from criteo_prep.preprocess.request import FEATURE_SPEC
from criteo_prep.preprocess.rules import Rules, make_rules
from criteo_prep.schema import CATEGORICAL

PREPROCESS, ENCODE = "criteo-prep preprocess", "criteo-prep encode"  # "made_by"


def load_finished(root: str | Path) -> dict:
    """The manifest of a dataset. Of another program's dataset, only what criteo_prep.manifest checks is right.

    Raises:
      ManifestError: there is no manifest, it is damaged, or it contradicts itself.
    """
    document = manifest.load_manifest(root)
    if document["made_by"] in (PREPROCESS, ENCODE):
        rules_of(root, document)
        if problem := next(_problems(document), None):
            raise _contradiction(root, problem)
    return document


def has_keys(document: dict) -> bool:
    """Whether a dataset, by its manifest, has keys in place of ids."""
    return document["rules"].get("ids") == KEY_RULE


def rules_of(root: str | Path, document: dict) -> Rules:
    """The rules for ids in a manifest. Raises ManifestError for rules that no command takes."""
    if has_keys(document):
        return make_rules(None, ids="raw")
    threshold, cap = (document["rules"].get(key) for key in ("threshold", "max_cardinality"))
    for key, value in (("threshold", threshold), ("max_cardinality", cap or "")):
        if not isinstance(value, int | str) or isinstance(value, bool):
            raise _contradiction(root, f"its rule {key!r} is {shown(value)}")
    try:
        return make_rules(threshold, cap)
    except ValueError as error:
        raise _contradiction(root, f"its rules are not valid: {one_line(str(error), 200)}") from None


def _problems(document: dict) -> Iterator[str]:
    """What does not fit in the inputs, splits and files of a manifest."""
    for entry in document["inputs"]:
        skipped = entry.get("skipped")
        if (
            not _is_count(entry.get("rows"))
            or not isinstance(skipped, dict)
            or not all(map(_is_count, skipped.values()))
        ):
            yield f"its input {shown(entry['name'])} has no numbers of good and of skipped rows"
            return
    splits, files = document["splits"], document["files"]
    rows, samples = sum(entry["rows"] for entry in document["inputs"]), _num_samples(splits)
    if rows != samples:
        yield f"its inputs have {rows} good rows, its splits {samples} samples"
    has_vocabularies = document["made_by"] == PREPROCESS and not has_keys(document)
    needed = [FEATURE_SPEC]
    if splits:
        spec = tf_raw_spec([Feature(name, "int32", 2) for name in CATEGORICAL], splits=tuple(splits))
        needed += [file for chunks in spec.sources.values() for chunk in chunks for file in chunk.files]
    needed += [f"vocabularies/{name}.parquet" for name in CATEGORICAL if has_vocabularies]
    if any(name.startswith("raw/") for name in files):
        needed += [f"raw/{name}.{kind}" for name in CATEGORICAL for kind in ("raw", "zeros")]
    yield from (f"it does not list the file {name}" for name in needed if name not in files)


def _num_samples(splits: dict) -> int:
    return sum(entry["num_samples"] for entry in splits.values())


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def _contradiction(root: str | Path, problem: str) -> ManifestError:
    return ManifestError(
        f"{Path(root) / MANIFEST}: {problem}, so somebody changed it. Restore it, or make the dataset again (with "
        "--overwrite)."
    )
