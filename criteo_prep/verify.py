"""`criteo-prep verify`: checks a dataset of any layout against its feature spec and its checksums.

Checks of every split: its files exist and have equally many samples; ids are in [0, cardinality); labels are 0 or 1;
numericals are finite. Checksums are in the manifest, or, if transcribe made the dataset, in the metadata of the feature
spec. If there are any, each file must have its checksum, and no file is unknown. A vocabulary has as many values as its
feature has ids. The report names what was not checked.
"""

import dataclasses
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from criteo_prep import manifest
from criteo_prep.feature_spec import AUTO, FeatureSpec
from criteo_prep.progress import Progress
from criteo_prep.sizes import shown_bytes
from criteo_prep.verify_checksums import checksum_jobs, vocabulary_jobs
from criteo_prep.verify_content import content_jobs, layout_of, load_spec, num_samples
from criteo_prep.verify_report import Check, Job, Report

__all__ = ["Check", "Report", "verify"]

_SPEC = "feature_spec.yaml"
_UNKNOWN = "no reader reads the type of its files, so its samples were not looked at"
# Kind of check -> the line of the report for what passed it.
KINDS = {
    "content": "ids, labels and numericals in range",
    "samples": "samples whole and in range",
    "checksum": "checksums right",
    "vocabulary": "vocabularies fit their features",
}


def verify(root: str | Path, workers: int | None = None, quiet: bool = False) -> Report:
    """Checks a dataset. Reads all files once for their content and once for their checksums.

    Args:
      root: the dataset folder.
      workers: threads; None for one thread per core.
      quiet: show no progress.

    Raises:
      ValueError, OSError: the feature spec is missing or wrong, so that nothing can be checked.
    """
    root = Path(root)
    document, checks = _read_manifest(root)
    spec = load_spec(root / _SPEC)
    made = document or spec.metadata
    files = made.get("files") if isinstance(made.get("files"), dict) else {}
    checks += _notes(spec, files)
    spec = _with_cardinalities(spec)
    jobs = [*checksum_jobs(root, files)]
    problems = _run(jobs, "verify checksums", workers=workers, quiet=quiet)
    damaged = {check.subject for check in problems}
    # Only files of tf_raw are read although damaged: the libraries that read others may end the process over damage.
    samples: list[Job] = [job for job in vocabulary_jobs(root, spec, files) if job.subject not in damaged]
    for split in spec.splits:
        if (layout := layout_of(spec, split)) != "tf_raw" and damaged & _files_of(spec, split):
            checks.append(_note(f"split {split}", "a file is damaged, so its samples were not looked at"))
            continue
        check = _size_check(spec, split, made) if layout else _note(f"split {split}", _UNKNOWN)
        checks.append(check)
        if check.good and layout:
            samples += content_jobs(spec, split)
    if files:
        checks += _unknown_files(root, {*files, _SPEC, manifest.MANIFEST})
    problems += _run(samples, "verify content", workers=workers, quiet=quiet)
    return Report(root, (*checks, *problems, *_passed([*jobs, *samples], [*checks, *problems])))


def _run(jobs: list[Job], name: str, *, workers: int | None, quiet: bool) -> list[Check]:
    """Runs the jobs in threads, and returns the problems that they found."""
    size = sum(job.bytes for job in jobs)
    with Progress(name, size, unit="bytes", quiet=quiet) as progress, ThreadPoolExecutor(workers) as pool:
        problems = []
        for job, problem in zip(jobs, pool.map(Job.problem, jobs), strict=True):
            progress.advance(job.bytes)
            if problem:
                problems.append(Check(job.subject, problem, False))
    return problems


def _files_of(spec: FeatureSpec, split: str) -> set[str]:
    return {file for chunk in spec.sources[split] for file in chunk.files}


def _read_manifest(root: Path) -> tuple[dict | None, list[Check]]:
    """The manifest, or None if it cannot be used, and the checks of it."""
    if not (root / manifest.MANIFEST).exists():
        return None, []
    try:
        document = manifest.load_manifest(root)
    except manifest.ManifestError as error:
        return None, [Check(manifest.MANIFEST, str(error), False)]
    return document, [Check(manifest.MANIFEST, "as written")]


def _notes(spec: FeatureSpec, files: dict) -> Iterator[Check]:
    """What is not checked in this dataset, whose files with checksums are `files`."""
    if not files:
        yield _note("checksums", "the dataset has none; a changed byte that is still in range is not found")
    elif _SPEC not in files:
        yield _note(_SPEC, "has no checksum; a change that still makes sense is not found")
    if not spec.splits:
        yield _note(_SPEC, "names no files, so no sample was looked at")
    for feature in spec.categorical:
        if feature.cardinality == AUTO:
            yield _note(feature.name, "has cardinality auto; its ids are only checked to fit their dtype")
    if num_keys := sum(feature.key for feature in spec.categorical):
        yield _note("keys", f"{num_keys} features hold raw keys, which have no range: any int64 is one")


def _note(subject: str, found: str) -> Check:
    return Check(subject, found, checked=False)


def _with_cardinalities(spec: FeatureSpec) -> FeatureSpec:
    """The spec with the largest cardinality that the dtype allows in the place of `auto`."""
    known = {
        feature.name: dataclasses.replace(feature, cardinality=min(np.iinfo(feature.dtype).max, 2**31 - 2) + 1)
        for feature in spec.categorical
        if feature.cardinality == AUTO
    }
    return dataclasses.replace(spec, features={**spec.features, **known})


def _size_check(spec: FeatureSpec, split: str, made: dict) -> Check:
    """The number of samples of a split, against the number in the manifest or in the metadata of the feature spec."""
    try:
        found = num_samples(spec, split)
    except (ValueError, OSError) as error:
        return Check(f"split {split}", str(error), False)
    entry = made.get("splits", {}).get(split, {}) if isinstance(made.get("splits"), dict) else {}
    expected = entry.get("num_samples", found) if isinstance(entry, dict) else found
    text = f"{found:,} samples" + ("" if expected == found else f", but {expected} were written")
    return Check(f"split {split}", text, expected == found)


def _unknown_files(root: Path, known: set[str]) -> list[Check]:
    found = {str(path.relative_to(root)) for path in root.rglob("*") if not path.is_dir()}
    return [Check(name, "has no checksum in this dataset; somebody added it", False) for name in sorted(found - known)]


def _passed(jobs: list[Job], checks: list[Check]) -> list[Check]:
    """A line for each kind of check, with the number of files or splits that passed it."""
    bad = {check.subject for check in checks if not check.good}
    lines = []
    for kind, text in KINDS.items():
        done = [job for job in jobs if job.kind == kind]
        if done:
            good = {job.subject for job in done} - bad
            size = sum(job.bytes for job in done)
            unit = "splits" if kind == "samples" else "files"
            lines.append(Check(text, f"{len(good)} {unit}" + (f", {shown_bytes(size)}" if size else "")))
    return lines
