"""The stages of a dataset in the making, each of which goes on where an earlier run was stopped.

parse     input files -> label, numericals and raw columns of all rows
arrange   label and numericals -> the splits
columns   raw columns -> vocabularies and ids
finish    feature spec, checksums, manifest
"""

import contextlib
import shutil
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from criteo_prep import manifest
from criteo_prep.durable import force_tree
from criteo_prep.feature_spec import Feature, FeatureSpec, tf_raw_spec
from criteo_prep.machine import processors
from criteo_prep.parallel import in_order
from criteo_prep.preprocess.arrange import arrange, label_file, numerical_file
from criteo_prep.preprocess.columns.encoder import ColumnEncoder, ColumnWork
from criteo_prep.preprocess.columns.memory import MemoryPlan
from criteo_prep.preprocess.inputs import Inputs
from criteo_prep.preprocess.journal import Journal, ParsedFile
from criteo_prep.preprocess.parse.parse_files import CHECKPOINT_BYTES, Parsing, ReadProgress, parse_files
from criteo_prep.preprocess.parse.raw_columns import RawColumns
from criteo_prep.preprocess.parse.text_blocks import BLOCK_BYTES
from criteo_prep.preprocess.parse.text_stream import InputError
from criteo_prep.preprocess.preflight import check_resources, memory_limit
from criteo_prep.preprocess.rules import Rules
from criteo_prep.progress import Progress
from criteo_prep.schema import CATEGORICAL, NUM_CATEGORICAL

FEATURE_SPEC = "feature_spec.yaml"


@dataclass(frozen=True)
class Resources:
    """What changes how the work is done, not what is made.

    Attributes:
      workers: threads; None: the processors that this process may use.
      memory_limit: bytes, or text such as "8G"; None: what there is, less a margin.
      quiet: show no progress.
      log: takes progress as JSON lines.
      block_bytes, checkpoint_bytes: see local_engine.Parsing.
    """

    workers: int | None = None
    memory_limit: int | str | None = None
    quiet: bool = False
    log: TextIO | None = None
    block_bytes: int = BLOCK_BYTES
    checkpoint_bytes: int = CHECKPOINT_BYTES

    @property
    def memory(self) -> MemoryPlan:
        return MemoryPlan(memory_limit(self.memory_limit), self.workers or processors())

    def progress(self, stage: str, total: int | None, unit: str) -> Progress:
        return Progress(stage, total, unit=unit, quiet=self.quiet, log=self.log)

    def say(self, line: str) -> None:
        if not self.quiet:
            print(f"criteo-prep: {line}", file=sys.stderr)


@dataclass(frozen=True)
class DatasetRequest:
    """What is to be made.

    Attributes:
      inputs: the files, and how they become splits.
      rules: how rows become samples.
      wanted: "made_by", "inputs" and "rules" of the manifest.
      keep_raw: keep the raw columns in the dataset.
      labelled: rows have labels.
      given: a folder with vocabularies to use; None to make them.
      source: what of a finished dataset it is made of instead of the inputs; see derive.py.
    """

    inputs: Inputs
    rules: Rules
    wanted: dict
    keep_raw: bool = False
    labelled: bool = True
    given: Path | None = None
    source: str | None = None

    @property
    def seed(self) -> int | None:
        return self.rules.seed if self.rules.shuffle == "global" else None

    @property
    def layout(self) -> FeatureSpec:
        return tf_raw_spec([Feature(name, "", 1) for name in CATEGORICAL], splits=self.inputs.split_names)


