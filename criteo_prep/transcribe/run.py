"""transcribe_dataset(): a dataset in another layout. Samples, their order, hotness and alpha stay."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np

from criteo_prep.batch import Batch
from criteo_prep.destination import new_dataset
from criteo_prep.feature_spec import AUTO, FeatureSpec
from criteo_prep.guard import check_apart, check_space
from criteo_prep.intact import checking, entries_of
from criteo_prep.manifest import file_entry
from criteo_prep.parallel import in_order
from criteo_prep.progress import Progress
from criteo_prep.transcribe import split_tfrecords, tf_raw
from criteo_prep.transcribe.checks import UNKNOWN_CARDINALITY
from criteo_prep.transcribe.dense_log import log_of
from criteo_prep.transcribe.freed_memory import keep_freed_memory
from criteo_prep.transcribe.layout_spec import check_sizes, files_of_split
from criteo_prep.transcribe.layouts import READERS, WRITERS
from criteo_prep.transcribe.reading import largest_batch
from criteo_prep.transcribe.request import Request, TranscribeError, check_request
from criteo_prep.unchanged import Unchanged


def transcribe_dataset(
    request: Request, quiet: bool = False, warn: Callable[[str], None] = lambda message: None
) -> dict[str, int]:
    """Makes the destination, whole or not at all.

    Args:
      request: what to read and what to make.
      quiet: whether no progress is shown.
      warn: function that is called with a message about each change to the data that a user does not expect.

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
    """As transcribe_dataset, but the source's spec is an argument and is not read from the source's folder."""
    keep_freed_memory()
    splits = _splits(request, source_spec)
    files = [file for split in source_spec.splits for file in files_of_split(source_spec, split)]
    reads = [source_spec.path, *(source_spec.root / file for file in files)]
    unchanged = Unchanged(reads)
    if AUTO in (feature.cardinality for feature in source_spec.categorical):
        source_spec = _with_cardinalities(request, source_spec, splits=splits, quiet=quiet, warn=warn)
    spec = _destination_spec(request, source_spec, splits)
    if request.dense_log and source_spec.numerical and np.dtype(source_spec.numerical[0].dtype).kind == "f":
        warn(
            f"--dense_log: the numericals of the source are {source_spec.numerical[0].dtype}. If they are logarithms "
            "already, as in every tf_raw dataset, leave the flag out."
        )
    entries = _checksums(request, source_spec, splits)
    with (
        new_dataset(request.dst_dataset_path, reads=reads, overwrite=request.overwrite) as folder,
        checking(entries),
    ):
        num_samples = _num_samples(request, source_spec, splits=splits, warn=warn)
        check_space(folder, sum(num_samples.values()) * sample_bytes(spec))
        for split, count in num_samples.items():
            with WRITERS[request.dst_dataset_type][1](folder, spec, split, request) as writer:
                _copy_split(request, source_spec, writer=writer, count=count, quiet=quiet)
            if writer.num_rounded:
                warn(f"{split}: {writer.num_rounded:,} numericals were rounded to {spec.numerical[0].dtype}.")
        unchanged.check()
        spec.metadata = _metadata(request, folder, num_samples)
        spec.save(folder / request.dst_feature_spec)
    return num_samples


def sample_bytes(spec: FeatureSpec) -> int:
    """Bytes of one sample in all files of a split, with every number in binary."""
    return sum(spec.sample_bytes(chunk) for chunk in next(iter(spec.sources.values())))


def _copy_split(request: Request, source_spec: FeatureSpec, *, writer: tf_raw.Writer, count: int, quiet: bool) -> None:
    """Copies the first `count` samples of the writer's split."""
    split = writer.split
    with (
        Progress(f"transcribe {split}", count, unit="samples", quiet=quiet) as progress,
        READERS[request.src_dataset_type](source_spec.root, source_spec, split, request) as source,
        # The threads that read ahead end before their files are closed.
        contextlib.closing(source.batches(min(request.src_batch_size, largest_batch(source)))) as batches,
    ):
        limited = batches if request.max_batches(split) is None else _first_samples(batches, count)
        _copy_batches(limited, writer, progress=progress, dense_log=request.dense_log)
    if writer.num_samples != count:
        raise TranscribeError(
            f"{source_spec.path}: {split} has {writer.num_samples} samples, but {count} were counted before. "
            "Somebody is writing the source, or it is corrupt."
        )


def _copy_batches(source: Iterable[Batch], destination: tf_raw.Writer, *, progress: Progress, dense_log: bool) -> None:
    """Copies every batch. The categorical features of source and destination are the same, in the same order."""
    names = [feature.name for feature in destination.spec.categorical]

    def prepare(numbered: tuple[int, Batch]):
        first_row, batch = numbered
        ids = dict(zip(names, batch.categorical.values(), strict=True))
        numerical = batch.numerical if batch.numerical is None or not dense_log else log_of(batch.numerical)
        return destination.prepare(dataclasses.replace(batch, numerical=numerical, categorical=ids), first_row)

    with contextlib.closing(in_order(prepare, _numbered(source))) as prepared:
        for part in prepared:
            destination.append(part)
            progress.advance(destination.num_samples - progress.done)


