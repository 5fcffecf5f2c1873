"""The stages of making a dataset. Each stage resumes where an earlier run was stopped.

parse     input files -> label, numericals and raw columns of all rows
arrange   label and numericals -> the splits
columns   raw columns -> vocabularies and ids, or keys
finish    feature spec, checksums, manifest
"""

import shutil
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from criteo_prep import manifest
from criteo_prep.durable import Forcing, force_tree
from criteo_prep.feature_spec import Feature, tf_raw_spec
from criteo_prep.manifest import DamagedError
from criteo_prep.parallel import in_order
from criteo_prep.preprocess.arrange import arrange, label_file, numerical_file
from criteo_prep.preprocess.columns.encoder import ColumnEncoder, ColumnWork
from criteo_prep.preprocess.inputs import Inputs
from criteo_prep.preprocess.journal import Journal, ParsedFile
from criteo_prep.preprocess.locations import size_of
from criteo_prep.preprocess.parse.parse_files import Parsing, ReadProgress, parse_files
from criteo_prep.preprocess.parse.raw_columns import RawColumns
from criteo_prep.preprocess.parse.text_stream import InputError
from criteo_prep.preprocess.preflight import Columns, check_resources
from criteo_prep.preprocess.request import FEATURE_SPEC, DatasetRequest, Resources
from criteo_prep.schema import NUM_CATEGORICAL
from criteo_prep.transcribe.freed_memory import keep_freed_memory

_ARRANGED = (label_file, numerical_file)  # what names the files that `arrange` makes


class EncodedColumns(NamedTuple):
    """The categorical columns in their final form.

    Attributes:
      features: one for each column, in column order.
      files: the manifest's entry of each of their files.
    """

    features: list[Feature]
    files: dict[str, dict]


def make_dataset(
    root: Path, destination: Path, *, request: DatasetRequest, journal: Journal, resources: Resources
) -> tuple[str, ...]:
    """Writes what the dataset still lacks.

    Args:
      root: the staging folder, with the finished part of the work.
      destination: the folder that `root` becomes.
      request: what to make.
      journal: which part of the work is finished.
      resources: threads, memory and progress.

    Returns:
      Warnings, one line each.
    """
    if not journal.parsed:
        _parse(root, destination, request=request, journal=journal, resources=resources)
    splits = splits_of(request.inputs, journal.files)
    with resources.progress("arrange", 2 * journal.num_rows, "rows") as progress:
        arrange(root, request.layout, splits=splits, seed=request.seed, advance=progress.advance, forced=journal.forced)
    with Forcing() as forcing:
        forcing.begin(root / file_of(request.layout, split) for split in splits for file_of in _ARRANGED)
        columns = _encode_columns(root, request, journal=journal, splits=splits, resources=resources, forcing=forcing)
    _finish(root, request, journal=journal, columns=columns, workers=resources.memory.workers)
    shutil.rmtree(root / "work")
    return _warnings(request.inputs, journal.files, splits)


def _parse(root: Path, destination: Path, *, request: DatasetRequest, journal: Journal, resources: Resources) -> None:
    keep_freed_memory()
    paths, memory = request.inputs.files, resources.memory
    written = sum(path.stat().st_size for path in root.rglob("*") if path.is_file())
    preflight = check_resources(
        paths,
        destination,
        plan=memory,
        columns=Columns(request.keep_raw, request.seed is not None, keys=request.rules.keys),
        written=written,
    )
    resources.say(str(preflight))
    parsing = Parsing(
        request.labelled,
        request.rules.on_bad_row == "skip",
        keep_truncated=request.rules.on_truncated == "keep",
        workers=memory.workers,
        block_bytes=resources.block_bytes,
        checkpoint_bytes=resources.checkpoint_bytes,
    )
    with resources.progress("parse", None, "rows") as progress:
        reading = ReadProgress(progress, [size_of(path) for path in paths])
        parse_files(paths, root, journal=journal, parsing=parsing, progress=reading)


