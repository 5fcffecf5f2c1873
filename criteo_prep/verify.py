"""`criteo-prep verify`: checks every byte of a dataset against its feature spec and its manifest.

Checks of every split: its files exist and their sizes agree; ids are in [0, cardinality); labels are 0 or 1; numericals
are finite. Checks if a manifest exists: each file, and the manifest, has its checksum, and no file is unknown. A
vocabulary has as many values as its feature has ids.
"""

import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from criteo_prep import manifest
from criteo_prep.feature_spec import Feature, FeatureSpec, FeatureSpecError
from criteo_prep.progress import Progress

_SPEC = "feature_spec.yaml"
_READ_BYTES = 8 << 20


@dataclass(frozen=True)
class Check:
    """One line of the report: what was checked, what was found, and whether that is good."""

    subject: str
    found: str
    good: bool = True


@dataclass(frozen=True)
class Report:
    """All checks of one dataset."""

    root: Path
    checks: tuple[Check, ...]

    @property
    def good(self) -> bool:
        return all(check.good for check in self.checks)

    def text(self, only_bad: bool = False) -> str:
        """A table of the checks, and a last line with the result."""
        shown = [check for check in self.checks if not (only_bad and check.good)]
        width = max((len(check.subject) for check in shown), default=0)
        lines = [f"{'good' if check.good else 'BAD':5}{check.subject:{width}}  {check.found}" for check in shown]
        bad = sum(not check.good for check in self.checks)
        return "\n".join(
            [*lines, f"{self.root}: {'good' if not bad else f'{bad} of {len(self.checks)} checks failed'}"]
        )


def verify(root: str | Path, workers: int | None = None, quiet: bool = False) -> Report:
    """Checks a dataset. Reads all files once for their content and once for their checksums.

    Args:
      root: the dataset folder.
      workers: threads; None for one thread per core.
      quiet: show no progress.

    Raises:
      FeatureSpecError: the feature spec is missing or wrong, so that nothing can be checked.
    """
    root = Path(root)
    document, checks = _read_manifest(root)
    spec = FeatureSpec.load(root / _SPEC)
    checks += _sizes(spec, document)
    files = document["files"] if document else _entries_in(spec)
    jobs = [*_content_jobs(root, spec, checks), *_checksum_jobs(root, files), *_vocabulary_jobs(root, spec, files)]
    if document:
        checks += _unknown_files(root, files)
    with (
        Progress("verify", sum(job.bytes for job in jobs), unit="bytes", quiet=quiet) as progress,
        ThreadPoolExecutor(workers) as pool,
    ):
        for job, problem in zip(jobs, pool.map(lambda job: job.run(), jobs), strict=True):
            progress.advance(job.bytes)
            if problem:
                checks.append(Check(job.subject, problem, False))
    checks += _passed(jobs, checks)
    return Report(root, tuple(checks))


@dataclass(frozen=True)
class _Job:
    """A part of the work for one thread. `run` returns the problem, or None."""

    subject: str
    kind: str
    bytes: int
    run: Callable[[], str | None]


def _read_manifest(root: Path) -> tuple[dict | None, list[Check]]:
    """The manifest, or None if it cannot be used, and the checks of it."""
    if not (root / manifest.MANIFEST).exists():
        return None, [Check(manifest.MANIFEST, "there is none")]
    try:
        document, intact = manifest.load_manifest(root), manifest.is_intact(root)
    except manifest.ManifestError as error:
        return None, [Check(manifest.MANIFEST, str(error), False)]
    if intact is False:
        return None, [Check(manifest.MANIFEST, "its bytes do not fit its own checksum; somebody changed it", False)]
    return document, [Check(manifest.MANIFEST, "as written" if intact else "has no checksum of its own")]


def _sizes(spec: FeatureSpec, document: dict | None) -> list[Check]:
    checks = []
    for split in spec.splits:
        try:
            found = spec.validate_files(split)
        except (FeatureSpecError, OSError) as error:
            checks.append(Check(f"split {split}", str(error), False))
            continue
        expected = document["splits"].get(split, {}).get("num_samples", found) if document else found
        text = f"{found:,} samples" + ("" if expected == found else f", but the manifest says {expected:,}")
        checks.append(Check(f"split {split}", text, expected == found))
    return checks


def _entries_in(spec: FeatureSpec) -> dict[str, dict]:
    """The checksums in the feature spec's metadata, which transcribe writes."""
    files = spec.metadata.get("files") if isinstance(spec.metadata, dict) else None
    return files if isinstance(files, dict) else {}


def _content_jobs(root: Path, spec: FeatureSpec, checks: list[Check]) -> list[_Job]:
    """Ids, labels and numericals of the splits whose sizes are right, in parts of _READ_BYTES."""
    bad = {check.subject for check in checks if not check.good}
    jobs = []
    for split in spec.splits:
        for chunk in spec.sources[split]:
            if f"split {split}" in bad or chunk.type != "split_binary":
                continue
            feature, file = spec.features[chunk.features[0]], chunk.files[0]
            size = (root / file).stat().st_size
            for start in range(0, size, _READ_BYTES):
                count = min(_READ_BYTES, size - start)
                run = partial(_content_problem, root / file, spec, feature=feature, start=start, count=count)
                jobs.append(_Job(file, "content", bytes=count, run=run))
    return jobs


