"""Criteo's logs -> a tf_raw dataset: `preprocess` is the whole way, the modules beside it are its steps."""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from criteo_prep import manifest
from criteo_prep.destination import new_dataset
from criteo_prep.feature_spec import Feature, FeatureSpec, tf_raw_spec
from criteo_prep.preprocess.blocks import BLOCK_BYTES, InputError
from criteo_prep.preprocess.inputs import FRACTION, LAST_DAY, Inputs, find_inputs
from criteo_prep.preprocess.local_engine import (
    ColumnEncoder,
    ParsedFile,
    ReadProgress,
    RowWriter,
    cut_rows,
    label_file,
    numerical_file,
    parse_files,
)
from criteo_prep.preprocess.raw_columns import RawColumns
from criteo_prep.preprocess.threshold import ID_RULE, VocabularyError
from criteo_prep.progress import Progress
from criteo_prep.schema import CATEGORICAL, NUMERICAL_RULE

MADE_BY = "criteo-prep preprocess"
FEATURE_SPEC = "feature_spec.yaml"
ON_BAD_ROW = ("error", "skip")
VOCABULARY_DAYS = ("all", "train")


class DifferentDatasetError(ValueError):
    """The destination holds a dataset that was made of other inputs or by other rules."""


@dataclass(frozen=True)
class Outcome:
    """What `preprocess` did.

    Attributes:
      manifest: the dataset's manifest.
      spec: its feature spec.
      already_complete: it was there, made of the same inputs by the same rules, and nothing was done.
      warnings: what the user should know, a line each.
    """

    manifest: dict
    spec: FeatureSpec
    already_complete: bool
    warnings: tuple[str, ...] = ()

    def summary(self) -> str:
        """What is in the dataset, in a few lines."""
        inputs, splits = self.manifest["inputs"], self.manifest["splits"]
        skipped: Counter[str] = Counter()
        for entry in inputs:
            skipped.update(entry["skipped"])
        cardinalities = [feature.cardinality for feature in self.spec.categorical]
        bad = ", ".join(f"{rows} {reason}" for reason, rows in skipped.items())
        return "\n".join([
            f"rows in: {sum(entry['rows'] for entry in inputs)} of {len(inputs)} file(s)",
            f"bad rows skipped: {skipped.total()}{f' ({bad})' if bad else ''}",
            "samples: " + ", ".join(f"{split} {entry['num_samples']}" for split, entry in splits.items()),
            f"threshold: {self.manifest['rules']['threshold']}",
            f"cardinalities: {' '.join(map(str, cardinalities))} (sum {sum(cardinalities)})",
        ])


def preprocess(
    paths: Sequence[str | Path],
    destination: str | Path,
    threshold: int,
    test_fraction: float | None = None,
    test_file: str | Path | None = None,
    on_bad_row: str = "error",
    vocabulary_days: str = "all",
    overwrite: bool = False,
    quiet: bool = False,
    workers: int | None = None,
    block_bytes: int = BLOCK_BYTES,
) -> Outcome:
    """Makes a dataset of Criteo's logs; it appears whole or not at all.

    Args:
      paths, test_file, test_fraction: see inputs.find_inputs.
      destination: the dataset folder.
      threshold: a value that occurs less often has id 0; see threshold.make_vocabulary.
      on_bad_row: "error", or "skip" to leave bad rows out and count them.
      vocabulary_days: "all", or "train" to count the values of the train rows only.
      overwrite: replace what is at the destination, at the end.
      quiet: show no progress.
      workers: threads; by default the processors that this process may use.
      block_bytes: text parsed at a time. Neither this nor workers changes what is written.

    Raises:
      DifferentDatasetError: the destination holds a dataset of other inputs or rules.
      InputError, BadRowError, VocabularyError, DestinationError, OSError: see the modules.
    """
    assert on_bad_row in ON_BAD_ROW and vocabulary_days in VOCABULARY_DAYS
    if threshold < 0:
        raise VocabularyError(f"--threshold {threshold}: is negative; 0 keeps every value.")
    destination = Path(destination)
    inputs = find_inputs(paths, test_file, test_fraction)
    wanted = {
        "made_by": MADE_BY,
        "inputs": [_input_entry(path) for path in inputs.files],
        "rules": _rules(inputs, threshold, on_bad_row, vocabulary_days),
    }
    if not overwrite and (finished := _finished(destination, wanted)):
        return finished
    how = _How(on_bad_row == "skip", workers or len(os.sched_getaffinity(0)), block_bytes, quiet)
    with new_dataset(destination, overwrite) as root:
        warnings = _make(root, inputs, wanted, how)
    return Outcome(manifest.load_manifest(destination), FeatureSpec.load(destination / FEATURE_SPEC), False, warnings)


@dataclass(frozen=True)
class _How:
    """What changes how the work is done, not what is made of good rows."""

    skip_bad_rows: bool
    workers: int
    block_bytes: int
    quiet: bool


