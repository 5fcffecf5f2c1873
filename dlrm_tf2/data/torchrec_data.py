"""The samples of TorchRec's DLRM example: its files in place, or random ones."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from criteo_prep.batch import Batch, Ids
from criteo_prep.feature_spec import Chunk, Feature, FeatureSpecError
from criteo_prep.synthetic.multi_hot import DISTRIBUTIONS, MultiHotTables
from dlrm_tf2.data import day_files
from dlrm_tf2.data.day_files import CATEGORICAL, LABEL, NUMERICAL, DaySamples, FoldedIds, Split
from dlrm_tf2.data.provided import ProvidedSpec, Samples
from dlrm_tf2.data.sample_parts import CycledSamples, HeldSamples, MultiHotSamples

__all__ = ["DISTRIBUTIONS", "DataRequest", "provided_spec"]

SPLITS = ("train", "validation", "test")
RANDOM_BATCHES = 10  # batches that are made once and then repeated
_SAMPLE_BYTES = 1 + 4 * len(NUMERICAL)  # label and numericals in memory
_ID_BYTES = 4


@dataclass(frozen=True)
class DataRequest:
    """What the flags say about the samples.

    Attributes:
      folder: folder of the .npy files; None for random samples.
      kaggle: the folder holds Kaggle's logs, in one piece.
      multi_hot_files: the ids are in .npz files, several a sample.
      num_rows: rows of each table.
      bag_sizes: ids that replace one id, for each feature; empty for none.
      distribution: how these ids are drawn.
      in_memory: the samples are read once, and held in memory.
      batch_sizes: split -> samples of a batch, all ranks together.
      limits: split -> most batches of a pass; None for no limit.
      shuffled: the training samples are permuted, so a limit may take any of them.
    """

    folder: str | None
    kaggle: bool
    multi_hot_files: bool
    num_rows: tuple[int, ...]
    bag_sizes: tuple[int, ...]
    distribution: str
    in_memory: bool
    batch_sizes: Mapping[str, int]
    limits: Mapping[str, int | None]
    shuffled: bool


def provided_spec(request: DataRequest, folded: FoldedIds) -> ProvidedSpec:
    """The spec of the samples.

    Args:
      request: what the flags say.
      folded: counts the ids that are taken modulo the rows of their table.

    Raises:
      FeatureSpecError: a file is missing or damaged, or its sizes contradict the flags.
    """
    return _of_files(request, folded) if request.folder else _random(request)


def _of_files(request: DataRequest, folded: FoldedIds) -> ProvidedSpec:
    folder = Path(request.folder)
    splits = day_files.find_splits(folder, kaggle=request.kaggle, multi_hot=request.multi_hot_files)
    for name, split in splits.items():
        if split.num_rows == 0:
            raise FeatureSpecError(f"{folder}: the {name} split has no row. Use files with more rows.")
        limit = request.limits[name]
        if limit and not (request.shuffled and name == "train"):
            splits[name] = replace(split, num_rows=min(split.num_rows, limit * request.batch_sizes[name]))
    rows = dict(zip(CATEGORICAL, request.num_rows, strict=True))

    def samples_of(name: str, features: tuple[str, ...]) -> Samples:
        samples = DaySamples(splits[name], features, num_rows=rows, folded=folded)
        return HeldSamples(samples) if request.in_memory else samples

    spec = _spec(
        request, day_files.hotness_of(splits["train"]), samples_of=lambda name, features, _: samples_of(name, features)
    )
    spec.root = spec.path = folder
    num_days = len(splits["train"].days) + 1
    spec.source = f"{folder}, {'whose last seventh is evaluated' if request.kaggle else f'{num_days} days of 24'}"
    spec.sources = {name: _chunks(split, folder) for name, split in splits.items()}
    sizes = {name: split.num_rows for name, split in splits.items()}
    spec.num_samples = {name: _limited(request, name, size) for name, size in sizes.items()}
    if request.in_memory:
        _hold(spec, sum(sizes.values()))
        spec.advice += "With --mmap_mode samples are read from their files. "
    return spec


def _random(request: DataRequest) -> ProvidedSpec:
    rows = dict(zip(CATEGORICAL, request.num_rows, strict=True))

    def samples_of(name: str, features: tuple[str, ...], seed: int) -> Samples:
        num_made = RANDOM_BATCHES * request.batch_sizes[name]

        def random(column: int) -> np.random.Generator:
            return np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, SPLITS.index(name), column])))

        label = random(0).integers(0, 2, num_made).astype(np.bool_) if LABEL in features else None
        numerical = None
        if NUMERICAL[0] in features:
            numerical = random(1).standard_normal((num_made, len(NUMERICAL)), np.float32)
        ids = {
            feature: Ids(random(2 + number).integers(0, rows[feature], num_made, np.int32))
            for number, feature in enumerate(CATEGORICAL)
            if feature in features
        }
        return CycledSamples(Batch(label, numerical, ids), spec.num_samples[name])

    spec = _spec(request, (1,) * len(CATEGORICAL), samples_of=samples_of)
    spec.source = f"random samples, {RANDOM_BATCHES} batches again and again"
    spec.num_samples = {name: request.limits[name] * request.batch_sizes[name] for name in SPLITS}
    _hold(spec, sum(RANDOM_BATCHES * request.batch_sizes[name] for name in SPLITS))
    return spec


def _spec(request: DataRequest, hotness: tuple[int, ...], *, samples_of) -> ProvidedSpec:
    """The spec without files and sizes; `samples_of`: (split, features, seed) -> samples before they get bags."""
    tables = None
    if request.bag_sizes:
        tables = MultiHotTables(request.num_rows, request.bag_sizes, request.distribution)
    numbers = {name: number for number, name in enumerate(CATEGORICAL)}

    def opener(name: str):
        def opens(features: tuple[str, ...], seed: int) -> Samples:
            samples = samples_of(name, features, seed)
            if tables is None:
                return samples
            tables.reserve(numbers[feature] for feature in features if feature in numbers)
            return MultiHotSamples(samples, tables, numbers)

        return opens

    sizes = request.bag_sizes or hotness
    features = {
        name: Feature(name, "int32", rows, hotness=size)
        for name, rows, size in zip(CATEGORICAL, request.num_rows, sizes, strict=True)
    }
    features |= {name: Feature(name, "float32") for name in NUMERICAL} | {LABEL: Feature(LABEL, "int32")}
    spec = ProvidedSpec(features, {"categorical": CATEGORICAL, "numerical": NUMERICAL, "label": (LABEL,)})
    spec.advice = "--scale makes the tables smaller. "
    spec.opens = {name: opener(name) for name in SPLITS}
    if tables is not None:
        spec.held_bytes = {name: tables.num_bytes(number) for name, number in numbers.items()}
        spec.advice += (
            "The bags of --multi_hot_sizes are held in memory; the files of --synthetic_multi_hot_criteo_path need no "
            "such memory. "
        )
    return spec


def _hold(spec: ProvidedSpec, num_samples: int) -> None:
    """Adds the bytes of samples in memory to the bytes that a rank holds."""
    one_hot = bool(spec.held_bytes)  # with bags, one id a sample is held
    held = {LABEL: num_samples * _SAMPLE_BYTES}
    for feature in spec.categorical:
        ids = num_samples * (1 if one_hot else feature.hotness)
        held[feature.name] = spec.held_bytes.get(feature.name, 0) + ids * _ID_BYTES
    spec.held_bytes = held


def _limited(request: DataRequest, name: str, num_samples: int) -> int:
    limit = request.limits[name]
    return min(num_samples, limit * request.batch_sizes[name]) if limit else num_samples


def _chunks(split: Split, folder: Path) -> tuple[Chunk, ...]:
    parts = {"labels": (LABEL,), "dense": NUMERICAL, "sparse": CATEGORICAL}
    return tuple(
        Chunk(names, tuple(str(getattr(day, part).relative_to(folder)) for day in split.days), "criteo_npy")
        for part, names in parts.items()
    )
