"""New rows through the vocabularies of a dataset that is there: what a trained model is asked about the day after.

The result is a dataset with one split, `test`, of the same features, cardinalities and rules. Rows without labels
have 39 columns, as Kaggle's test.txt; their label file is all zeros, and the manifest says so.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from criteo_prep import manifest
from criteo_prep.intact import check_manifest
from criteo_prep.preprocess.columns.encoder import GivenVocabularies
from criteo_prep.preprocess.columns.vocabulary import VocabularyError
from criteo_prep.preprocess.inputs import ALL_TEST, Inputs, files_of
from criteo_prep.preprocess.parse.parquet_rows import is_parquet, num_columns_of
from criteo_prep.preprocess.parse.text_blocks import InputError, text_blocks
from criteo_prep.preprocess.parse.tsv import NUM_FIELDS
from criteo_prep.preprocess.request import DatasetRequest, Resources
from criteo_prep.preprocess.rules import make_rules
from criteo_prep.preprocess.run import Outcome, carry_out, input_entry
from criteo_prep.schema import CATEGORICAL

MADE_BY = "criteo-prep encode"


def encode(
    vocabulary: str | Path,
    paths: Sequence[str | Path],
    *,
    destination: str | Path,
    on_bad_row: str = "error",
    overwrite: bool = False,
    resources: Resources | None = None,
) -> Outcome:
    """Makes a dataset of new rows; it appears whole or not at all, and a run that was stopped is gone on with.

    Args:
      vocabulary: a dataset that `preprocess` finished.
      paths: files, or one folder; with labels (40 columns) or all without (39).
      destination: the dataset folder to make.
      on_bad_row, overwrite, how: see preprocess.

    Raises:
      VocabularyError: `vocabulary` has no vocabularies.
      InputError, BadRowError, DestinationError, PreflightError, OSError: see the modules.
    """
    there = manifest.load_manifest(vocabulary)
    names = [f"vocabularies/{name}.parquet" for name in CATEGORICAL]
    if missing := [name for name in names if name not in there["files"]]:
        raise VocabularyError(f"{vocabulary}: has no {missing[0]}. Name a dataset that criteo-prep preprocess made.")
    check_manifest(Path(vocabulary))
    manifest.check_files(vocabulary, {"files": {name: there["files"][name] for name in names}})
    vocabularies = {name: there["files"][f"vocabularies/{name}.parquet"] for name in CATEGORICAL}
    files, ignored = files_of(paths)
    labelled = has_labels(files[0])
    old = there["rules"]
    rules = make_rules(old["threshold"], old.get("max_cardinality"), vocabulary_days="all", on_bad_row=on_bad_row)
    entries = json.dumps([there["files"][name] for name in names], sort_keys=True)
    wanted = {
        "made_by": MADE_BY,
        "inputs": [input_entry(path) for path in files],
        "rules": {
            **rules.document(),
            "vocabularies": hashlib.blake2b(entries.encode(), digest_size=8).hexdigest(),
            "labels": "as given" if labelled else "none were given; the label file is all zeros",
        },
    }
    inputs = Inputs(tuple(files), None, rule=ALL_TEST, test_fraction=None, ignored=ignored)
    request = DatasetRequest(
        inputs,
        rules,
        wanted=wanted,
        keep_raw=False,
        labelled=labelled,
        given=GivenVocabularies(Path(vocabulary) / "vocabularies", vocabularies),
        reads=(Path(vocabulary), *map(Path, paths), *files),
    )
    return carry_out(request, Path(destination), overwrite=overwrite, resources=resources or Resources())


def has_labels(path: Path) -> bool:
    """Whether the rows of a file have labels, by its columns or its first row."""
    if is_parquet(path):
        columns = num_columns_of(path)
    else:
        first = next((bytes(block).partition(b"\n")[0] for block, _ in text_blocks(path, 1 << 16)), b"")
        columns = first.count(b"\t") + 1
    if columns not in (NUM_FIELDS, NUM_FIELDS - 1):
        raise InputError(
            f"{path}: its first row has {columns} fields; expected {NUM_FIELDS}, or {NUM_FIELDS - 1} without the label."
        )
    return columns == NUM_FIELDS
