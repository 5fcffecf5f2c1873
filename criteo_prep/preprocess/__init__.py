"""Criteo's logs -> a tf_raw dataset: `preprocess` is the whole way, the modules beside it are its steps."""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from criteo_prep import manifest
from criteo_prep.destination import new_dataset, staging_of
from criteo_prep.feature_spec import FeatureSpec
from criteo_prep.preprocess import derive
from criteo_prep.preprocess.inputs import find_inputs
from criteo_prep.preprocess.make import FEATURE_SPEC, How, Order, make, remove_if_worthless
from criteo_prep.preprocess.rules import Rules

MADE_BY = "criteo-prep preprocess"


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
        return "\n".join(
            [
                f"rows in: {sum(entry['rows'] for entry in inputs)} of {len(inputs)} file(s)",
                f"bad rows skipped: {skipped.total()}{f' ({bad})' if bad else ''}",
                "samples: " + ", ".join(f"{split} {entry['num_samples']}" for split, entry in splits.items()),
                f"threshold: {self.manifest['rules']['threshold']}",
                f"cardinalities: {' '.join(map(str, cardinalities))} (sum {sum(cardinalities)})",
            ]
        )


def preprocess(
    paths: Sequence[str | Path],
    destination: str | Path,
    rules: Rules,
    test_fraction: float | None = None,
    test_file: str | Path | None = None,
    days: str | None = None,
    keep_raw: bool = False,
    overwrite: bool = False,
    how: How | None = None,
) -> Outcome:
    """Makes a dataset of Criteo's logs; it appears whole or not at all. What an earlier run left is gone on with.

    Over a finished dataset of the same inputs, other thresholds are made without parsing where that is possible; see
    derive.

    Args:
      paths, test_file, test_fraction, days: see inputs.find_inputs.
      destination: the dataset folder.
      rules: how rows become samples.
      keep_raw: keep the raw columns in the dataset, to make other vocabularies of them later.
      overwrite: make it anew and replace what is at the destination, at the end.
      how: threads, memory, progress; none of it changes what is written.

    Raises:
      DifferentDatasetError: the destination holds a dataset of other inputs or rules.
      InputError, BadRowError, VocabularyError, DestinationError, PreflightError, OSError: see the modules.
    """
    destination, how = Path(destination), how or How()
    inputs = find_inputs(paths, test_file, test_fraction, days)
    wanted = {"made_by": MADE_BY, "inputs": [input_entry(path) for path in inputs.files],
              "rules": {**rules.document(), "split": inputs.split_rule}}  # fmt: skip
    return carry_out(Order(inputs, rules, wanted, keep_raw), destination, overwrite, how)


def carry_out(order: Order, destination: Path, overwrite: bool, how: How) -> Outcome:
    """Makes what is ordered, unless it is there."""
    source = None
    if not overwrite and (destination / manifest.MANIFEST).exists():
        there = manifest.load_manifest(destination)
        lines = manifest.differences(there, order.wanted)
        if not lines:
            manifest.check_files(destination, there)
            no_raw = order.keep_raw and not derive.has_raw(there)
            warnings = (f"{destination}: has no raw columns; add --overwrite to make it with them",) if no_raw else ()
            return Outcome(there, FeatureSpec.load(destination / FEATURE_SPEC), True, warnings)
        manifest.check_files(destination, there)
        source = derive.source_for(destination, there, order)
        if source is None:
            raise DifferentDatasetError(
                f"{destination}: holds another dataset:\n  " + "\n  ".join(lines)
                + "\nWhat is asked for cannot be made of it; the inputs must be parsed again. Name another "
                "destination, or add --overwrite to replace it."
            )  # fmt: skip
        how.say(f"{destination} is made again of {source} in it; nothing is parsed:\n  " + "\n  ".join(lines))
        order = replace(order, keep_raw=order.keep_raw or source == derive.FROM_RAW)
    with new_dataset(destination, overwrite or source is not None, resume=True) as root:
        warnings: tuple[str, ...] = ()
        try:
            if not _is_finished(root, order.wanted):
                if source:
                    derive.begin(root, destination, there, source, order, how)
                warnings = make(root, destination, order, how)
        except BaseException:
            remove_if_worthless(root)
            raise
    return Outcome(manifest.load_manifest(destination), FeatureSpec.load(destination / FEATURE_SPEC), False, warnings)


def unfinished(destination: str | Path) -> Path | None:
    """The folder of a run to this destination that was stopped, where there is one."""
    staging = staging_of(Path(os.path.realpath(destination)))
    return staging if staging.exists() else None


def _is_finished(root: Path, wanted: dict) -> bool:
    """Whether a run was killed between its last file and the naming of its folder; the rest is done here."""
    if not (root / manifest.MANIFEST).exists():
        return False
    there = manifest.load_manifest(root)
    if manifest.differences(there, wanted):
        return False
    for path in root.glob("work/*"):
        path.unlink()
    if (root / "work").exists():
        (root / "work").rmdir()
    manifest.check_files(root, there)
    return True


def input_entry(path: Path) -> dict:
    """What tells an input file apart from another one without reading it."""
    status = path.stat()
    return {"name": path.name, "bytes": status.st_size, "modified_ns": status.st_mtime_ns}