def _numbered(batches: Iterable[Batch]) -> Iterator[tuple[int, Batch]]:
    """Each batch with the row of its first sample."""
    first_row = 0
    for batch in batches:
        yield first_row, batch
        first_row += batch.num_samples


def _checksums(request: Request, spec: FeatureSpec, splits: tuple[str, ...]) -> dict[Path, dict]:
    """The recorded checksums of the source's files in splits that are read as a whole: path -> entry."""
    whole = [split for split in splits if request.max_batches(split) is None]
    paths = {spec.root / file for split in whole for file in files_of_split(spec, split)}
    return {path: entry for path, entry in entries_of(spec).items() if path in paths} if paths else {}


def _first_samples(batches: Iterable[Batch], count: int) -> Iterator[Batch]:
    """The first `count` samples, in the same batches."""
    for batch in batches:
        yield batch.part(0, count) if batch.num_samples > count else batch
        count -= min(count, batch.num_samples)
        if not count:
            return


def _source_spec(request: Request) -> FeatureSpec:
    spec = FeatureSpec.load(Path(request.src_dataset_path) / request.src_feature_spec, auto=True)
    return split_tfrecords.spec_of_folders(spec) if request.src_dataset_type == "split_tfrecords" else spec


def _splits(request: Request, spec: FeatureSpec) -> tuple[str, ...]:
    """The splits to take."""
    splits = ("train", "test") if request.src_dataset_type == "synthetic" else spec.splits
    splits = tuple(split for split in splits if split == "train" or not request.train_only)
    if not splits:
        asked = "train" if request.train_only else "any split"
        raise TranscribeError(
            f"{spec.path}: source_spec names no files of {asked}. If it is the spec of a synthetic dataset, "
            "add --src_dataset_type synthetic."
        )
    return splits


def _with_cardinalities(
    request: Request, spec: FeatureSpec, *, splits: tuple[str, ...], quiet: bool, warn: Callable[[str], None]
) -> FeatureSpec:
    """The spec with the largest id of all splits + 1 in place of every cardinality `auto`."""
    if request.src_dataset_type == "synthetic":
        raise TranscribeError(f"{spec.path}: says cardinality auto; a synthetic feature needs a number.")
    unknown = [feature for feature in spec.categorical if feature.cardinality == AUTO]
    largest = {feature.name: -1 for feature in unknown}
    spec_to_read = _with_features(
        spec, [dataclasses.replace(feature, cardinality=UNKNOWN_CARDINALITY) for feature in unknown]
    )
    for split in splits:
        with (
            READERS[request.src_dataset_type](spec.root, spec_to_read, split, request) as source,
            Progress(f"find cardinalities in {split}", source.num_samples, unit="samples", quiet=quiet) as progress,
        ):
            for batch in source.batches(min(request.src_batch_size, largest_batch(source))):
                for name in largest:
                    if len(ids := batch.categorical[name].values):  # `initial=-1` does not fit unsigned ids
                        largest[name] = max(largest[name], int(ids.max()))
                progress.advance(batch.num_samples)
    sizes = {name: max(largest[name] + 1, 1) for name in largest}
    warn(f"cardinalities found (largest id + 1): {', '.join(f'{name} {size}' for name, size in sizes.items())}.")
    return _with_features(spec, [dataclasses.replace(feature, cardinality=sizes[feature.name]) for feature in unknown])


def _with_features(spec: FeatureSpec, features: list) -> FeatureSpec:
    """The spec with these features in place of the features of the same names."""
    return dataclasses.replace(spec, features={**spec.features, **{feature.name: feature for feature in features}})


def _destination_spec(request: Request, source: FeatureSpec, splits: tuple[str, ...]) -> FeatureSpec:
    if request.dense_log:
        source = _with_features(source, [dataclasses.replace(feature, dtype="float16") for feature in source.numerical])
    return WRITERS[request.dst_dataset_type][0](source, splits)


def _num_samples(
    request: Request, spec: FeatureSpec, *, splits: tuple[str, ...], warn: Callable[[str], None]
) -> dict[str, int]:
    counts = {}
    for split in splits:
        with READERS[request.src_dataset_type](spec.root, spec, split, request) as source:
            for message in getattr(source, "doubts", ()):
                warn(message)
            if request.src_dataset_type != "synthetic":
                check_sizes(spec, split)
            limit = request.max_batches(split)
            counts[split] = source.num_samples
            if limit is not None:
                counts[split] = min(source.num_samples, limit * request.src_batch_size)
    return counts


def _metadata(request: Request, folder: Path, num_samples: dict[str, int]) -> dict:
    """Where the dataset comes from, and size and checksum of its files. Published datasets have no file for this."""
    source = {"dataset_type": request.src_dataset_type}
    if request.src_dataset_type == "synthetic":
        source["seed"] = request.seed
    files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    entries = in_order(lambda file: file_entry(folder / file), files)
    return {
        "made_by": "criteo-prep transcribe",
        "source": source,
        "splits": {split: {"num_samples": count} for split, count in num_samples.items()},
        "files": dict(zip(files, entries, strict=True)),
    }
