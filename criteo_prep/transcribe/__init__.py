"""From one layout to another: same samples, same order, hotness and alpha kept.

A layout is a reader and a writer of the same shape: `Reader(...).batches(batch_size)` yields Batches, and
`Writer(root, spec, split).write(batch)` takes them. Which layouts there are is what stands in READERS and WRITERS.
"""

import dataclasses
import itertools
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from criteo_prep import synthetic
from criteo_prep.batch import Batch
from criteo_prep.destination import new_dataset
from criteo_prep.feature_spec import FeatureSpec, tf_raw_spec
from criteo_prep.manifest import file_entry
from criteo_prep.progress import Progress
from criteo_prep.synthetic.ahead import in_order
from criteo_prep.transcribe import tf_raw

# Names that the published program knows and this one has no reader or writer for yet.
NOT_YET = (
    "split_tfrecords", "csv", "parquet", "criteo_npy", "record_binary", "binary_multihot", "tfrecords_multihot", "nvt",
)  # fmt: skip

# Where `--max_batches_* -1`, "all", meets the synthetic source, which has no end of its own.
# Source: the 6 GiB that NVIDIA's table of datasets gives for the synthetic ones are 1000 and 100 batches of 65536.
SYNTHETIC_BATCHES = {"train": 1000, "test": 100}


class TranscribeError(ValueError):
    """What was asked for cannot be transcribed."""


@dataclass(frozen=True)
class Request:
    """What to transcribe; the attributes are the published flags.

    Attributes:
      src_dataset_path, dst_dataset_path: folders.
      src_feature_spec, dst_feature_spec: names of the feature specs in them.
      src_dataset_type, dst_dataset_type: layouts, keys of READERS and WRITERS.
      src_batch_size: samples read at a time; the batches that `max_batches_*` count.
      max_batches_train, max_batches_test: -1 is all; the second holds for every split but train.
      train_only: leave the other splits out.
      seed: of the synthetic source.
      overwrite: replace a destination that holds files.
    """

    src_dataset_path: str | Path = "synthetic_dataset"
    src_dataset_type: str = "tf_raw"
    src_feature_spec: str = "feature_spec.yaml"
    src_batch_size: int = 65536
    dst_dataset_path: str | Path = "synthetic_dataset"
    dst_feature_spec: str = "feature_spec.yaml"
    dst_dataset_type: str = "split_tfrecords"
    max_batches_train: int = -1
    max_batches_test: int = -1
    train_only: bool = False
    seed: int = 0
    overwrite: bool = False

    def max_batches(self, split: str) -> int | None:
        """The number of batches to take of a split; None for all of a source that ends by itself."""
        given = self.max_batches_train if split == "train" else self.max_batches_test
        if given == -1:
            return SYNTHETIC_BATCHES[split] if self.src_dataset_type == "synthetic" else None
        return given


def _read_tf_raw(request: Request, spec: FeatureSpec, split: str) -> tf_raw.Reader:
    return tf_raw.Reader(spec.root, spec, split)


def _read_synthetic(request: Request, spec: FeatureSpec, split: str) -> synthetic.Reader:
    return synthetic.Reader(spec, split, request.max_batches(split) * request.src_batch_size, request.seed)


READERS: dict[str, Callable] = {"tf_raw": _read_tf_raw, "synthetic": _read_synthetic}
WRITERS: dict[str, Callable] = {"tf_raw": tf_raw.Writer}


def transcribe(source: Iterator[Batch], destination: tf_raw.Writer, progress: Progress) -> None:
    """Copies every batch. The categorical features of source and destination are the same, in the same order."""
    names = [feature.name for feature in destination.spec.categorical]
    for batch in source:
        ids = dict(zip(names, batch.categorical.values(), strict=True))
        destination.write(dataclasses.replace(batch, categorical=ids))
        progress.advance(batch.num_samples)


