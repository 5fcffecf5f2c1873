"""The feature spec of a layout, and which layouts hold which features.

Categorical features keep their name (without the suffix `.bin` of published datasets), cardinality, hotness, alpha and
ragged. Numericals and label get the standard names, in the same order.
"""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from criteo_prep.feature_spec import Chunk, Feature, FeatureSpec, FeatureSpecError, minimal_dtype
from criteo_prep.schema import LABEL

# Layouts that hold features which some layouts cannot hold.
HOLDS_MULTI_HOT = ("tf_raw", "split_tfrecords", "parquet", "record_binary", "criteo_npy")
HOLDS_RAGGED = ("tf_raw", "split_tfrecords", "parquet")
HOLDS_INTEGERS = ("record_binary", "csv", "parquet")
HOLDS_KEYS = ("tf_raw", "parquet", "csv")


class LayoutError(FeatureSpecError):
    """A layout cannot hold a feature, or a dataset's files are not in the layout that its spec names."""


class Wanted(NamedTuple):
    """The parts of a sample that a reader decodes.

    Attributes:
      label: whether the label is read.
      numerical: whether the numericals are read, all or none of them.
      categorical: categorical features whose ids are read, in the order of channel_spec.
    """

    label: bool
    numerical: bool
    categorical: tuple[Feature, ...]


def wanted_of(spec: FeatureSpec, features: Iterable[str] | None) -> Wanted:
    """The features of these names; all features for None. Raises FeatureSpecError for an unknown name."""
    names = set(spec.features if features is None else features)
    if unknown := sorted(names - set(spec.features)):
        where = spec.path or spec.root
        raise FeatureSpecError(f"{where}: there is no feature {unknown[0]!r}; the features are {list(spec.features)}.")
    numerical = names.intersection(spec.channels["numerical"])
    assert len(numerical) in (0, len(spec.numerical)), "numericals are read all or none"
    return Wanted(
        spec.label.name in names,
        bool(numerical),
        categorical=tuple(feature for feature in spec.categorical if feature.name in names),
    )


@dataclass(frozen=True)
class StandardLayout:
    """The types and files that this program writes in a layout.

    Attributes:
      name: name of the layout, as in HOLDS_*.
      ids: dtype of categorical features without keys; None for the smallest dtype that the published rule allows.
      numerical: float dtype of numericals; integers stay int32 where the layout holds integers.
      label: dtype of the label.
      chunks: function of (split, spec) that returns the chunks of the split.
    """

    name: str
    ids: str | None
    numerical: str
    label: str
    chunks: Callable[[str, FeatureSpec], Sequence[Chunk]]


def standard_spec(layout: StandardLayout, source: FeatureSpec, splits: Iterable[str]) -> FeatureSpec:
    """The spec of a source's features in a layout.

    Args:
      layout: types and files of the layout.
      source: spec of the source, from which names of categorical features and kinds of numericals are taken.
      splits: splits that have files.

    Raises:
      LayoutError: the layout cannot hold a feature; the message names layouts that can.
      FeatureSpecError: two features have the same name, or a cardinality is too large.
    """
    check_layout_holds(layout.name, source)
    holds_integers = source.numerical and np.dtype(source.numerical[0].dtype).kind in "iu"
    numerical = "int32" if holds_integers else layout.numerical
    features: dict[str, Feature] = {}
    for feature in [
        *(_categorical(feature, layout.ids) for feature in source.categorical),
        *(Feature(f"num_{i}", numerical) for i in range(len(source.numerical))),
        Feature(LABEL, layout.label),
    ]:
        if feature.name in features:
            raise FeatureSpecError(f"two features are named {feature.name!r} in the standard layout. Rename one.")
        features[feature.name] = feature
    names = list(features)
    num_categorical = len(source.categorical)
    channels = {
        "categorical": tuple(names[:num_categorical]),
        "numerical": tuple(names[num_categorical:-1]),
        "label": (LABEL,),
    }
    spec = FeatureSpec(features, channels)
    spec.sources = {split: tuple(layout.chunks(split, spec)) for split in splits}
    return spec


def all_features(spec: FeatureSpec) -> tuple[str, ...]:
    """Names of all features in the order of our single files: label, numericals, categorical features."""
    return (*spec.channels["label"], *spec.channels["numerical"], *spec.channels["categorical"])


