"""The feature spec that a layout gives the features of another one, and who can hold what.

Categorical features keep name (less the suffix `.bin` that published datasets have in it), cardinality, hotness, alpha
and ragged; numericals and label get the standard names, in the same order.
"""

import dataclasses
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from criteo_prep.feature_spec import Chunk, Feature, FeatureSpec, FeatureSpecError, minimal_dtype
from criteo_prep.schema import LABEL

# Which layouts hold what not every layout holds.
HOLDS_MULTI_HOT = ("tf_raw", "split_tfrecords", "parquet", "record_binary", "criteo_npy")
HOLDS_RAGGED = ("tf_raw", "split_tfrecords", "parquet")
HOLDS_INTEGERS = ("record_binary", "csv", "parquet")


class LayoutError(ValueError):
    """A layout cannot hold a feature, or the files of a dataset are not what their layout says."""


def standard_spec(
    layout: str,
    source: FeatureSpec,
    *,
    splits: Iterable[str],
    ids: str | None,
    numerical: str,
    label: str,
    chunks: Callable[[str, FeatureSpec], Sequence[Chunk]],
) -> FeatureSpec:
    """The spec of a source's features in a layout.

    Args:
      layout: a name in HOLDS_*.
      source: categorical names and all dtypes are taken from it.
      splits: that have files.
      ids: dtype of categorical features; None for the smallest one that the published rule allows.
      numerical: float dtype of numericals; integers stay int32 where the layout holds them.
      label: dtype of the label.
      chunks: (split, spec) -> its chunks.

    Raises:
      LayoutError: the layout cannot hold a feature; the message says which layouts can.
      FeatureSpecError: two features have the same name, or a cardinality is too large.
    """
    check_holds(layout, source)
    if source.numerical and np.dtype(source.numerical[0].dtype).kind in "iu":
        numerical = "int32"
    features: dict[str, Feature] = {}
    for feature in [
        *(_categorical(feature, ids) for feature in source.categorical),
        *(Feature(f"num_{i}", numerical) for i in range(len(source.numerical))),
        Feature(LABEL, label),
    ]:
        if feature.name in features:
            raise FeatureSpecError(f"two features are named {feature.name!r} in the standard layout. Rename one.")
        features[feature.name] = feature
    names = list(features)
    last = len(source.categorical)
    channels = {"categorical": tuple(names[:last]), "numerical": tuple(names[last:-1]), "label": (LABEL,)}
    spec = FeatureSpec(features, channels)
    spec.sources = {split: tuple(chunks(split, spec)) for split in splits}
    return spec


def check_holds(layout: str, source: FeatureSpec) -> None:
    """Raises LayoutError naming the first feature that the layout cannot hold, and layouts that can."""
    for feature in source.categorical:
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
    """The chunks of a split. Raises LayoutError where one is of another layout, FeatureSpecError without chunks."""
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


def check_sizes(spec: FeatureSpec, split: str) -> None:
    """Raises LayoutError where a file of the split has not the size that the transcription which made it wrote down.

    A file that was cut where a number could end as well is found by nothing else.
    """
    made = spec.metadata.get("files") if isinstance(spec.metadata, dict) else None
    for file in (file for chunk in spec.sources[split] for file in chunk.files):
        entry = made.get(file) if isinstance(made, dict) else None
        said = entry.get("bytes") if isinstance(entry, dict) else None
        if type(said) is int and (size := (spec.root / file).stat().st_size) != said:
            raise LayoutError(
                f"{spec.root / file}: has {size} bytes, but {said} were written, says {spec.path.name}. Copy or make "
                "it again; if somebody meant to change it, remove its entry from metadata: files."
            )


def _categorical(feature: Feature, ids: str | None) -> Feature:
    try:
        minimal = minimal_dtype(feature.cardinality)
    except FeatureSpecError as error:
        raise FeatureSpecError(f"{feature.name}: {error}") from None
    return dataclasses.replace(feature, name=feature.name.removesuffix(".bin"), dtype=ids or minimal)


def _listed(names: Sequence[str], word: str = "and") -> str:
    return f"{', '.join(names[:-1])} {word} {names[-1]}"