def transcribe_dataset(request: Request, quiet: bool = False) -> dict[str, int]:
    """Makes the destination, whole or not at all. Returns the number of samples of each split.

    Raises:
      ValueError: the request, the source or the destination is not what it must be.
    """
    _check(request)
    source_spec = FeatureSpec.load(Path(request.src_dataset_path) / request.src_feature_spec)
    splits = ("train", "test") if request.src_dataset_type == "synthetic" else source_spec.splits
    splits = tuple(split for split in splits if split == "train" or not request.train_only)
    if not splits:
        wanted = "train" if request.train_only else "any split"
        raise TranscribeError(
            f"{source_spec.path}: source_spec names no files of {wanted}. If it is the spec of a synthetic dataset, "
            "add --src_dataset_type synthetic."
        )
    spec = destination_spec(source_spec, splits)
    read = READERS[request.src_dataset_type]
    with new_dataset(request.dst_dataset_path, request.overwrite) as folder:
        num_samples = _num_samples(request, source_spec, splits)
        check_space(folder, sum(num_samples.values()) * sample_bytes(spec))
        for split, rows in num_samples.items():
            with (
                Progress(f"transcribe {split}", rows, "samples", quiet) as progress,
                read(request, source_spec, split) as source,
                WRITERS[request.dst_dataset_type](folder, spec, split) as destination,
            ):
                batches = itertools.islice(source.batches(request.src_batch_size), request.max_batches(split))
                transcribe(batches, destination, progress)
        spec.metadata = _made_by(request, spec, folder, num_samples)
        spec.save(folder / request.dst_feature_spec)
    return num_samples


def destination_spec(source: FeatureSpec, splits: tuple[str, ...]) -> FeatureSpec:
    """The standard tf_raw spec of a source's features.

    Categorical features keep their name (less the suffix `.bin` that published datasets have in it), cardinality,
    hotness and alpha; numericals and label get the standard names, in the same order.

    Raises:
      FeatureSpecError: a categorical name is one of the standard names, or two are alike.
    """
    tables = [dataclasses.replace(feature, name=feature.name.removesuffix(".bin")) for feature in source.categorical]
    return tf_raw_spec(tables, len(source.numerical), splits)


def sample_bytes(spec: FeatureSpec) -> int:
    """Bytes of one sample over all files of a split."""
    return sum(spec.sample_bytes(chunk) for chunk in next(iter(spec.sources.values())))


def check_space(folder: Path, needed: int) -> None:
    """Raises TranscribeError when the disk of `folder` has less than `needed` bytes left. Call it first."""
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise TranscribeError(
            f"{folder.parent}: the dataset needs {needed / 2**30:.1f} GiB, the disk has {free / 2**30:.1f} GiB left. "
            "Ask for fewer samples or name another disk."
        )


def _num_samples(request: Request, spec: FeatureSpec, splits: tuple[str, ...]) -> dict[str, int]:
    counts = {}
    for split in splits:
        with READERS[request.src_dataset_type](request, spec, split) as source:
            limit = request.max_batches(split)
            there = source.num_samples
            counts[split] = there if limit is None else min(there, limit * request.src_batch_size)
    return counts


def _made_by(request: Request, spec: FeatureSpec, folder: Path, num_samples: dict[str, int]) -> dict:
    """Where the dataset comes from and what its files must be; the published tree has no file of its own for it."""
    source = {"dataset_type": request.src_dataset_type}
    if request.src_dataset_type == "synthetic":
        source["seed"] = request.seed
    files = [chunk.files[0] for chunks in spec.sources.values() for chunk in chunks]
    entries = in_order(lambda file: file_entry(folder / file), files)
    return {
        "made_by": "criteo-prep transcribe",
        "source": source,
        "splits": {split: {"num_samples": rows} for split, rows in num_samples.items()},
        "files": dict(zip(files, entries, strict=True)),
    }


def _check(request: Request) -> None:
    for flag, name, known in (
        ("src_dataset_type", request.src_dataset_type, READERS),
        ("dst_dataset_type", request.dst_dataset_type, WRITERS),
    ):
        if name not in known:
            default = " (the published default)" if name == "split_tfrecords" and flag == "dst_dataset_type" else ""
            state = "is not there yet" if name in NOT_YET or name in READERS else "is not a layout"
            raise TranscribeError(f"--{flag} {name}{default} {state}. Give --{flag} {' or '.join(known)}.")
    for flag in ("max_batches_train", "max_batches_test"):
        if (given := getattr(request, flag)) != -1 and given < 1:
            raise TranscribeError(f"--{flag} {given}: must be -1, which is all, or at least 1.")
    if request.src_batch_size < 1:
        raise TranscribeError(f"--src_batch_size {request.src_batch_size}: must be at least 1.")
    if request.dst_feature_spec != Path(request.dst_feature_spec).name:
        raise TranscribeError(f"--dst_feature_spec {request.dst_feature_spec}: must be a file name, without a folder.")
    source, destination = (Path(os.path.realpath(p)) for p in (request.src_dataset_path, request.dst_dataset_path))
    if source.is_relative_to(destination):
        raise TranscribeError(f"{destination}: is the source or holds it. Name another --dst_dataset_path.")
    if destination.is_relative_to(source) and request.src_dataset_type != "synthetic":
        raise TranscribeError(f"{destination}: is inside the source {source}. Name another --dst_dataset_path.")
