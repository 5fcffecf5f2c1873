"""New rows -> a dataset with the ids of an existing dataset, for a model that was trained on that dataset.

The new dataset has one split, `test`, and the same features, cardinalities and rules. Where the existing dataset has
keys in place of ids, the new one has keys too. Rows without labels have 39
columns, like Kaggle's test.txt; their label file is all zeros, and the manifest says so.
"""

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from criteo_prep import manifest
from criteo_prep.preprocess.columns.encoder import GivenVocabularies
from criteo_prep.preprocess.columns.vocabulary import VocabularyError
from criteo_prep.preprocess.finished import ENCODE, has_keys, load_finished, rules_of
from criteo_prep.preprocess.input_files import list_inputs
from criteo_prep.preprocess.inputs import ALL_TEST, Inputs
from criteo_prep.preprocess.locations import Location, local_paths
from criteo_prep.preprocess.parse.labels import have_labels
from criteo_prep.preprocess.request import DatasetRequest, Resources
from criteo_prep.preprocess.run import Outcome, carry_out, input_entry
from criteo_prep.schema import CATEGORICAL


def encode(
    vocabulary: str | Path,
    paths: Sequence[str | Location],
    *,
    destination: str | Path,
    labelled: bool | None = None,
    on_bad_row: str = "error",
    on_truncated: str = "error",
    overwrite: bool = False,
    resources: Resources | None = None,
) -> Outcome:
    """Makes a dataset of new rows. The dataset appears whole or not at all; a stopped run resumes.

    Args:
      vocabulary: a dataset that `preprocess` finished.
      paths: files or one folder, whose rows all have labels (40 columns) or all have none (39 columns).
      destination: the dataset folder to make.
      labelled: whether rows have labels; None to find it by the first rows of the files.
      on_bad_row, on_truncated: see rules.Rules.
      overwrite: make the dataset again, and replace an existing destination at the end.
      resources: threads, memory and progress.

    Raises:
      VocabularyError: `vocabulary` has no vocabularies.
      InputError, BadRowError, DestinationError, PreflightError, OSError: as for preprocess.
    """
    existing_manifest = load_finished(vocabulary)
    given = None if has_keys(existing_manifest) else _vocabularies(Path(vocabulary), existing_manifest)
    inputs, ignored = list_inputs(paths)
    files = tuple(piece for each in inputs for piece in each.pieces)
    labelled = have_labels(files) if labelled is None else labelled
    rules = rules_of(vocabulary, existing_manifest)
    rules = dataclasses.replace(rules, on_bad_row=on_bad_row, on_truncated=on_truncated)
    wanted = {
        "made_by": ENCODE,
        "inputs": [input_entry(path) for path in files],
        "rules": {
            **rules.document(),
            **({"vocabularies": _digest(given)} if given else {}),
            "labels": "as given" if labelled else "none were given; the label file is all zeros",
        },
    }
    request = DatasetRequest(
        Inputs(files, (), rule=ALL_TEST, ignored=ignored),
        rules,
        wanted=wanted,
        keep_raw=False,
        labelled=labelled,
        given=given,
        reads=(Path(vocabulary), *local_paths([*paths, *files])),
    )
    return carry_out(request, Path(destination), overwrite=overwrite, resources=resources or Resources())


def _vocabularies(dataset: Path, existing_manifest: dict) -> GivenVocabularies:
    """The vocabularies of a finished dataset. Raises VocabularyError where it has none."""
    files = existing_manifest["files"]
    names = {name: f"vocabularies/{name}.parquet" for name in CATEGORICAL}
    if missing := [file for file in names.values() if file not in files]:
        raise VocabularyError(f"{dataset}: has no {missing[0]}. Name a dataset that criteo-prep preprocess made.")
    manifest.check_files(dataset, {"files": {file: files[file] for file in names.values()}})
    return GivenVocabularies(dataset / "vocabularies", {name: files[file] for name, file in names.items()})


def _digest(given: GivenVocabularies) -> str:
    """A short hexadecimal number that other vocabularies do not have."""
    entries = json.dumps([given.entries[name] for name in CATEGORICAL], sort_keys=True)
    return hashlib.blake2b(entries.encode(), digest_size=8).hexdigest()