def _content_problem(path: Path, spec: FeatureSpec, *, feature: Feature, start: int, count: int) -> str | None:
    with open(path, "rb", buffering=0) as file:
        file.seek(start)
        data = file.read(count)
    if len(data) != count:
        return f"ends at byte {start + len(data)}; it shrank while it was read"
    values = np.frombuffer(data, np.dtype(feature.dtype) if feature is not spec.label else np.uint8)
    if feature is spec.label:
        wrong, rule = values > 1, "a label is 0 or 1"
    elif feature.cardinality is None:
        wrong, rule = ~np.isfinite(values), "numericals must be finite"
    else:
        wrong = (values < 0) | (values >= feature.cardinality)
        rule = f"ids must be below the cardinality {feature.cardinality}"
    if not wrong.any():
        return None
    place = int(np.argmax(wrong))
    return f"byte {start + place * values.itemsize}: {values[place]}, but {rule}"


def _checksum_jobs(root: Path, files: dict[str, dict]) -> list[_Job]:
    jobs = []
    for name, entry in files.items():
        path, size = root / name, entry["bytes"]
        found_size = path.stat().st_size if path.is_file() else None
        if found_size != size:
            found = "there is no such file" if found_size is None else f"has {found_size} bytes, not {size}"
            jobs.append(_Job(name, "size", bytes=0, run=lambda found=found: found))
        elif "xxh3_64" in entry:
            jobs += _block_jobs(path, name, entry)
        elif "crc32" in entry:
            jobs.append(_Job(name, "checksum", bytes=size, run=lambda p=path, c=entry["crc32"]: _crc32_problem(p, c)))
    return jobs


def _block_jobs(path: Path, name: str, entry: dict) -> Iterator[_Job]:
    block = entry["block_bytes"]
    if len(entry["xxh3_64"]) != -(-entry["bytes"] // block):
        yield _Job(
            name,
            "checksum",
            bytes=0,
            run=lambda: "the manifest has another number of checksums than the file has blocks",
        )
    for number, expected in enumerate(entry["xxh3_64"]):
        start = number * block
        count = min(block, entry["bytes"] - start)
        yield _Job(
            name,
            "checksum",
            bytes=count,
            run=lambda s=start, c=count, e=expected: _block_problem(path, s, count=c, expected=e),
        )


def _block_problem(path: Path, start: int, *, count: int, expected: str) -> str | None:
    checksums = manifest.BlockChecksums(count)
    with open(path, "rb", buffering=0) as file:
        file.seek(start)
        while checksums.bytes < count and (data := file.read(min(_READ_BYTES, count - checksums.bytes))):
            checksums.update(data)
    if checksums.entry["xxh3_64"] != [expected]:
        return f"bytes {start} to {start + count - 1} do not fit their checksum"
    return None


def _crc32_problem(path: Path, expected: str) -> str | None:
    crc32 = 0
    with open(path, "rb", buffering=0) as file:
        while data := file.read(_READ_BYTES):
            crc32 = zlib.crc32(data, crc32)
    return None if f"{crc32:08x}" == expected else f"its crc32 is {crc32:08x}, not {expected}"


def _vocabulary_jobs(root: Path, spec: FeatureSpec, files: dict[str, dict]) -> list[_Job]:
    """The vocabularies, which only datasets of preprocess have."""
    jobs = []
    for feature in spec.categorical:
        name = f"vocabularies/{feature.name}.parquet"
        if name in files and (root / name).is_file():
            jobs.append(_Job(name, "vocabulary", bytes=0, run=partial(_vocabulary_problem, root / name, feature)))
    return jobs


def _vocabulary_problem(path: Path, feature: Feature) -> str | None:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path, pre_buffer=False) as file:
            ids = (batch.column(0).to_numpy() for batch in file.iter_batches(_READ_BYTES // 8, columns=["id"]))
            largest = max((int(part.max(initial=0)) for part in ids), default=0)
    except (pyarrow.ArrowException, OSError, KeyError) as error:
        return f"is not a vocabulary: {error}"
    if largest + 1 != feature.cardinality:
        return f"has ids up to {largest}, but {feature.name} has cardinality {feature.cardinality}"
    return None


def _unknown_files(root: Path, files: dict[str, dict]) -> list[Check]:
    found = {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}
    return [Check(name, "is not in the manifest", False) for name in sorted(found - set(files) - {manifest.MANIFEST})]


def _passed(jobs: list[_Job], checks: list[Check]) -> list[Check]:
    """A line for each kind of check, with the number of good files; and a line if the dataset has no checksums."""
    lines = []
    for kind, text in (
        ("content", "ids, labels and numericals in range"),
        ("checksum", "checksums right"),
        ("vocabulary", "vocabularies fit their features"),
    ):
        done = [job for job in jobs if job.kind == kind]
        bad = {check.subject for check in checks if not check.good}
        good_files = {job.subject for job in done} - bad
        if done:
            size = sum(job.bytes for job in done)
            lines.append(Check(text, f"{len(good_files)} files" + (f", {size / 1e9:.3f} GB" if size else "")))
    if not any(job.kind == "checksum" for job in jobs):
        lines.append(Check("checksums", "the dataset has none; a changed byte that is still in range is not found"))
    return lines
