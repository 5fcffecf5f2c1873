"""The whole way from Criteo's logs to a dataset: find the inputs, decide what to do, do it, report."""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from criteo_prep import manifest
from criteo_prep.destination import new_dataset, recover, staging_of
from criteo_prep.feature_spec import FeatureSpec
from criteo_prep.guard import check_apart
from criteo_prep.manifest import DamagedError
from criteo_prep.preprocess.decide import RAW, Action, Decision, Existing, decide, has_raw
from criteo_prep.preprocess.derive import begin_derivation, read_existing
from criteo_prep.preprocess.finished import PREPROCESS, has_keys
from criteo_prep.preprocess.inputs import find_inputs
from criteo_prep.preprocess.journal import Journal
from criteo_prep.preprocess.locations import Location, local_paths, state_of
from criteo_prep.preprocess.request import FEATURE_SPEC, DatasetRequest, Resources
from criteo_prep.preprocess.rules import Rules
from criteo_prep.preprocess.stages import make_dataset
from criteo_prep.preprocess.unfinished import (
    discard,
    keep_files,
    read_unfinished,
    remove_if_worthless,
    remove_work,
    start_over,
)
from criteo_prep.schema import CATEGORICAL


class DifferentDatasetError(ValueError):
    """The destination holds a dataset of other inputs, or of other rules that are not about ids."""


@dataclass(frozen=True)
class Outcome:
    """What `preprocess` did.

    Attributes:
      manifest: the manifest of the dataset.
      spec: the feature spec of the dataset.
      already_complete: the dataset of these inputs and rules was already finished, so nothing was done.
      warnings: what the user should know, one line each.
    """

    manifest: dict
    spec: FeatureSpec
    already_complete: bool
    warnings: tuple[str, ...] = ()

    def summary(self) -> str:
        """The content of the dataset, in a few lines."""
        inputs, splits = self.manifest["inputs"], self.manifest["splits"]
        skipped: Counter[str] = Counter()
        for entry in inputs:
            skipped.update(entry["skipped"])
        bad = ", ".join(f"{rows} {reason}" for reason, rows in skipped.items())
        return "\n".join(
            [
                f"rows in: {sum(entry['rows'] for entry in inputs)} of {len(inputs)} file(s)",
                f"bad rows skipped: {skipped.total()}{f' ({bad})' if bad else ''}",
                "samples: " + ", ".join(f"{split} {entry['num_samples']}" for split, entry in splits.items()),
                *self._about_ids(),
            ]
        )

    def _about_ids(self) -> list[str]:
        rules = self.manifest["rules"]
        if has_keys(self.manifest):
            return [f"ids: {rules['ids']}"]
        cardinalities = [feature.cardinality for feature in self.spec.categorical]
        return [
            f"threshold: {_shown_threshold(rules['threshold'])}",
            f"cardinalities: {' '.join(map(str, cardinalities))} (sum {sum(cardinalities)})",
        ]


def _shown_threshold(threshold: int | str | dict[str, int]) -> int | str:
    """A threshold as a manifest has it, in a few words; a dict has a threshold for each feature."""
    if not isinstance(threshold, dict):
        return threshold
    different = sorted(set(threshold.values()))
    if len(different) == 1:
        return different[0]
    return ", ".join(f"{name} {value}" for name, value in threshold.items())


def preprocess(
    paths: Sequence[str | Location],
    destination: str | Path,
    *,
    rules: Rules,
    test_fraction: float | None = None,
    test_file: str | Location | None = None,
    days: str | None = None,
    keep_raw: bool = False,
    overwrite: bool = False,
    resources: Resources | None = None,
) -> Outcome:
    """Makes a dataset from Criteo's logs. The dataset appears whole or not at all.

    The work of a stopped run is resumed. A finished dataset of the same samples with other ids is replaced; the ids
    come from the finished dataset where that is possible (see decide.py), and else from the inputs.

    Args:
      paths, test_file, test_fraction, days: see inputs.find_inputs.
      destination: the dataset folder.
      rules: how rows become samples.
      keep_raw: keep the raw columns in the dataset, to make other vocabularies from them later.
      overwrite: make the dataset again, and replace the one at the destination when the new one is finished.
      resources: threads, memory and progress; they do not change the bytes.

    Raises:
      DifferentDatasetError: the destination holds a dataset of other inputs, or of other rules that are not about ids.
      InputError, BadRowError, VocabularyError, DestinationError, PreflightError, OSError: see the modules.
    """
    inputs = find_inputs(paths, test_file, test_fraction=test_fraction, days=days)
    wanted = {
        "made_by": PREPROCESS,
        "inputs": [input_entry(path) for path in inputs.files],
        "rules": {**rules.document(), "split": inputs.split_rule},
    }
    reads = local_paths([*paths, *inputs.files])
    request = DatasetRequest(inputs, rules, wanted=wanted, keep_raw=keep_raw, reads=tuple(reads))
    return carry_out(request, Path(destination), overwrite=overwrite, resources=resources or Resources())


