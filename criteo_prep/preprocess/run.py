"""Criteo's logs -> a tf_raw dataset: `preprocess` is the whole way, the modules beside it are its steps."""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from criteo_prep import manifest
from criteo_prep.destination import new_dataset, recover, staging_of
from criteo_prep.feature_spec import FeatureSpec
from criteo_prep.preprocess import derive
from criteo_prep.preprocess.inputs import find_inputs
from criteo_prep.preprocess.rules import Rules
from criteo_prep.preprocess.stages import FEATURE_SPEC, DatasetRequest, Resources, make_dataset, remove_if_worthless

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
    *,
    rules: Rules,
    test_fraction: float | None = None,
    test_file: str | Path | None = None,
    days: str | None = None,
    keep_raw: bool = False,
    overwrite: bool = False,
    resources: Resources | None = None,
) -> Outcome:
    """Makes a dataset of Criteo's logs; it appears whole or not at all. What an earlier run left is gone on with.

    A finished dataset of the same inputs with other thresholds, caps or vocabulary days is replaced: made of the old
    one where that is possible (see derive.py), else of the inputs again.

    Args:
      paths, test_file, test_fraction, days: see inputs.find_inputs.
      destination: the dataset folder.
      rules: how rows become samples.
      keep_raw: keep the raw columns in the dataset, to make other vocabularies of them later.
      overwrite: make it anew and replace what is at the destination, at the end.
      how: threads, memory, progress; none of it changes what is written.

    Raises:
      DifferentDatasetError: the destination holds a dataset of other inputs, or of rules that are not about ids.
      InputError, BadRowError, VocabularyError, DestinationError, PreflightError, OSError: see the modules.
    """
    destination, resources = Path(destination), resources or Resources()
    inputs = find_inputs(paths, test_file, test_fraction=test_fraction, days=days)
    wanted = {
        "made_by": MADE_BY,
        "inputs": [input_entry(path) for path in inputs.files],
        "rules": {**rules.document(), "split": inputs.split_rule},
    }
    return carry_out(
        DatasetRequest(inputs, rules, wanted=wanted, keep_raw=keep_raw),
        destination,
        overwrite=overwrite,
        resources=resources,
    )


def carry_out(request: DatasetRequest, destination: Path, *, overwrite: bool, resources: Resources) -> Outcome:
    """Makes what is ordered, unless it is there."""
    recover(destination)
    existing_manifest, replaced, warnings = None, (), ()
    if not overwrite and (destination / manifest.MANIFEST).exists():
        existing_manifest = manifest.load_manifest(destination)
        manifest.check_files(destination, existing_manifest)
        lines = manifest.differences(existing_manifest, request.wanted)
        if not lines:
            spec = FeatureSpec.load(destination / FEATURE_SPEC)
            return Outcome(
                existing_manifest,
                spec,
                already_complete=True,
                warnings=_left_over(destination, existing_manifest, request),
            )
        request = _again(request, destination, existing_manifest=existing_manifest, lines=lines, resources=resources)
        replaced = ("replaced what was there: " + "; ".join(lines),)
    with new_dataset(destination, overwrite or existing_manifest is not None, resume=True) as root:
        try:
            if not _is_finished(root, request.wanted):
                if request.source:
                    derive.begin_derivation(
                        root, destination, existing_manifest=existing_manifest, request=request, resources=resources
                    )
                warnings = make_dataset(root, destination, request=request, resources=resources)
        except BaseException:
            remove_if_worthless(root)
            raise
    made = manifest.load_manifest(destination)
    return Outcome(
        made, FeatureSpec.load(destination / FEATURE_SPEC), already_complete=False, warnings=(*warnings, *replaced)
    )


def _again(
    request: DatasetRequest, destination: Path, *, existing_manifest: dict, lines: list[str], resources: Resources
) -> DatasetRequest:
    """The order to make a finished dataset, whose manifest is `there`, again with other ids; says what is done."""
    source, what = derive.source_for(destination, existing_manifest, request), "\n  " + "\n  ".join(lines)
    if source is None:
        raise DifferentDatasetError(
            f"{destination}: holds another dataset:{what}\nName another destination, or add --overwrite to replace it."
        )
    parsed = "are parsed again (add --keep_raw, and the next time they need not be)"
    resources.say(
        f"{destination} is made again of {source}, "
        f"{f'which {parsed}' if source == derive.FROM_INPUTS else 'nothing is parsed'}; "
        f"it stays as it is until the new one is whole:{what}"
    )
    if source == derive.FROM_INPUTS:
        return request
    return replace(request, source=source, keep_raw=request.keep_raw or source == derive.FROM_RAW)


def _left_over(destination: Path, existing_manifest: dict, request: DatasetRequest) -> tuple[str, ...]:
    """What is to be said of a dataset that is there already."""
    warnings = []
    if request.keep_raw and not derive.has_raw(existing_manifest):
        warnings.append(f"{destination}: has no raw columns; add --overwrite to make it with them")
    if other := unfinished(destination):
        warnings.append(f"{other}: is left of another run; if that is not at work still, delete it to free its space")
    return tuple(warnings)


def unfinished(destination: str | Path) -> Path | None:
    """The folder of a run to this destination that was stopped, where there is one."""
    staging = staging_of(Path(os.path.realpath(destination)))
    return staging if staging.exists() else None


def _is_finished(root: Path, wanted: dict) -> bool:
    """Whether a run was killed between its last file and the naming of its folder; the rest is done here."""
    if not (root / manifest.MANIFEST).exists():
        return False
    try:
        existing_manifest = manifest.load_manifest(root)
        if manifest.differences(existing_manifest, wanted):
            return False
        manifest.check_files(root, existing_manifest)
    except manifest.ManifestError:  # killed as it was being deleted
        return False
    for path in root.glob("work/*"):
        path.unlink()
    if (root / "work").exists():
        (root / "work").rmdir()
    return True


def input_entry(path: Path) -> dict:
    """What tells an input file apart from another one without reading it."""
    status = path.stat()
    return {"name": path.name, "bytes": status.st_size, "modified_ns": status.st_mtime_ns}
