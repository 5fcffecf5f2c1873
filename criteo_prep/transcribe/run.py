"""From one layout to another: same samples, same order, hotness and alpha kept.

A layout is a reader and a writer of the same shape: `Reader(root, spec, split).batches(batch_size)` yields Batches, and
`Writer(root, spec, split).write(batch)` takes them; a third function says what spec a source's features get in it.
A writer's `write` is its `prepared`, which any thread may call, and its `append`, which takes the results in order.
Which layouts there are is what stands in READERS and WRITERS.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from criteo_prep.batch import Batch
from criteo_prep.destination import new_dataset
from criteo_prep.feature_spec import AUTO, FeatureSpec, tf_raw_spec
from criteo_prep.guard import check_apart, check_space
from criteo_prep.intact import checking, entries_of
from criteo_prep.manifest import file_entry
from criteo_prep.parallel import in_order
from criteo_prep.progress import Progress
from criteo_prep.synthetic import generator
from criteo_prep.transcribe import criteo_npy, record_binary, split_tfrecords, tf_raw
from criteo_prep.transcribe.dense_log import log_of
from criteo_prep.transcribe.freed_memory import keep_freed_memory
from criteo_prep.transcribe.layout_spec import check_holds, check_sizes
from criteo_prep.transcribe.request import SYNTHETIC_BATCHES, Request, TranscribeError, check_request
from criteo_prep.unchanged import Unchanged

__all__ = ["SYNTHETIC_BATCHES", "Request", "TranscribeError", "transcribe", "transcribe_dataset", "transcribe_spec"]

_MAX_BATCH = 65536  # samples in memory at a time, however many a batch is said to have; with fewer, threads wait more
_LARGEST = 2**31 - 1  # the cardinality that stands for one that is still to be found; ids are below it


def _read_synthetic(root: Path, spec: FeatureSpec, split: str, request: Request) -> generator.Reader:
    return generator.Reader(
        spec, split, num_samples=request.max_batches(split) * request.src_batch_size, seed=request.seed
    )


# pyarrow is imported where it is needed: a trainer that reads tf_raw does without.


def _parquet():
    from criteo_prep.transcribe import parquet

    return parquet


def _csv():
    from criteo_prep.transcribe import csv

    return csv


# layout -> (root, spec, split, request) -> reader
READERS: dict[str, Callable] = {
    "tf_raw": lambda root, spec, split, request: tf_raw.Reader(root, spec, split=split),
    "record_binary": lambda root, spec, split, request: record_binary.Reader(root, spec, split),
    "criteo_npy": lambda root, spec, split, request: criteo_npy.Reader(root, spec, split),
    "split_tfrecords": lambda root, spec, split, request: split_tfrecords.Reader(root, spec, split),
    "parquet": lambda root, spec, split, request: _parquet().Reader(root, spec, split),
    "csv": lambda root, spec, split, request: _csv().Reader(root, spec, split),
    "synthetic": _read_synthetic,
}


def destination_spec(source: FeatureSpec, splits: tuple[str, ...]) -> FeatureSpec:
    """The standard tf_raw spec of a source's features.

    Categorical features keep their name (less the suffix `.bin` that published datasets have in it), cardinality,
    hotness, alpha and ragged; numericals and label get the standard names, in the same order.

    Raises:
      FeatureSpecError: a categorical name is one of the standard names, or two are alike.
      LayoutError: the numericals are integers.
    """
    check_holds("tf_raw", source)
    tables = [dataclasses.replace(feature, name=feature.name.removesuffix(".bin")) for feature in source.categorical]
    return tf_raw_spec(tables, len(source.numerical), splits=splits)


# layout -> ((source spec, splits) -> spec, (root, spec, split, request) -> writer)
WRITERS: dict[str, tuple[Callable, Callable]] = {
    "tf_raw": (destination_spec, lambda root, spec, split, request: tf_raw.Writer(root, spec, split)),
    "record_binary": (
        record_binary.record_binary_spec,
        lambda root, spec, split, request: record_binary.Writer(root, spec, split),
    ),
    "criteo_npy": (criteo_npy.criteo_npy_spec, lambda root, spec, split, request: criteo_npy.Writer(root, spec, split)),
    "split_tfrecords": (
        split_tfrecords.split_tfrecords_spec,
        lambda root, spec, split, request: split_tfrecords.Writer(
            root, spec, split=split, prebatch_size=request.dst_prebatch_size
        ),
    ),
    "parquet": (
        lambda source, splits: _parquet().parquet_spec(source, splits),
        lambda root, spec, split, request: _parquet().Writer(root, spec, split),
    ),
    "csv": (
        lambda source, splits: _csv().csv_spec(source, splits),
        lambda root, spec, split, request: _csv().Writer(root, spec, split),
    ),
}


def transcribe(source: Iterable[Batch], destination: tf_raw.Writer, *, progress: Progress, dense_log: bool) -> None:
    """Copies every batch. The categorical features of source and destination are the same, in the same order."""
    names = [feature.name for feature in destination.spec.categorical]

    def prepared(numbered: tuple[int, Batch]):
        first_row, batch = numbered
        ids = dict(zip(names, batch.categorical.values(), strict=True))
        numerical = batch.numerical if batch.numerical is None or not dense_log else log_of(batch.numerical)
        return destination.prepared(dataclasses.replace(batch, numerical=numerical, categorical=ids), first_row)

    with contextlib.closing(in_order(prepared, _numbered(source))) as ready:
        for part in ready:
            destination.append(part)
            progress.advance(destination.num_samples - progress.done)


def _numbered(batches: Iterable[Batch]) -> Iterator[tuple[int, Batch]]:
    """Batches, each with the row of its first sample."""
    first_row = 0
    for batch in batches:
        yield first_row, batch
        first_row += batch.num_samples


def transcribe_dataset(
    request: Request, quiet: bool = False, warn: Callable[[str], None] = lambda message: None
) -> dict[str, int]:
    """Makes the destination, whole or not at all.

    Args:
      request: what to do.
      quiet: show no progress.
      warn: is told what happened to the data that one would not guess.

    Returns:
      The number of samples of each split.

    Raises:
      ValueError: the request, the source or the destination is not what it must be.
    """
    check_request(request, READERS, WRITERS)
    check_apart(request.dst_dataset_path, [request.reads])
    return transcribe_spec(request, _source_spec(request), quiet=quiet, warn=warn)


def transcribe_spec(
    request: Request,
    source_spec: FeatureSpec,
    *,
    quiet: bool = False,
    warn: Callable[[str], None] = lambda message: None,
) -> dict[str, int]:
    """As transcribe_dataset, for a source whose spec is at hand; the request's source folder is not looked at."""
    keep_freed_memory()
    splits = _splits(request, source_spec)
    chunks = [chunk for chunks in source_spec.sources.values() for chunk in chunks]
    reads = [source_spec.path, *(source_spec.root / file for chunk in chunks for file in chunk.files)]
    unchanged = Unchanged(reads)
    if AUTO in (feature.cardinality for feature in source_spec.categorical):
        source_spec = _with_cardinalities(request, source_spec, splits=splits, quiet=quiet, warn=warn)
    spec = _destination_spec(request, source_spec, splits)
    entries = _checksums(request, source_spec, splits)
    with (
        new_dataset(request.dst_dataset_path, reads=reads, overwrite=request.overwrite) as folder,
        checking(entries),
    ):
        num_samples = _num_samples(request, source_spec, splits=splits, warn=warn)
        check_space(folder, sum(num_samples.values()) * sample_bytes(spec))
        for split, rows in num_samples.items():
            with (
                Progress(f"transcribe {split}", rows, unit="samples", quiet=quiet) as progress,
                READERS[request.src_dataset_type](source_spec.root, source_spec, split, request) as source,
                WRITERS[request.dst_dataset_type][1](folder, spec, split, request) as destination,
                # Threads that read ahead end before their files are closed.
                contextlib.closing(source.batches(min(request.src_batch_size, _MAX_BATCH))) as batches,
            ):
                wanted = batches if request.max_batches(split) is None else _first(batches, rows)
                transcribe(wanted, destination, progress=progress, dense_log=request.dense_log)
                if destination.num_samples != rows:
                    raise TranscribeError(
                        f"{source_spec.path}: {split} has {destination.num_samples} samples, but {rows} were counted "
                        "before. Somebody is writing the source, or it is corrupt."
                    )
            if destination.num_rounded:
                warn(f"{split}: {destination.num_rounded:,} numericals were rounded to {spec.numerical[0].dtype}.")
        unchanged.check()
        spec.metadata = _made_by(request, folder, num_samples)
        spec.save(folder / request.dst_feature_spec)
    return num_samples