def make_dataset(root: Path, destination: Path, *, request: DatasetRequest, resources: Resources) -> tuple[str, ...]:
    """Writes the dataset into `root`, the folder in the making of `destination`. Returns warnings."""
    memory, work = resources.memory, root / "work"
    journal = _begin(root, request, resources)
    if not journal.parsed:
        written = sum(path.stat().st_size for path in root.rglob("*") if path.is_file())
        found = check_resources(
            request.inputs.files,
            destination,
            plan=memory,
            keep_raw=request.keep_raw,
            shuffled=request.seed is not None,
            written=written,
        )
        resources.say(str(found))
        with resources.progress("parse", None, "rows") as progress:
            reading = ReadProgress(progress, [path.stat().st_size for path in request.inputs.files])
            parsing = Parsing(
                request.labelled,
                request.rules.on_bad_row == "skip",
                keep_truncated=request.rules.on_truncated == "keep",
                workers=memory.workers,
                block_bytes=resources.block_bytes,
                checkpoint_bytes=resources.checkpoint_bytes,
            )
            parse_files(request.inputs.files, root, journal=journal, parsing=parsing, progress=reading)
    splits = splits_of(request.inputs, journal.files)
    with resources.progress("arrange", 2 * journal.num_rows, "rows") as progress:
        arrange(root, request.layout, splits=splits, seed=request.seed, advance=progress.advance, forced=journal.forced)
    (root / "vocabularies").mkdir(exist_ok=True)
    counted = splits["train"] if request.rules.vocabulary_days == "train" and "train" in splits else None
    counted = range(journal.num_rows) if counted is None else counted
    num_values = NUM_CATEGORICAL * (journal.num_rows + (0 if request.given else len(counted)))
    with resources.progress("columns", num_values, "values") as progress:
        raw = RawColumns(root / "raw", journal.num_rows, num_zeros=journal.num_zeros)
        columns = ColumnWork(
            root,
            request.layout,
            raw=raw,
            splits=splits,
            counted=counted,
            thresholds=request.rules.thresholds,
            caps=request.rules.caps,
            seed=request.seed,
            keep_raw=request.keep_raw,
            given=request.given,
        )
        features, files = ColumnEncoder(columns, journal, memory=memory, progress=progress).run()
    finish(root, request, journal=journal, splits=splits, features=features, files=files, workers=memory.workers)
    shutil.rmtree(work)
    return warnings_of(request.inputs, journal.files, splits)


def finish(
    root: Path,
    request: DatasetRequest,
    *,
    journal: Journal,
    splits: dict[str, range],
    features: list[Feature],
    files: dict[str, dict],
    workers: int,
) -> None:
    """Writes the feature spec and, when all is on the disk, the manifest.

    Args:
      files: the manifest's entries of the files of the categorical columns.
    """
    tf_raw_spec(features, splits=request.inputs.split_names).save(root / FEATURE_SPEC)
    if not request.keep_raw:
        shutil.rmtree(root / "raw", ignore_errors=True)
    others = [file_of(request.layout, split) for split in splits for file_of in (label_file, numerical_file)]
    others += [FEATURE_SPEC] + sorted(f"raw/{path.name}" for path in root.glob("raw/*"))
    entries = in_order(lambda name: manifest.block_entry(root / name), others, workers)
    files = {**files, **dict(zip(others, entries, strict=True))}
    inputs = [
        {**entry, "rows": file.num_rows, "skipped": file.skipped}
        for entry, file in zip(request.wanted["inputs"], journal.files, strict=True)
    ]
    document = {
        "made_by": request.wanted["made_by"],
        "versions": manifest.versions_of(("numpy", "numba", "pyarrow", "xxhash")),
        "inputs": inputs,
        "rules": request.wanted["rules"],
        "splits": {split: {"num_samples": len(rows)} for split, rows in splits.items()},
        "files": dict(sorted(files.items())),
    }
    force_tree(root)
    manifest.save_manifest(root, document)


def splits_of(inputs: Inputs, files: list[ParsedFile]) -> dict[str, range]:
    """The rows of each split. Raises InputError where there is no row to train on, or none at all."""
    evaluation = sum(file.num_rows for file in files[len(inputs.train) :])
    splits = inputs.splits(sum(file.num_rows for file in files) - evaluation, evaluation)
    first = next(iter(splits))
    if not len(splits[first]):
        names = ", ".join(str(path) for path in inputs.train)
        raise InputError(f"{names}: no good row to {first} on; {_skipped_text(files)}.")
    return splits


def warnings_of(inputs: Inputs, files: list[ParsedFile], splits: dict[str, range]) -> tuple[str, ...]:
    lines = [
        f"{path}: was not read; its name is not the name of an input"
        for path in inputs.ignored
        if path not in inputs.files
    ]
    lines += [f"skipped: {where}" for file in files for where in file.first_skipped.values()]
    lines += [f"{file.path}: holds no row" for file in files if file.num_rows == 0]
    lines += [f"split {split} has no samples" for split, rows in splits.items() if not len(rows)]
    return tuple(lines)