def _encode_columns(
    root: Path,
    request: DatasetRequest,
    *,
    journal: Journal,
    splits: dict[str, range],
    resources: Resources,
    forcing: Forcing,
) -> EncodedColumns:
    keys, vocabularies = request.rules.keys, root / "vocabularies"
    if keys:
        shutil.rmtree(vocabularies, ignore_errors=True)  # a stopped run of other rules may have made some
    else:
        vocabularies.mkdir(exist_ok=True)
    only_train = request.rules.vocabulary_days == "train" and "train" in splits
    counted = splits["train"] if only_train else range(journal.num_rows)
    num_values = NUM_CATEGORICAL * (journal.num_rows + (0 if request.given or keys else len(counted)))
    with resources.progress("columns", num_values, "values") as progress:
        work = ColumnWork(
            root,
            request.layout,
            raw=RawColumns(root / "raw", journal.num_rows, num_zeros=journal.num_zeros),
            splits=splits,
            counted=counted,
            thresholds=request.rules.thresholds,
            caps=request.rules.caps,
            seed=request.seed,
            keep_raw=request.keep_raw,
            given=request.given,
            keys=keys,
            on_finished=forcing.begin,
        )
        return EncodedColumns(*ColumnEncoder(work, journal, memory=resources.memory, progress=progress).run())


def _finish(
    root: Path,
    request: DatasetRequest,
    *,
    journal: Journal,
    columns: EncodedColumns,
    workers: int,
) -> None:
    """Writes the feature spec and, when everything is on the disk, the manifest."""
    splits = splits_of(request.inputs, journal.files)
    tf_raw_spec(columns.features, splits=request.inputs.split_names).save(root / FEATURE_SPEC)
    if not request.keep_raw:
        shutil.rmtree(root / "raw", ignore_errors=True)
    others = [file_of(request.layout, split) for split in splits for file_of in _ARRANGED]
    others += [FEATURE_SPEC] + sorted(f"raw/{path.name}" for path in root.glob("raw/*"))
    entries = dict(
        zip(others, in_order(lambda name: manifest.block_entry(root / name), others, workers=workers), strict=True)
    )
    for name, entry in entries.items():
        if name in journal.linked and entry != journal.linked[name]:
            raise DamagedError(
                f"{name}: is damaged in the dataset that is to be replaced: its bytes do not fit its checksum in the "
                "manifest. Restore the file, or make the dataset from its inputs (with --overwrite)."
            )
    files = {**columns.files, **entries}
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
    """The rows of each split.

    Raises:
      InputError: the first split, which is train where there is one, has no row.
    """
    evaluation = sum(file.num_rows for file in files[len(inputs.train) :])
    splits = inputs.splits(sum(file.num_rows for file in files) - evaluation, evaluation)
    first = next(iter(splits))
    if not len(splits[first]):
        names = ", ".join(str(path) for path in inputs.train)
        raise InputError(f"{names}: no good row to {first} on; {_skipped_text(files)}.")
    return splits


def _warnings(inputs: Inputs, files: list[ParsedFile], splits: dict[str, range]) -> tuple[str, ...]:
    ignored = [path for path in inputs.ignored if path not in inputs.files]
    lines = [f"{path}: was not read; its name is not the name of an input" for path in ignored]
    lines += [f"skipped: {where}" for file in files for where in file.first_skipped.values()]
    lines += [f"{file.path}: holds no row" for file in files if file.num_rows == 0]
    lines += [f"split {split} has no samples" for split, rows in splits.items() if not len(rows)]
    return tuple(lines)


def _skipped_text(files: list[ParsedFile]) -> str:
    """How many bad rows were skipped, by reason."""
    total: Counter[str] = Counter()
    for file in files:
        total.update(file.skipped)
    if not total:
        return "no row was skipped"
    return f"skipped {total.total()} bad rows: " + ", ".join(f"{rows} {reason}" for reason, rows in total.items())