def _checksums(request: Request, spec: FeatureSpec, splits: tuple[str, ...]) -> dict[Path, dict]:
    """The checksums to check the source by: of every file of the splits, where they are read as a whole."""
    whole = [split for split in splits if split in spec.sources and request.max_batches(split) is None]
    files = {spec.root / file for split in whole for chunk in spec.sources[split] for file in chunk.files}
    return {path: entry for path, entry in entries_of(spec).items() if path in files}


def _first(batches: Iterable[Batch], rows: int) -> Iterator[Batch]:
    """Batches up to so many samples in all."""
    for batch in batches:
        yield batch.part(0, rows) if batch.num_samples > rows else batch
        rows -= min(rows, batch.num_samples)
        if not rows:
            return


def sample_bytes(spec: FeatureSpec) -> int:
    """Bytes of one sample over all files of a split, as if it were in binary."""
    return sum(spec.sample_bytes(chunk) for chunk in next(iter(spec.sources.values())))


def _source_spec(request: Request) -> FeatureSpec:
    spec = FeatureSpec.load(Path(request.src_dataset_path) / request.src_feature_spec, auto=True)
    return split_tfrecords.with_sources(spec) if request.src_dataset_type == "split_tfrecords" else spec


def _splits(request: Request, spec: FeatureSpec) -> tuple[str, ...]:
    """The splits to take."""
    splits = ("train", "test") if request.src_dataset_type == "synthetic" else spec.splits
    splits = tuple(split for split in splits if split == "train" or not request.train_only)
    if not splits:
        wanted = "train" if request.train_only else "any split"
        raise TranscribeError(
            f"{spec.path}: source_spec names no files of {wanted}. If it is the spec of a synthetic dataset, "
            "add --src_dataset_type synthetic."
        )
    return splits