def carry_out(request: DatasetRequest, destination: Path, *, overwrite: bool, resources: Resources) -> Outcome:
    """Makes the requested dataset, unless it is already finished."""
    check_apart(destination, request.reads)
    recover(destination)
    existing = None if overwrite else read_existing(destination)
    decision = decide(existing, None, request)
    if decision.action is Action.COMPLETE:
        return _outcome(destination, already_complete=True, warnings=_left_over(destination, existing, request))
    lines = "\n  ".join(["", *decision.differences])
    if decision.action is Action.REFUSE:
        raise DifferentDatasetError(
            f"{destination}: holds another dataset:{lines}\nName another destination, or add --overwrite to replace it."
        )
    if existing:
        parsed = "the inputs, which are parsed again (with --keep_raw, the next time nothing is parsed)"
        source = f"its {decision.source}; nothing is parsed" if decision.source else parsed
        resources.say(
            f"{destination} is made again from {source}; it stays as it is until the new one is finished:{lines}"
        )
    request = replace(request, keep_raw=request.keep_raw or decision.source == RAW)
    warnings: tuple[str, ...] = ()
    replaces = overwrite or existing is not None
    with new_dataset(destination, reads=request.reads, overwrite=replaces, resume=True) as root:
        try:
            journal = _begin(root, destination, existing=existing, request=request, resources=resources)
            if journal:
                warnings = make_dataset(root, destination, request=request, journal=journal, resources=resources)
        except DamagedError:
            if decision.source:
                discard(root)  # it has links to the damaged file, which outlive the repair of the dataset
            raise
        except BaseException:
            remove_if_worthless(root)
            raise
    replaced = ("replaced the existing dataset: " + "; ".join(decision.differences),) if existing else ()
    return _outcome(destination, already_complete=False, warnings=(*warnings, *replaced))


def _begin(
    root: Path, destination: Path, *, existing: Existing | None, request: DatasetRequest, resources: Resources
) -> Journal | None:
    """Brings the staging folder to where the stages resume. Returns its journal; None where nothing is left to do."""
    unfinished = read_unfinished(root)
    decision = decide(existing, unfinished, request)
    if unfinished:
        resources.say(_fate(root, unfinished.journal, decision))
    if decision.action is Action.DERIVE:
        return begin_derivation(
            root, destination, existing=existing, request=request, source=decision.source, resources=resources
        )
    if decision.action is Action.REBUILD:
        return start_over(root, request)
    assert decision.action is Action.RESUME and unfinished
    if decision.kept_files:
        keep_files(unfinished.journal, request, decision.kept_files)
    if decision.is_finished:
        remove_work(root)
        return None
    return unfinished.journal


def _fate(root: Path, journal: Journal | None, decision: Decision) -> str:
    """What becomes of the unfinished work, for the user."""
    lines = "\n  ".join(["", *decision.outdated])
    if decision.kept_files:
        num_rows = sum(file.num_rows for file in decision.kept_files)
        return f"the unfinished work in {root} differs; {num_rows:,} rows need not be parsed again:{lines}"
    if decision.outdated:
        return f"the unfinished work in {root} differs; all of it is made again:{lines}"
    if decision.action is not Action.RESUME:
        return (
            f"the unfinished work in {root} cannot be used; all of it is made again (it lacks something that is wanted "
            "now, or this machine was restarted since)"
        )
    if decision.is_finished:
        return f"resuming {root}: all of it is finished"
    num_columns = sum(journal.column(name) is not None for name in CATEGORICAL)
    return f"resuming {root}: {journal.num_rows:,} rows are parsed, {num_columns} columns are finished"


def _outcome(destination: Path, *, already_complete: bool, warnings: tuple[str, ...]) -> Outcome:
    return Outcome(
        manifest.load_manifest(destination),
        FeatureSpec.load(destination / FEATURE_SPEC),
        already_complete=already_complete,
        warnings=warnings,
    )


def _left_over(destination: Path, existing: Existing, request: DatasetRequest) -> tuple[str, ...]:
    """Warnings about a dataset that is already finished."""
    warnings = []
    if request.keep_raw and not has_raw(existing.manifest):
        warnings.append(f"{destination}: has no raw columns; add --overwrite to make it with them")
    if other := unfinished_of(destination):
        warnings.append(f"{other}: is left from another run; if no run is working in it, delete it to free its space")
    return tuple(warnings)


def unfinished_of(destination: str | Path) -> Path | None:
    """The folder of a stopped run to this destination; None where there is none."""
    staging = staging_of(Path(os.path.realpath(destination)))
    return staging if staging.exists() else None


def input_entry(path: Location) -> dict:
    """What distinguishes an input file from another one without reading it."""
    return {"name": path.name, **state_of(path)}