def _begin(root: Path, request: DatasetRequest, resources: Resources) -> Journal:
    """The journal of the run: that of an earlier one, as far as it is of use, or a new one in an empty folder."""
    journal = Journal.load(root / "work")
    if journal is None or journal.source != request.source:
        if (root / "work").exists():
            resources.say(
                f"the unfinished work in {root} is of no use here (the machine may have been started anew since)"
            )
        return begin_again(root, request)
    lines = manifest.differences(journal.wanted, request.wanted)
    if not lines and request.keep_raw and journal.parsed and not _has_raw(root, journal.num_rows):
        resources.say(f"the unfinished work in {root} has not kept its raw columns; all is made again")
        return begin_again(root, request)
    if not lines:
        done = sum(journal.column(name) is not None for name in CATEGORICAL)
        resources.say(f"going on with {root}: {journal.num_rows:,} rows are parsed, {done} columns are done")
        return journal
    kept = _files_still_good(root, journal, request)
    what = f"{sum(file.num_rows for file in kept):,} rows need not be parsed again" if kept else "all is made again"
    resources.say(f"the unfinished work in {root} differs; {what}:\n  " + "\n  ".join(lines))
    if not kept:
        return begin_again(root, request)
    for name in CATEGORICAL:
        journal.forget_column(name)
    same_inputs = journal.wanted["inputs"] == request.wanted["inputs"]
    journal.files, journal.parsed, journal.wanted = kept, journal.parsed and same_inputs, request.wanted
    journal.save()
    return journal


def remove_if_worthless(root: Path) -> None:
    """Empties the folder of a run that failed, if no row was parsed that a next run could use."""
    journal = Journal.load(root / "work")
    if (journal is None or journal.num_rows == 0) and not (root / manifest.MANIFEST).exists():
        _empty(root)


def begin_again(root: Path, request: DatasetRequest) -> Journal:
    """An empty folder, and the journal of a run that has not done anything."""
    _empty(root)
    (root / "work").mkdir()
    return Journal(root / "work", request.wanted, source=request.source)


def _empty(folder: Path) -> None:
    for told in (manifest.MANIFEST, "work/journal.json"):  # first, for what they tell of goes now
        (folder / told).unlink(missing_ok=True)
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def _files_still_good(root: Path, journal: Journal, request: DatasetRequest) -> list[ParsedFile]:
    """The parsed files of an earlier run with other inputs or rules that this one can use."""
    old, new = journal.wanted, request.wanted
    if old["made_by"] != new["made_by"] or not journal.files:
        return []
    changed = {key for key in {**old["rules"], **new["rules"]} if old["rules"].get(key) != new["rules"].get(key)}
    files = journal.files
    if old["inputs"] != new["inputs"]:
        pairs = enumerate(zip(old["inputs"], new["inputs"], strict=False))
        first_other = next((n for n, (a, b) in pairs if a != b), min(len(old["inputs"]), len(new["inputs"])))
        files = [file for file in files[:first_other] if file.finished]
        changed.add("inputs")
    if changed & {"on_bad_row", "on_truncated", "labels", "numerical"}:
        return []
    arranged = _size(root / "work" / "label.bin") < journal.num_rows or not (root / "work" / "numerical.bin").exists()
    if changed & {"inputs", "split", "shuffle", "seed"} and arranged:
        return []
    return files if _has_raw(root, sum(file.num_rows for file in files)) else []


def _has_raw(root: Path, num_rows: int) -> bool:
    """Whether no column is encoded and gone."""
    return all(_size(root / "raw" / f"{name}.raw") >= 4 * num_rows for name in CATEGORICAL)


def _size(path: Path) -> int:
    with contextlib.suppress(FileNotFoundError):
        return path.stat().st_size
    return -1


def _skipped_text(files: list[ParsedFile]) -> str:
    """How many bad rows were left out, by reason."""
    total: Counter[str] = Counter()
    for file in files:
        total.update(file.skipped)
    if not total:
        return "no row was skipped"
    return f"skipped {total.total()} bad rows: " + ", ".join(f"{rows} {reason}" for reason, rows in total.items())