def _with_cardinalities(
    request: Request, spec: FeatureSpec, *, splits: tuple[str, ...], quiet: bool, warn: Callable[[str], None]
) -> FeatureSpec:
    """The spec with the largest id + 1 of all splits where it says `auto`."""
    if request.src_dataset_type == "synthetic":
        raise TranscribeError(f"{spec.path}: says cardinality auto; a synthetic feature needs a number.")
    asked = [feature for feature in spec.categorical if feature.cardinality == AUTO]
    largest = {feature.name: -1 for feature in asked}
    whole = {feature.name: dataclasses.replace(feature, cardinality=_LARGEST) for feature in asked}
    reading = dataclasses.replace(spec, features={**spec.features, **whole})
    for split in splits:
        with (
            READERS[request.src_dataset_type](spec.root, reading, split, request) as source,
            Progress(f"find cardinalities in {split}", source.num_samples, unit="samples", quiet=quiet) as progress,
        ):
            for batch in source.batches(min(request.src_batch_size, _MAX_BATCH)):
                for name in largest:
                    largest[name] = max(largest[name], int(batch.categorical[name].values.max(initial=-1)))
                progress.advance(batch.num_samples)
    found = {name: max(largest[name] + 1, 1) for name in largest}
    warn(f"cardinalities found (largest id + 1): {', '.join(f'{name} {size}' for name, size in found.items())}.")
    there = {name: dataclasses.replace(spec.features[name], cardinality=size) for name, size in found.items()}
    return dataclasses.replace(spec, features={**spec.features, **there})


def _destination_spec(request: Request, source: FeatureSpec, splits: tuple[str, ...]) -> FeatureSpec:
    if request.dense_log:
        logs = {feature.name: dataclasses.replace(feature, dtype="float16") for feature in source.numerical}
        source = dataclasses.replace(source, features={**source.features, **logs})
    return WRITERS[request.dst_dataset_type][0](source, splits)


def _num_samples(
    request: Request, spec: FeatureSpec, *, splits: tuple[str, ...], warn: Callable[[str], None]
) -> dict[str, int]:
    counts = {}
    for split in splits:
        with READERS[request.src_dataset_type](spec.root, spec, split, request) as source:
            if request.src_dataset_type == "csv":
                for message in source.doubts:
                    warn(message)
            if request.src_dataset_type != "synthetic":
                check_sizes(spec, split)
            limit = request.max_batches(split)
            there = source.num_samples
            counts[split] = there if limit is None else min(there, limit * request.src_batch_size)
    return counts


def _made_by(request: Request, folder: Path, num_samples: dict[str, int]) -> dict:
    """Where the dataset comes from and what its files must be; the published tree has no file of its own for it."""
    source = {"dataset_type": request.src_dataset_type}
    if request.src_dataset_type == "synthetic":
        source["seed"] = request.seed
    files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    entries = in_order(lambda file: file_entry(folder / file), files)
    return {
        "made_by": "criteo-prep transcribe",
        "source": source,
        "splits": {split: {"num_samples": rows} for split, rows in num_samples.items()},
        "files": dict(zip(files, entries, strict=True)),
    }
