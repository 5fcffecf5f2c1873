"""Manifests that somebody changed: an error in one line, or a right result; never another exception."""

import copy

import polars as pl
import pytest
from support.any_json import mutations

from criteo_prep import manifest
from criteo_prep.preprocess.request import Resources
from criteo_prep.table.new_rows import encode_table
from criteo_prep.table.run import preprocess_table

SCHEMA = """
label: {column: y}
numerical: {x: {transform: quantile}, z: {transform: standardize}}
categorical: {a: {threshold: 2}, t: {}}
split: {test_fraction: 0.5}
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("forged")
    frame = {"y": [0, 1] * 4, "x": range(8), "z": range(8), "a": list("ppqqrstu"), "t": [["u"], []] * 4}
    pl.DataFrame(frame).write_parquet(folder / "log.parquet")
    (folder / "schema.yaml").write_text(SCHEMA)
    run(folder, SCHEMA)
    return folder


def run(folder, schema):
    (folder / "schema.yaml").write_text(schema)
    quiet = Resources(1, quiet=True)
    files = [folder / "log.parquet"]
    return preprocess_table(files, folder / "set", schema=folder / "schema.yaml", options={}, resources=quiet)


def test_any_manifest_is_read_or_refused(made):
    document = manifest.load_manifest(made / "set")
    content = (made / "set" / "manifest.json").read_bytes()
    num_refused = 0
    for number, forged in enumerate(mutations(document, 40)):
        try:
            manifest.save_manifest(made / "set", forged)
        except (AssertionError, ValueError, TypeError, UnicodeEncodeError):
            continue  # no manifest at all
        try:
            encode_table(made / "set", [made / "log.parquet"], destination=made / "new", overwrite=True,
                         resources=Resources(1, quiet=True))  # fmt: skip
        except (ValueError, OSError) as error:
            num_refused += 1
            assert "\n" not in str(error).split("holds another dataset")[0], (number, str(error))
    (made / "set" / "manifest.json").write_bytes(content)
    assert num_refused > 10


def test_damage_of_what_is_read_again_is_an_error(made):
    vocabulary = made / "set" / "vocabularies" / "a.parquet"
    content = vocabulary.read_bytes()
    vocabulary.write_bytes(content[:-9] + bytes([content[-9] ^ 1]) + content[-8:])
    try:
        with pytest.raises(manifest.DamagedError, match="a.parquet"):
            encode_table(made / "set", [made / "log.parquet"], destination=made / "other",
                         resources=Resources(1, quiet=True))  # fmt: skip
        with pytest.raises(manifest.DamagedError, match="a.parquet"):
            run(made, SCHEMA.replace("threshold: 2", "threshold: 3"))
    finally:
        vocabulary.write_bytes(content)
    assert not (made / "other").exists() and run(made, SCHEMA).already_complete


def test_statistics_that_do_not_fit_are_refused(made):
    document = manifest.load_manifest(made / "set")
    for change in ({"statistics": {}}, {"statistics": {**document["statistics"], "z": {"mean": "x"}}}):
        manifest.save_manifest(made / "set", copy.deepcopy(document) | change)
        with pytest.raises(manifest.ManifestError, match="its statistics do not fit the transforms"):
            run(made, SCHEMA)
    manifest.save_manifest(made / "set", document)
    assert run(made, SCHEMA).already_complete