def _make(root: Path, inputs: Inputs, wanted: dict, how: _How) -> tuple[str, ...]:
    """Writes the dataset into `root`. Returns warnings."""
    layout = tf_raw_spec([Feature(name, "", 1) for name in CATEGORICAL], splits=inputs.split_names)
    work = root / "work"
    work.mkdir()
    (root / "vocabularies").mkdir()
    with RawColumns(work) as raw:
        parsed, splits, files = _parse(root, layout, inputs, raw, how)
    counted = splits["train"] if wanted["rules"]["vocabulary_days"] == "train" else range(raw.num_rows)
    with Progress("columns", len(CATEGORICAL) * (len(counted) + raw.num_rows), "values", how.quiet) as progress:
        encoder = ColumnEncoder(root, layout, raw, splits, counted, wanted["rules"]["threshold"], progress)
        features, column_files = encoder.run(how.workers)
    work.rmdir()
    tf_raw_spec(features, splits=inputs.split_names).save(root / FEATURE_SPEC)
    files |= column_files | {FEATURE_SPEC: manifest.file_entry(root / FEATURE_SPEC)}
    manifest.save_manifest(root, _manifest(wanted, parsed, splits, files))
    return _warnings(inputs, parsed, splits)


def _parse(
    root: Path, layout: FeatureSpec, inputs: Inputs, raw: RawColumns, how: _How
) -> tuple[list[ParsedFile], dict[str, range], dict[str, dict]]:
    """Parses all files, then cuts the rows where the split rule says.

    Returns:
      What each file held, the rows of each split, and the manifest's entries of the label and numerical files.
    """
    entries: dict[str, dict] = {}
    parsed: list[ParsedFile] = []
    rows_of = {"train": 0, "test": 0}
    with Progress("parse", None, "rows", how.quiet) as progress:
        reading = ReadProgress(progress, sum(path.stat().st_size for path in inputs.files))
        for split, paths in (("train", inputs.train), ("test", (inputs.evaluation,) if inputs.evaluation else ())):
            if not paths:
                continue
            with RowWriter(root, layout, split, raw) as writer:
                files = parse_files(paths, writer, how.skip_bad_rows, how.workers, how.block_bytes, reading)
            entries |= {label_file(layout, split): writer.entries[0], numerical_file(layout, split): writer.entries[1]}
            rows_of[split] = sum(file.num_rows for file in files)
            parsed += files
    splits = inputs.splits(rows_of["train"], rows_of["test"])
    if not len(splits["train"]):
        names = ", ".join(str(path) for path in inputs.train)
        raise InputError(f"{names}: no good row to train on; {_skipped_text(parsed)}.")
    if inputs.rule == LAST_DAY:
        entries |= cut_rows(root, layout, "test", len(splits["test"]), "validation")
    elif inputs.rule == FRACTION:
        entries |= cut_rows(root, layout, "train", len(splits["train"]), "test")
    return parsed, splits, entries


def _finished(destination: Path, wanted: dict) -> Outcome | None:
    """The outcome if `destination` holds just the dataset that is wanted; None if it holds no dataset at all."""
    if not (destination / manifest.MANIFEST).exists():
        return None
    there = manifest.load_manifest(destination)
    if lines := manifest.differences(there, wanted):
        raise DifferentDatasetError(
            f"{destination}: holds another dataset:\n  " + "\n  ".join(lines)
            + "\nName another destination, or add --overwrite to replace it."
        )  # fmt: skip
    manifest.check_files(destination, there)
    return Outcome(there, FeatureSpec.load(destination / FEATURE_SPEC), True)


def _input_entry(path: Path) -> dict:
    """What tells an input file apart from another one without reading it."""
    status = path.stat()
    return {"name": path.name, "bytes": status.st_size, "modified_ns": status.st_mtime_ns}


def _rules(inputs: Inputs, threshold: int, on_bad_row: str, vocabulary_days: str) -> dict:
    return {
        "threshold": threshold,
        "split": inputs.split_rule,
        "vocabulary_days": vocabulary_days,
        "on_bad_row": on_bad_row,
        "ids": ID_RULE,
        "numerical": NUMERICAL_RULE,
    }


def _manifest(wanted: dict, parsed: list[ParsedFile], splits: dict[str, range], files: dict[str, dict]) -> dict:
    return {
        "made_by": wanted["made_by"],
        "versions": manifest.versions_of(("numpy", "numba", "pyarrow")),
        "inputs": [
            {**entry, "rows": file.num_rows, "skipped": file.skipped}
            for entry, file in zip(wanted["inputs"], parsed, strict=True)
        ],
        "rules": wanted["rules"],
        "splits": {split: {"num_samples": len(rows)} for split, rows in splits.items()},
        "files": dict(sorted(files.items())),
    }


def _warnings(inputs: Inputs, parsed: list[ParsedFile], splits: dict[str, range]) -> tuple[str, ...]:
    lines = [f"{path}: is not named day_N and was not read" for path in inputs.ignored if path not in inputs.files]
    lines += [f"skipped: {where}" for file in parsed for where in file.first_skipped.values()]
    lines += [f"{file.path}: holds no row" for file in parsed if file.num_rows == 0]
    lines += [f"split {split} has no samples" for split, rows in splits.items() if not len(rows)]
    return tuple(lines)


def _skipped_text(parsed: list[ParsedFile]) -> str:
    """How many bad rows were left out, by reason."""
    total: Counter[str] = Counter()
    for file in parsed:
        total.update(file.skipped)
    if not total:
        return "no row was skipped"
    return f"skipped {total.total()} bad rows: " + ", ".join(f"{rows} {reason}" for reason, rows in total.items())