def check_layout_holds(layout: str, source: FeatureSpec) -> None:
    """Raises LayoutError for the first feature that the layout cannot hold; the message names layouts that can."""
    for feature in source.categorical:
        if feature.key and layout not in HOLDS_KEYS:
            raise LayoutError(
                f"{feature.name}: holds raw keys, which are int64; {layout} holds ids of int32. {_listed(HOLDS_KEYS)} "
                "hold keys."
            )
        if feature.ragged and layout not in HOLDS_RAGGED:
            raise LayoutError(
                f"{feature.name}: samples differ in their number of ids; {layout} cannot hold that. "
                f"{_listed(HOLDS_RAGGED)} can."
            )
        if feature.hotness > 1 and layout not in HOLDS_MULTI_HOT:
            raise LayoutError(
                f"{feature.name}: hotness {feature.hotness}; {layout} holds one id a sample. "
                f"{_listed(HOLDS_MULTI_HOT)} hold more."
            )
    kinds = {np.dtype(feature.dtype).kind in "iu" for feature in source.numerical}
    if len(kinds) > 1:
        raise LayoutError("the numericals are integers and floats mixed. Give all of them the same dtype.")
    for feature in source.numerical[:1]:
        if kinds == {True} and layout not in HOLDS_INTEGERS:
            raise LayoutError(
                f"{feature.name}: is {feature.dtype}; {layout} holds floats. Add --dense_log, which takes log(x + 3), "
                f"or choose {_listed(HOLDS_INTEGERS, 'or')}."
            )


def chunks_of_type(spec: FeatureSpec, split: str, layout: str) -> tuple[Chunk, ...]:
    """The chunks of a split.

    Raises:
      LayoutError: a chunk is of another layout.
      FeatureSpecError: the spec has no such split.
    """
    if split not in spec.sources:
        raise FeatureSpecError(f"{spec.path}: there is no split {split!r}; the splits are {list(spec.splits)}.")
    for chunk in spec.sources[split]:
        if chunk.type != layout:
            name = "tf_raw" if chunk.type == "split_binary" else chunk.type
            raise LayoutError(
                f"{spec.path}: source_spec: {split}: {chunk.files[0]} is of type {chunk.type!r}, not {layout!r}. "
                f"If that is right, give --src_dataset_type {name}."
            )
    return spec.sources[split]


def dtype_advice(spec: FeatureSpec, feature: Feature, dtype: np.dtype) -> str:
    """What to do where a file has another dtype than its feature: correct the spec, if it may say so, or the file."""
    stated = dataclasses.replace(feature, dtype=dtype.name)
    try:
        dataclasses.replace(spec, features={**spec.features, feature.name: stated}).validate(auto=True)
    except FeatureSpecError:
        return f"A feature spec cannot say {dtype.name} here: save the file with {feature.dtype}."
    return f"Write {dtype.name} into the feature spec, or save the file with {feature.dtype}."


def files_of_split(spec: FeatureSpec, split: str) -> list[str]:
    """The files of a split, as the spec names them; none for a split without chunks."""
    return [file for chunk in spec.sources.get(split, ()) for file in chunk.files]


def check_sizes(spec: FeatureSpec, split: str) -> None:
    """Raises LayoutError where a file of the split does not have the size that the spec's metadata records.

    Nothing else finds a file that was cut between two samples, before it is read.
    """
    recorded = spec.metadata.get("files") if isinstance(spec.metadata, dict) else None
    for file in files_of_split(spec, split):
        entry = recorded.get(file) if isinstance(recorded, dict) else None
        expected = entry.get("bytes") if isinstance(entry, dict) else None
        if type(expected) is int and (size := (spec.root / file).stat().st_size) != expected:
            raise LayoutError(
                f"{spec.root / file}: has {size} bytes, but {expected} were written, says {spec.path.name}. Copy or "
                "make it again; if you changed the file on purpose, remove its entry from metadata: files."
            )


def _categorical(feature: Feature, dtype: str | None) -> Feature:
    """The feature under its standard name; dtype None is the smallest dtype that the published rule allows."""
    name = feature.name.removesuffix(".bin")
    if feature.key:
        return dataclasses.replace(feature, name=name)
    try:
        minimal = minimal_dtype(feature.cardinality)
    except FeatureSpecError as error:
        raise FeatureSpecError(f"{feature.name}: {error}") from None
    return dataclasses.replace(feature, name=name, dtype=dtype or minimal)


def _listed(names: Sequence[str], word: str = "and") -> str:
    return f"{', '.join(names[:-1])} {word} {names[-1]}"
