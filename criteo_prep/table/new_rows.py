"""New rows -> a dataset with the ids and statistics of an existing dataset, for a model that was trained on it."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from criteo_prep import manifest
from criteo_prep.feature_spec import FeatureSpec
from criteo_prep.preprocess.columns.encoder import GivenVocabularies
from criteo_prep.preprocess.locations import Location, local_paths
from criteo_prep.preprocess.request import Resources
from criteo_prep.preprocess.run import Outcome, input_entry
from criteo_prep.table.document_values import SchemaError
from criteo_prep.table.files import TableFiles, list_files
from criteo_prep.table.finished import load_finished, schema_of
from criteo_prep.table.parse import open_table
from criteo_prep.table.request import ENCODE, FEATURE_SPEC, Given, TableRequest
from criteo_prep.table.run import carry_out
from criteo_prep.table.schema import SplitRule


def encode_table(
    vocabulary: str | Path,
    paths: Sequence[str | Location],
    *,
    destination: str | Path,
    labelled: bool | None = None,
    skip_bad_rows: bool = False,
    overwrite: bool = False,
    resources: Resources | None = None,
) -> Outcome:
    """Makes a dataset of new rows: all of them are test rows. The dataset appears whole or not at all.

    Args:
      vocabulary: a dataset that `preprocess --schema` finished.
      paths: files, folders and patterns; the columns are found by their names.
      destination: the dataset folder to make.
      labelled: whether rows have a label; None to find it by the columns of the first file.
      skip_bad_rows: whether bad rows are left out and counted.
      overwrite: make the dataset again, and replace an existing destination at the end.
      resources: threads, memory and progress.

    Raises:
      SchemaError, BadRowError, InputError, DestinationError, PreflightError, OSError: as for preprocess_table.
    """
    root, document = Path(vocabulary), load_finished(Path(vocabulary))
    schema = replace(schema_of(root, document), split=SplitRule(test_fraction=0.5))
    names = {each.feature: f"vocabularies/{each.feature}.parquet" for each in schema.categorical}
    entries = {feature: document["files"][file] for feature, file in names.items()}
    manifest.check_files(root, {"files": {file: document["files"][file] for file in names.values()}})
    spec = FeatureSpec.load(root / FEATURE_SPEC)
    files, ignored = list_files(paths)
    if labelled is None:
        labelled = schema.label.column in open_table(files[0], schema).columns()
    for path in files:
        if labelled is False and schema.label.column in open_table(path, schema).columns():
            raise SchemaError(
                f"{path}: has labels, but the other rows have none. Encode them one by one, or add --labelled."
            )
    rules = {key: document["rules"].get(key) for key in ("schema", "threshold", "ids", "log_shift")}
    wanted = {
        "made_by": ENCODE,
        "inputs": [input_entry(path) for path in files],
        "rules": {
            **rules,
            "on_bad_row": "skip" if skip_bad_rows else "error",
            "vocabularies": hashlib.blake2b(
                json.dumps([entries, document["statistics"]], sort_keys=True).encode(), digest_size=8
            ).hexdigest(),
            "labels": "as given" if labelled else "none were given; the label file is all zeros",
        },
    }
    request = TableRequest(
        schema,
        TableFiles(files, ignored=ignored),
        wanted=wanted,
        skip_bad_rows=skip_bad_rows,
        labelled=labelled,
        given=Given(GivenVocabularies(root / "vocabularies", entries), statistics=document["statistics"], spec=spec),
        reads=(root, *(path for path in local_paths([*files, *paths]) if path.exists())),
    )
    return carry_out(request, Path(destination), overwrite=overwrite, resources=resources or Resources())
